//! Blinding or altering what enforces.

use super::{Attack, almighty, refused};
use crate::{
    cases, ensure, events,
    harness::{Outcome, Test, exists},
    promise::{self, Attempt, Denial},
    promises::units::{NoDaemon, Unit, judged, matched, probe, records},
};
use serde_json::Value;
use std::fs;

cases!(attack_enforcer:
    no_command_reaches_the_kernel_programs,
    no_pin_changes_its_name_mode_or_place,
    nothing_is_put_where_the_enforcer_is_configured,
    without_a_daemon_the_attacks_fail_as_with_one,
    a_flood_of_refusals_hides_nothing,
);

/// Commands of `bpf` (include/uapi/linux/bpf.h), by what an agent could do with them.
const COMMANDS: [(u32, &str); 12] = [
    (5, "load a program"),
    (6, "pin"),
    (8, "attach"),
    (13, "open a program by its number"),
    (14, "open a map by its number"),
    (15, "read about an object"),
    (17, "open a tracepoint"),
    (20, "ask about a task"),
    (30, "open a link by its number"),
    (32, "switch statistics on"),
    (34, "detach a link"),
    (28, "make a link"),
];

fn no_command_reaches_the_kernel_programs(t: &mut Test) -> Outcome {
    let attempts = COMMANDS
        .map(|(number, _)| Attempt::new(format!("bpf-command {number}"), Denial::floor("bpf|capability")))
        .map(Attempt::fails_somehow_outside);
    promise::control(&attempts)?;
    promise::refused(t, &t.agent(almighty(t)?)?, &["prctl-name".to_owned()], &attempts)
}

fn no_pin_changes_its_name_mode_or_place(t: &mut Test) -> Outcome {
    t.file("open/f1")?;
    let (bpffs, old) = ("/sys/fs/bpf", "/sys/fs/bpf/probe-attacks");
    let lay = || -> Outcome {
        for name in ["probe-attacks/a", "probe-attacks/b", "probe-attacks"] {
            let _ = fs::remove_dir(format!("{bpffs}/{name}"));
        }
        Ok(fs::create_dir_all(format!("{old}/a"))?)
    };
    let pin = format!("{bpffs}/enforcer/maps/GATE");
    ensure!(exists(&pin), "{pin} is missing");
    let floor = |act: String, operation: &'static str| Attempt::new(act, Denial::floor(operation));
    let mut attempts = vec![
        floor(format!("rename {old}/a {old}/b"), "rename"),
        floor(format!("chmod {old}"), "chmod"),
        floor(format!("chown {old}"), "chown"),
        floor(format!("utimes {old}"), "setattr"),
    ];
    lay()?;
    promise::control(&attempts)?;
    // Outside these would harm what enforces.
    for (act, operation) in [
        (format!("rename {pin} {old}/gate"), "rename"),
        (format!("rename-exchange {pin} {old}"), "rename"),
        (format!("rename {bpffs}/enforcer {bpffs}/elsewhere"), "rename"),
        (format!("link {pin} {old}/gate"), "link"),
        (format!("symlink /nowhere {bpffs}/enforcer/maps/x"), "symlink"),
        (format!("chmod {pin}"), "chmod"),
        (format!("chown {pin}"), "chown"),
        (format!("rmdir {bpffs}/enforcer/maps"), "rmdir"),
    ] {
        attempts.push(floor(act, operation).not_outside());
    }
    lay()?;
    let outcome =
        promise::refused(t, &t.agent(almighty(t)?)?, &[format!("read {}", t.at("open/f1"))], &attempts);
    let kept = exists(&pin) && exists(&format!("{old}/a"));
    for name in ["a", "b", ""] {
        let _ = fs::remove_dir(format!("{old}/{name}"));
    }
    outcome?;
    ensure!(kept, "a pin was changed although refused");
    Ok(())
}

