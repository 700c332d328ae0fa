//! Whether this host can enforce at all: one clear error per thing that is missing, with its remedy.
//!
//! Every place that is looked at is a parameter, so that each answer can be tested.

use crate::cli::exit::{Exit, Failure};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// `CGROUP2_SUPER_MAGIC`, include/uapi/linux/magic.h.
pub const CGROUP2: i64 = 0x6367_7270;
/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
pub const BPFFS: i64 = 0xcafe_4a11;

/// Before this version the kernel could skip an LSM program, which allows what it would refuse: fixed by
/// "bpf: Remove prog->active check for bpf_lsm and bpf_iter" (6.2, backported in 6.1.54).
pub const OLDEST_KERNEL: Version = Version(6, 1, 54);

/// A kernel version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// Where to look.
pub struct Host<'a> {
    /// Effective user id.
    pub uid: u32,
    /// `uname -r`.
    pub release: String,
    /// Where the cgroup hierarchy is mounted.
    pub cgroups: PathBuf,
    /// The mount table, `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
    /// `/sys/kernel/security/lsm`.
    pub lsm: PathBuf,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: PathBuf,
    /// `/sys/kernel/btf/vmlinux`.
    pub btf: PathBuf,
    /// Where bpffs is mounted.
    pub bpffs: PathBuf,
    /// The daemon's state directory.
    pub state: PathBuf,
    /// The magic number of the file system that a path lies on.
    pub magic: &'a dyn Fn(&Path) -> io::Result<i64>,
}

/// Everything that is missing, the most fundamental first; empty where the host can enforce.
pub fn problems(host: &Host<'_>) -> Vec<Failure> {
    if host.uid != 0 {
        // Most of the other answers would be wrong without root.
        return vec![Failure::new(
            Exit::Permission,
            format!("the daemon must run as root, not as user {}", host.uid),
            "start it with systemctl start enforcer, or with sudo",
        )];
    }
    let checks: [fn(&Host<'_>) -> Option<Failure>; 7] =
        [kernel_version, cgroup_mode, bpf_lsm, lockdown, btf, bpffs, state];
    checks.iter().filter_map(|check| check(host)).collect()
}

/// What a host must have, each with what is wrong there, if anything is. Changes nothing on the host.
pub fn needs(host: &Host<'_>) -> [(Need, Option<Failure>); 6] {
    [
        (Need::Kernel, kernel_version(host)),
        (Need::Cgroups, cgroup_mode(host)),
        (Need::BpfLsm, bpf_lsm(host)),
        (Need::Lockdown, lockdown(host)),
        (Need::Btf, btf(host)),
        (Need::Bpffs, bpffs(host)),
    ]
}

/// Something that a host must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A version of Linux.
    Kernel,
    /// Cgroup v2 and nothing else.
    Cgroups,
    /// `bpf` among the LSMs.
    BpfLsm,
    /// No lockdown for confidentiality.
    Lockdown,
    /// The kernel's types.
    Btf,
    /// The BPF file system.
    Bpffs,
}

/// The version in `uname -r`, `6.1.0-44-cloud-amd64`. What follows the third number is the vendor's.
pub fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Version(major, minor, numbers.next().and_then(Result::ok).unwrap_or(0)))
}

/// Debian and others keep the patch level out of `uname -r`; there it is in `uname -v`.
pub fn full_release(release: &str, build: &str) -> String {
    let Some(Version(major, minor, 0)) = version(release) else { return release.to_owned() };
    let series = format!("{major}.{minor}.");
    build
        .split(|c: char| c.is_whitespace() || matches!(c, '-' | '+' | '~'))
        .find(|word| word.starts_with(&series) && version(word).is_some_and(|v| v.2 > 0))
        .map_or_else(|| release.to_owned(), str::to_owned)
}

fn kernel_version(host: &Host<'_>) -> Option<Failure> {
    let Version(a, b, c) = OLDEST_KERNEL;
    if version(&host.release).is_some_and(|v| v >= OLDEST_KERNEL) {
        return None;
    }
    Some(Failure::new(
        Exit::Kernel,
        format!("kernel {} is not supported: before {a}.{b}.{c} it can skip an LSM program", host.release),
        format!("boot a kernel {a}.{b}.{c} or later"),
    ))
}

