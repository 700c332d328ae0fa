//! The floor: what no session does, whatever its rules about files and addresses say.

use super::tree;
use crate::{
    agent::Agent,
    cases,
    harness::{Outcome, Test},
    promise::{self as check, Attempt, Denial},
};

cases!(floor:
    nothing_is_mounted_or_unmounted,
    no_namespace_is_left_or_made,
    no_other_root,
    no_kernel_programs_and_no_counters,
    no_ring_of_system_calls,
    the_clock_stays,
    no_module_and_no_other_kernel,
    no_port_no_swap_no_host_name,
    no_file_by_its_handle,
    no_device_is_made,
    harmless_calls_go_on,
    what_root_reads_by_another_capability_is_no_attempt,
);

/// An agent that may do everything that rules about files and addresses can allow.
pub(super) fn almighty(t: &Test) -> Outcome<Agent> {
    let all = t.policy().allow("all", "/**").exec("/**").connect("*:*/*").bind("*:*/*");
    // Refused, so that the end of its records can be told.
    t.agent(all.deny("read", &check::marker(t)?))
}

/// Everything is refused, and the twins of the whole module work.
fn never(t: &Test, attempts: &[Attempt]) -> Outcome {
    check::control(attempts)?;
    let twins = [format!("read {}", t.at("open/f1")), "prctl-name".to_owned(), "fork".to_owned()];
    check::refused(t, &almighty(t)?, &twins, attempts)
}

/// Refused by a capability or by the hook itself, whichever the kernel asks first.
fn floor(act: impl Into<String>, operations: &'static str) -> Attempt {
    Attempt::new(act, Denial::floor(operations))
}

fn nothing_is_mounted_or_unmounted(t: &mut Test) -> Outcome {
    tree(t)?;
    // A mount shows at every other name of its directory, so each act has a directory of its own.
    let at = |name: &str| t.at(name);
    const MOUNT: &str = "mount|capability";
    let attempts = [
        floor(format!("mount-bind {} {}", at("open/d1"), at("shut/e1")), MOUNT),
        floor(format!("mount-tmpfs {}", at("shut/e2")), MOUNT),
        floor(format!("mount-proc {}", at("shut/e3")), MOUNT),
        floor(format!("mount-cgroup {}", at("shut/e4")), MOUNT),
        floor(format!("remount {}", at("open/d2")), MOUNT).fails_outside("EINVAL"),
        floor(format!("umount {}", at("open/d2")), "unmount|capability").fails_outside("EINVAL"),
        floor(format!("open-tree {} x", at("open/d3")), "capability"),
        floor(format!("open-tree-attach {} {}", at("open/d3"), at("open/e1")), "capability"),
        floor("fsopen tmpfs", "capability"),
        floor("fspick /", "capability"),
        floor(format!("move-mount {} {}", at("open/d4"), at("open/e2")), "move-mount|capability")
            .fails_outside("EINVAL"),
        floor(format!("mount-setattr {}", at("open/d4")), "capability").fails_outside("EINVAL"),
    ];
    let outcome = never(t, &attempts);
    for name in ["shut/e1", "shut/e2", "shut/e3", "shut/e4", "open/e1"] {
        crate::harness::outside(&format!("umount {}", at(name)))?;
    }
    outcome
}

fn no_namespace_is_left_or_made(t: &mut Test) -> Outcome {
    tree(t)?;
    let mut attempts: Vec<Attempt> =
        ["mount", "net", "pid", "cgroup"].map(|kind| floor(format!("unshare-{kind}"), "capability")).into();
    attempts.push(floor("unshare-user", "user-namespace"));
    attempts.push(floor("unshare-user-mount", "user-namespace"));
    attempts.push(floor("setns 1 mnt", "ptrace").errno("EACCES"));
    attempts.push(floor("setns 1 net", "ptrace").errno("EACCES"));
    never(t, &attempts)
}

fn no_other_root(t: &mut Test) -> Outcome {
    tree(t)?;
    let a = t.at("open/d1");
    let attempts = [
        floor(format!("chroot {a}"), "chroot|capability").not_outside(),
        floor("chroot /", "chroot|capability"),
        floor(format!("pivot-root {a} {a}"), "pivot-root|capability").fails_outside("EINVAL"),
    ];
    never(t, &attempts)
}