/// Whatever the policy allows: what is part of every policy denies it.
fn nothing_is_put_where_the_enforcer_is_configured(t: &mut Test) -> Outcome {
    t.file("open/f1")?;
    let mine = t.at("open/f1");
    let create = |path: &str| {
        Attempt::new(format!("create {path}"), Denial::by_rule("create", "floor@1").on(path).asking("create"))
            .not_outside()
    };
    let onto = |path: &str, access: &'static str| {
        let denial = Denial::by_rule("rename", "floor@1").on(path).asking(access);
        Attempt::new(format!("rename {mine} {path}"), denial).not_outside()
    };
    let other = |act: &str, operation: &'static str, path: &str, access: &'static str| {
        let denial = Denial::by_rule(operation, "floor@1").on(path).asking(access);
        Attempt::new(format!("{act} {path}"), denial).not_outside()
    };
    let log = "/var/lib/enforcer/audit/events.jsonl";
    let attempts = [
        create("/etc/enforcer/policies.d/mine.yaml"),
        onto("/etc/enforcer/policies.d/mine.yaml", "write+create"),
        onto("/etc/enforcer/enforcer.toml", "write+create+delete"),
        onto("/usr/bin/enforcer", "write+create+delete"),
        create("/run/enforcer/mine"),
        create("/var/lib/enforcer/audit/mine"),
        other("symlink /etc", "symlink", "/etc/enforcer/policies.d/more", "create"),
        other("mkdir", "mkdir", "/etc/enforcer/mine", "create"),
        other("chmod", "chmod", "/usr/bin/enforcer", "metadata"),
        other("chown", "chown", "/etc/enforcer/enforcer.toml", "metadata"),
        other("truncate", "truncate", log, "truncate"),
        other("unlink", "unlink", log, "delete"),
        other("read", "open", log, "read"),
        other("setflags", "open", log, "read"),
        other("list", "open", "/run/enforcer", "list"),
    ];
    promise::refused(t, &t.agent(almighty(t)?)?, &[format!("read {mine}")], &attempts)?;
    ensure!(exists("/usr/bin/enforcer") && exists(log) && exists(&mine), "something was moved");
    Ok(())
}