fn cgroup_mode(host: &Host<'_>) -> Option<Failure> {
    let remedy = "boot with systemd.unified_cgroup_hierarchy=1 and cgroup_no_v1=all, and without \
                  systemd.legacy_systemd_cgroup_controller";
    let refuse = |what: String| Some(Failure::new(Exit::CgroupMode, what, remedy));
    let root = host.cgroups.display();
    match (host.magic)(&host.cgroups) {
        Ok(CGROUP2) => {}
        Ok(_) => return refuse(format!("{root} is not a cgroup v2 hierarchy")),
        Err(e) => return refuse(format!("cannot look at {root}: {e}")),
    }
    let table = match fs::read_to_string(&host.mountinfo) {
        Ok(table) => table,
        Err(e) => return refuse(format!("cannot read {}: {e}", host.mountinfo.display())),
    };
    let old = table.lines().find_map(version_1_mount)?;
    refuse(format!("this host runs cgroup v1 beside v2: {old} is mounted"))
}

/// The mount point in a line of mountinfo if its file system is cgroup v1 (proc_pid_mountinfo(5)).
fn version_1_mount(line: &str) -> Option<&str> {
    let (left, right) = line.split_once(" - ")?;
    (right.split(' ').next()? == "cgroup").then(|| left.split(' ').nth(4))?
}

fn bpf_lsm(host: &Host<'_>) -> Option<Failure> {
    let remedy = "add bpf to the list of LSMs on the kernel's command line, e.g. \
                  lsm=landlock,lockdown,yama,integrity,apparmor,bpf (keep what is listed now), and boot a \
                  kernel with CONFIG_BPF_LSM=y";
    match fs::read_to_string(&host.lsm) {
        Ok(list) if list.trim().split(',').any(|name| name == "bpf") => None,
        Ok(list) => Some(Failure::new(
            Exit::Kernel,
            format!("BPF LSM is off: {} lists only {}", host.lsm.display(), list.trim()),
            remedy,
        )),
        Err(e) => Some(Failure::new(
            Exit::Kernel,
            format!("cannot tell whether BPF LSM is on: {}: {e}", host.lsm.display()),
            "mount securityfs: mount -t securityfs securityfs /sys/kernel/security",
        )),
    }
}

fn lockdown(host: &Host<'_>) -> Option<Failure> {
    // A kernel without the lockdown LSM has no such file.
    let text = fs::read_to_string(&host.lockdown).ok()?;
    text.contains("[confidentiality]").then(|| {
        Failure::new(
            Exit::Kernel,
            "the kernel is locked down for confidentiality, which forbids BPF programs to read its memory",
            "boot with lockdown=integrity",
        )
    })
}

fn btf(host: &Host<'_>) -> Option<Failure> {
    fs::File::open(&host.btf).err().map(|e| {
        Failure::new(
            Exit::Kernel,
            format!("the kernel does not describe its types (BTF): {}: {e}", host.btf.display()),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        )
    })
}

fn bpffs(host: &Host<'_>) -> Option<Failure> {
    let at = host.bpffs.display();
    let remedy = format!("mount it: mount -t bpf bpf {at}");
    match (host.magic)(&host.bpffs) {
        Ok(BPFFS) => None,
        Ok(_) => Some(Failure::new(Exit::Kernel, format!("{at} is not a BPF file system"), remedy)),
        Err(e) => Some(Failure::new(Exit::Kernel, format!("cannot look at {at}: {e}"), remedy)),
    }
}