fn no_kernel_programs_and_no_counters(t: &mut Test) -> Outcome {
    tree(t)?;
    let commands = ["bpf-next-program", "bpf-next-map", "bpf-next-link", "bpf-create-map"];
    let mut attempts: Vec<Attempt> = commands.map(|act| floor(act, "bpf|capability")).into();
    attempts.push(floor("bpf-get-pin /sys/fs/bpf/no-such-pin", "bpf|capability").fails_outside("ENOENT"));
    // The kernel's own word for an event that may not be counted.
    attempts.push(floor("perf-event", "perf|capability").errno("EACCES"));
    attempts.push(floor("perf-event 1", "perf|capability").errno("EACCES"));
    never(t, &attempts)
}

fn no_ring_of_system_calls(t: &mut Test) -> Outcome {
    tree(t)?;
    never(t, &[floor("io-uring", "io-uring")])
}

fn the_clock_stays(t: &mut Test) -> Outcome {
    tree(t)?;
    never(t, &["set-time-of-day", "clock-settime", "adjtimex"].map(|act| floor(act, "clock|capability")))
}

fn no_module_and_no_other_kernel(t: &mut Test) -> Outcome {
    tree(t)?;
    let attempts = [
        floor("init-module", "capability").argument("cap_sys_module").fails_outside("ENOEXEC"),
        floor("finit-module", "capability").argument("cap_sys_module").fails_outside("ENOEXEC"),
        floor("delete-module", "capability").argument("cap_sys_module").fails_outside("ENOENT"),
        floor("kexec-load", "capability").argument("cap_sys_boot"),
        floor("kexec-file-load", "capability").argument("cap_sys_boot").fails_outside("EBADF"),
        floor("reboot", "capability").argument("cap_sys_boot"),
    ];
    never(t, &attempts)
}

fn no_port_no_swap_no_host_name(t: &mut Test) -> Outcome {
    tree(t)?;
    let attempts = [
        floor("iopl", "capability").argument("cap_sys_rawio"),
        floor("ioperm", "capability").argument("cap_sys_rawio"),
        floor("swapon /nothing", "capability").argument("cap_sys_admin").fails_outside("ENOENT"),
        floor("acct /nothing", "capability").argument("cap_sys_pacct").fails_outside("ENOENT"),
        floor("syslog", "capability").argument("cap_syslog"),
        floor("sethostname", "capability").argument("cap_sys_admin"),
        floor("fanotify", "capability").argument("cap_sys_admin"),
    ];
    never(t, &attempts)
}

fn no_file_by_its_handle(t: &mut Test) -> Outcome {
    tree(t)?;
    let act = format!("handle {}", t.at("open/f1"));
    never(t, &[floor(act, "capability").argument("cap_dac_read_search")])
}

fn no_device_is_made(t: &mut Test) -> Outcome {
    tree(t)?;
    let disk = t.at("open/disk");
    let attempts = [floor(format!("mknod-disk {disk}"), "capability").argument("cap_mknod").not_outside()];
    never(t, &attempts)
}

fn harmless_calls_go_on(t: &mut Test) -> Outcome {
    tree(t)?;
    let file = t.at("open/f1");
    let twins = [
        "kill-self".to_owned(),
        "fork".to_owned(),
        "prctl-name".to_owned(),
        "socketpair".to_owned(),
        "add-key".to_owned(),
        "anonymous-exec".to_owned(),
        format!("open-tree-plain {}", t.at("open")),
        format!("inotify {file}"),
        format!("chmod {file}"),
        format!("chown {file}"),
        format!("punch-hole {file}"),
        "proc-maps-own".to_owned(),
        "setuid 1000".to_owned(),
    ];
    check::allowed_outside(&twins)?;
    tree(t)?;
    check::refused(t, &almighty(t)?, &twins, &[])
}

/// For a file of somebody else the kernel asks for one capability and, without it, for the next.
fn what_root_reads_by_another_capability_is_no_attempt(t: &mut Test) -> Outcome {
    tree(t)?;
    for name in ["open/f1", "open/d1"] {
        std::os::unix::fs::chown(t.at(name), Some(1000), Some(1000))?;
        std::fs::set_permissions(t.at(name), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let twins = [format!("read {}", t.at("open/f1")), format!("read {}", t.at("open/d1/x"))];
    check::refused(t, &almighty(t)?, &twins, &[])
}