/// One attack of each kind, while nobody reads what the kernel programs record.
fn without_a_daemon_the_attacks_fail_as_with_one(t: &mut Test) -> Outcome {
    for name in ["open/f1", "open/f2", "shut/f1", "shut/f2"] {
        t.file(name)?;
    }
    let (open, shut, marker) = (t.at("open"), t.at("shut"), promise::marker(t)?);
    let agent = t.agent(matched(t, "probe-attacks").allow("all", &format!("{open}/**")))?;
    let (file, other) = (format!("{shut}/f1"), format!("{shut}/f2"));
    let on =
        |operation: &'static str, access: &'static str| Denial::no_rule(operation).on(&file).asking(access);
    let floor = Denial::floor;
    let attempts: Vec<(String, Denial)> = vec![
        (format!("read {file}"), on("open", "read")),
        (format!("opath-reopen {other}"), Denial::no_rule("open").on(&other).asking("read")),
        (format!("write {file}"), on("open", "write")),
        (format!("unlink {file}"), on("unlink", "delete")),
        (format!("rename {file} {open}/n1"), on("rename", "delete+rename")),
        (format!("truncate {file}"), on("truncate", "truncate")),
        (format!("chmod {file}"), on("chmod", "metadata")),
        (format!("setxattr {file}"), on("xattr", "metadata")),
        ("exec /usr/bin/id".to_owned(), Denial::no_rule("exec").on("/usr/bin/id").asking("exec")),
        ("memfd-exec /usr/bin/true".to_owned(), Denial::because("exec", "unknown-object").flagged("foreign")),
        (
            "tcp 127.0.0.1 9".to_owned(),
            Denial::no_rule("connect").to("127.0.0.1", 9, "tcp").asking("connect"),
        ),
        ("udp-send ::1 9".to_owned(), Denial::no_rule("send").to("::1", 9, "udp").asking("connect")),
        ("bind 127.0.0.1 9".to_owned(), Denial::no_rule("bind").to("127.0.0.1", 9, "tcp").asking("bind")),
        ("socket 2 3 1".to_owned(), floor("socket")),
        ("unix-stream /run/systemd/private".to_owned(), floor("unix-connect")),
        ("mount-tmpfs /mnt".to_owned(), floor("mount|capability")),
        ("unshare-user".to_owned(), floor("user-namespace")),
        ("chroot /".to_owned(), floor("chroot|capability")),
        ("kill 1 0".to_owned(), floor("signal")),
        ("ptrace-seize 1".to_owned(), floor("ptrace|capability")),
        ("write /sys/fs/cgroup/cgroup.procs".to_owned(), floor("open")),
        ("clone-into-cgroup /sys/fs/cgroup".to_owned(), floor("fork")),
        ("bpf-next-map".to_owned(), floor("bpf|capability")),
        ("unlink /sys/fs/bpf/enforcer/maps/GATE".to_owned(), floor("unlink")),
        ("io-uring".to_owned(), floor("io-uring")),
        ("clock-settime".to_owned(), floor("clock|capability")),
        ("write /proc/sysrq-trigger".to_owned(), floor("open")),
        ("delete-module".to_owned(), floor("capability").argument("cap_sys_module")),
    ];
    let mut acts = vec![format!("read {open}/f1"), "fork".to_owned()];
    acts.extend(attempts.iter().map(|(act, _)| act.clone()));
    acts.extend([format!("write {open}/f2"), format!("read {marker}")]);
    let mark = events::mark()?;
    let dead = NoDaemon::kill()?;
    let (unit, code) = Unit::start(t, "probe-attacks", &probe(&acts), true)?;
    let lines = unit.lines();
    dead.start_again()?;
    let expected = |index: usize| {
        let twin = index < 2 || index == acts.len() - 2;
        if twin { "ok" } else { "EPERM" }
    };
    let wrong: Vec<String> = acts
        .iter()
        .enumerate()
        .filter(|(index, _)| lines.get(*index).is_none_or(|line| line != expected(*index)))
        .map(|(index, act)| format!("{act}: {}", lines.get(index).map_or("nothing", String::as_str)))
        .collect();
    ensure!(code == Some(0) && wrong.is_empty(), "{code:?} {}", wrong.join("\n"));
    ensure!(exists("/sys/fs/bpf/enforcer/maps/GATE") && exists(&file), "something is gone");
    // The daemon that came back reads what the ring has kept.
    let denials: Vec<Denial> = attempts.into_iter().map(|(_, denial)| denial).collect();
    judged(&records(&agent, mark, &marker)?, &denials, &agent)
}

/// Everything that was attempted is recorded, counted, or said to be lost; and what happened in the middle of the
/// flood is refused like anything else.
fn a_flood_of_refusals_hides_nothing(t: &mut Test) -> Outcome {
    let number: u64 = if t.full { 200_000 } else { 2_000 };
    for name in ["open/f1", "shut/f1", "shut/secret"] {
        t.file(name)?;
    }
    let (shut, secret) = (t.at("shut"), t.at("shut/secret"));
    let marker = promise::marker(t)?;
    let agent = t.agent(t.policy().allow("all", &t.at("open/**")))?;
    let acts = [
        format!("flood-create {shut} {number}"),
        format!("write {secret}"),
        format!("flood-read {shut}/f1 {number}"),
        format!("read {}", t.at("open/f1")),
        format!("read {marker}"),
    ];
    let session = agent.probe(&acts)?;
    ensure!(session.lines == ["ok", "EPERM", "ok", "ok", "EPERM"], "{:?} {}", session.lines, session.err);
    let attempted = 2 * number + 2;
    let mine = |record: &&Value| events::decides(record, &session.id);
    let count = |record: &Value| record["count"].as_u64().unwrap_or(1);
    let lost = |record: &Value| match (record["kind"] == "lost", record["agent"] == agent.name()) {
        (true, true) => record["decisions"].as_u64().unwrap_or(0),
        _ => 0,
    };
    let sums = || -> Outcome<(u64, u64)> {
        let all = events::since(session.mark)?;
        Ok((all.iter().filter(mine).map(count).sum(), all.iter().map(lost).sum()))
    };
    let told = crate::command::wait_for("an account of the whole flood", 120, || {
        let (recorded, lost) = sums().ok()?;
        (recorded + lost >= attempted).then_some((recorded, lost))
    });
    let Ok((recorded, lost)) = told else { crate::fail!("{:?} recorded and lost of {attempted}", sums()?) };
    ensure!(recorded + lost == attempted, "{recorded} recorded and {lost} lost of {attempted}");
    let all = events::since(session.mark)?;
    let seen = all.iter().filter(mine).any(|record| record["object"]["path"] == secret);
    ensure!(seen || lost > 0, "the attempt in the middle is not in the log, and nothing is said to be lost");
    Ok(())
}