fn state(host: &Host<'_>) -> Option<Failure> {
    let probe = host.state.join(".probe");
    let attempt = fs::create_dir_all(&host.state)
        .and_then(|()| fs::File::create(&probe))
        .and_then(|mut file| io::Write::write_all(&mut file, &[b'x'; 4096]).and_then(|()| file.sync_all()));
    let removed = fs::remove_file(&probe);
    let error = attempt.and(removed).err()?;
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull => "free some space on that file system",
        io::ErrorKind::ReadOnlyFilesystem => "mount that file system read-write, or set paths.state",
        _ => "make the directory writable for root, or set paths.state",
    };
    Some(Failure::new(
        Exit::CannotWrite,
        format!("cannot write to the state directory {}: {error}", host.state.display()),
        remedy,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODERN: &str = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
        30 24 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";

    fn both(path: &Path) -> io::Result<i64> {
        match path.to_str() {
            Some("/cgroups") => Ok(CGROUP2),
            Some("/bpf") => Ok(BPFFS),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn good(dir: &Path) -> Host<'static> {
        let file = |name: &str, text: &str| {
            fs::write(dir.join(name), text).expect("test file");
            dir.join(name)
        };
        Host {
            uid: 0,
            release: "6.12.1".to_owned(),
            cgroups: "/cgroups".into(),
            mountinfo: file("mountinfo", MODERN),
            lsm: file("lsm", "lockdown,capability,landlock,bpf\n"),
            lockdown: file("lockdown", "none [integrity] confidentiality\n"),
            btf: file("btf", ""),
            bpffs: "/bpf".into(),
            state: dir.join("state"),
            magic: &both,
        }
    }

    fn only(host: &Host<'_>) -> Failure {
        let mut found = problems(host);
        assert_eq!(found.len(), 1, "{found:?}");
        let failure = found.remove(0);
        assert!(!failure.remedy.is_empty(), "an error must say what to do");
        failure
    }

    #[test]
    fn a_good_host_has_no_problem() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(problems(&good(dir.path())), []);
    }

    #[test]
    fn without_root_nothing_else_is_said() {
        let dir = tempfile::tempdir().expect("dir");
        let host = Host { uid: 1000, release: "3.0".to_owned(), ..good(dir.path()) };
        assert_eq!(only(&host).exit, Exit::Permission);
    }

    #[test]
    fn kernels_that_can_skip_programs_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        for release in ["5.15.127", "6.1.53", "6.1.0-9-amd64", "junk", ""] {
            let host = Host { release: release.to_owned(), ..good(dir.path()) };
            assert_eq!(only(&host).exit, Exit::Kernel, "{release}");
        }
        for release in ["6.1.54", "6.1.192-cloud", "6.12.0", "7.3.4+deb14", "10.0"] {
            let host = Host { release: release.to_owned(), ..good(dir.path()) };
            assert_eq!(problems(&host), [], "{release}");
        }
    }

    #[test]
    fn the_patch_level_is_read_from_the_build_where_the_release_hides_it() {
        let build = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-05-01)";
        assert_eq!(full_release("6.1.0-44-cloud-amd64", build), "6.1.192");
        assert_eq!(full_release("6.1.60", build), "6.1.60");
        assert_eq!(full_release("6.1.0-44", "#1 SMP"), "6.1.0-44");
    }

    #[test]
    fn hybrid_and_old_cgroup_hosts_are_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let host = good(dir.path());
        let hybrid = format!("{MODERN}31 24 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
        fs::write(&host.mountinfo, hybrid).expect("write");
        let failure = only(&host);
        assert_eq!(failure.exit, Exit::CgroupMode);
        assert!(failure.message.contains("/sys/fs/cgroup/pids"));

        let old =
            Host { magic: &|p| if p == Path::new("/bpf") { Ok(BPFFS) } else { Ok(1) }, ..good(dir.path()) };
        assert_eq!(only(&old).exit, Exit::CgroupMode);
    }

    #[test]
    fn a_kernel_without_bpf_among_its_lsms_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let host = good(dir.path());
        fs::write(&host.lsm, "landlock,ebpf").expect("write");
        let failure = only(&host);
        assert!(failure.exit == Exit::Kernel && failure.message.contains("landlock,ebpf"));
        fs::remove_file(&host.lsm).expect("remove");
        assert!(only(&host).remedy.contains("securityfs"));
    }

    #[test]
    fn confidentiality_lockdown_is_refused_and_no_lockdown_is_fine() {
        let dir = tempfile::tempdir().expect("dir");
        let host = good(dir.path());
        fs::write(&host.lockdown, "none integrity [confidentiality]").expect("write");
        assert_eq!(only(&host).exit, Exit::Kernel);
        fs::remove_file(&host.lockdown).expect("remove");
        assert_eq!(problems(&host), []);
    }

    #[test]
    fn missing_btf_and_bpffs_are_each_said() {
        let dir = tempfile::tempdir().expect("dir");
        let host = Host { btf: "/nonexistent".into(), bpffs: "/elsewhere".into(), ..good(dir.path()) };
        let found = problems(&host);
        assert_eq!(found.iter().map(|f| f.exit).collect::<Vec<_>>(), [Exit::Kernel, Exit::Kernel]);
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join("file"), "").expect("write");
        let host = Host { state: dir.path().join("file"), ..good(dir.path()) };
        assert_eq!(only(&host).exit, Exit::CannotWrite);
        if Path::new("/dev/full").exists() {
            let full = dir.path().join("full");
            fs::create_dir(&full).expect("dir");
            std::os::unix::fs::symlink("/dev/full", full.join(".probe")).expect("link");
            let failure = only(&Host { state: full, ..good(dir.path()) });
            assert!(failure.remedy.contains("free some space"), "{failure:?}");
        }
    }
}