const FLOOR: &str = "floor::no_kernel_programs_and_no_counters";
const COMMAND: &str = "attack_enforcer::no_command_reaches_the_kernel_programs";
const PINS: &str = "attack_enforcer::no_pin_changes_its_name_mode_or_place";
const PLACES: &str = "attack_enforcer::nothing_is_put_where_the_enforcer_is_configured";
const DEAD: &str = "attack_enforcer::without_a_daemon_the_attacks_fail_as_with_one";
const REACHES: &str = "audit::an_agent_reaches_neither_the_log_nor_its_key";
const END: &str = "operating::an_agent_that_may_do_everything_does_not_end_enforcement";
const RULES: &str = "file hooks: rules of `floor@1`";

#[rustfmt::skip]
pub const ATTACKS: &[Attack] = &[
    refused("E01", "the next kernel program by number", "bpf, capable", FLOOR, "bpf-next-program"),
    refused("E02", "the next map, to rewrite policies", "bpf, capable", FLOOR, "bpf-next-map"),
    refused("E03", "the next link", "bpf, capable", FLOOR, "bpf-next-link"),
    refused("E04", "a map of one's own", "bpf, capable", FLOOR, "bpf-create-map"),
    refused("E05", "a pin by its path (`BPF_OBJ_GET`)", "bpf, capable", FLOOR, "bpf-get-pin"),
    refused("E06", "loading a kernel program", "bpf, capable", COMMAND, "load a program"),
    refused("E07", "pinning", "bpf, capable", COMMAND, "pin"),
    refused("E08", "attaching a program", "bpf, capable", COMMAND, "attach"),
    refused("E09", "a program by its number", "bpf, capable", COMMAND, "open a program by its number"),
    refused("E10", "a map by its number", "bpf, capable", COMMAND, "open a map by its number"),
    refused("E11", "a link by its number", "bpf, capable", COMMAND, "open a link by its number"),
    refused("E12", "detaching a link", "bpf, capable", COMMAND, "detach a link"),
    refused("E13", "asking about a task's descriptors by `bpf`", "bpf, capable", COMMAND, "ask about a task"),
    refused("E14", "removing the pins", "path_unlink", "knobs::the_pins_cannot_be_removed", "unlink"),
    refused("E15", "moving a pin away", "path_rename", PINS, "rename {pin} {old}/gate"),
    refused("E16", "exchanging a pin with something else", "path_rename", PINS, "rename-exchange"),
    refused("E17", "moving the directory of all pins", "path_rename", PINS, "rename {bpffs}/enforcer"),
    refused("E18", "one more name for a pin", "path_link", PINS, "link"),
    refused("E19", "a symbolic link among the pins", "path_symlink", PINS, "symlink"),
    refused("E20", "the mode of a pin, so that others may open it", "path_chmod", PINS, "chmod {pin}"),
    refused("E21", "the owner of a pin", "path_chown", PINS, "chown {pin}"),
    refused("E22", "removing the directory of pins", "path_rmdir", PINS, "rmdir"),
    refused("E23", "making and removing names in bpffs", "path_mkdir, path_rmdir, path_unlink", "knobs::names_in_bpffs_cannot_be_made_or_removed", "mkdir"),
    refused("E24", "mounting another bpffs, or anything", "sb_mount, capable", "floor::nothing_is_mounted_or_unmounted", "mount-tmpfs"),
    refused("E25", "one attack of each kind while the daemon is dead", "the same hooks: links are pinned", DEAD, "without_a_daemon_the_attacks_fail_as_with_one"),
    refused("E26", "trying again and again until the daemon has died and come back", "file_open", "units::without_a_daemon_denials_continue", "loop"),
    refused("E27", "a slice that is stopped and started while no daemon runs", "cgroup_mkdir", "units::a_slice_started_anew_without_a_daemon_is_governed", "stop agents.slice"),
    refused("E28", "ending enforcement by the product's own command", "unix_stream_connect, file hooks", END, "--uninstall"),
    refused("E29", "asking the metrics socket", "unix_stream_connect", END, "--unix-socket"),
    refused("E30", "`rm -r` of all pins", "path_unlink, path_rmdir", "package::neither_an_agent_nor_anybody_beside_one_ends_enforcement", "rm -r /sys/fs/bpf/enforcer"),
    refused("E31", "writing to the settings", RULES, REACHES, "write /etc/enforcer/enforcer.toml"),
    refused("E32", "moving the program away", RULES, REACHES, "rename /usr/bin/enforcer"),
    refused("E33", "reading the key that signs the log", RULES, REACHES, "read {LOG}/key"),
    refused("E34", "removing a checkpoint", RULES, REACHES, "unlink {LOG}/log/0001/checkpoint"),
    refused("E35", "a policy of one's own", RULES, PLACES, "/etc/enforcer/policies.d/mine.yaml"),
    refused("E36", "moving a file onto a policy", RULES, PLACES, "onto"),
    refused("E37", "moving a file onto the program", RULES, PLACES, "/usr/bin/enforcer"),
    refused("E38", "files among those of sessions", RULES, PLACES, "/run/enforcer/mine"),
    refused("E39", "a link to a directory of policies", RULES, PLACES, "symlink /etc"),
    refused("E40", "cutting the log", RULES, PLACES, "truncate"),
    refused("E41", "removing the log", RULES, PLACES, "unlink"),
    refused("E42", "reading the log", RULES, PLACES, "read"),
    refused("E43", "flags by which the log could not be written", RULES, PLACES, "setflags"),
    refused("E44", "changing the log so that it still looks whole", "signatures", "audit::a_log_that_was_changed_does_not_verify", "verify"),
    refused("E45", "a flood of different refusals", "the verdict stands before the record", "attack_enforcer::a_flood_of_refusals_hides_nothing", "flood-create"),
    refused("E46", "a flood of the same refusal", "the verdict stands before the record", "attack_enforcer::a_flood_of_refusals_hides_nothing", "flood-read"),
    refused("E47", "names with control characters, so that the log says something else", "records escape what they show", "policies::names_with_control_characters_are_recorded_safely", "verdict"),
    refused("E48", "the clock", "settime, capable", "floor::the_clock_stays", "clock-settime"),
    refused("E49", "the clock, by `settimeofday`", "settime, capable", "floor::the_clock_stays", "set-time-of-day"),
    refused("E50", "the clock, by `adjtimex`", "capable", "floor::the_clock_stays", "adjtimex"),
    refused("E51", "changing units and settings as root, under a policy that allows everything", RULES, "knobs::the_daemons_files_are_denied_to_who_may_do_everything", "append"),
    super::open("E52", "the Enforcer's files in audit mode", "In audit mode, files of the Enforcer itself"),
];
