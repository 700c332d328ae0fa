//! The canary: processes that try what must be refused, and what must not be, and say how it went.
//!
//! One enters a cgroup below the root that nobody claims. Another enters a session of the daemon's own agent,
//! whose policy allows one file and denies another. `proof` starts them and looks for their record.

use crate::{
    cli::exit::{Exit, Failure},
    launch::cgroup,
    settings::Settings,
};
use nix::unistd::{Uid, setresuid};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

/// Name of the cgroup below the root that stays nobody's.
pub const CGROUP: &str = "enforcer-canary";
/// Name of the cgroup below the root that becomes a session of [`AGENT`].
const MEMBER: &str = "enforcer-canary-session";
/// The daemon's own agent.
pub const AGENT: &str = "enforcer-canary";
/// Real user of the process in the session: an executor that root runs would be launching, not governed. Its
/// effective user stays root, so that nothing but the policy is in its way.
const NOT_ROOT: u32 = 65534;
/// After which time a canary has not answered. Emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the canary says with its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Song {
    Refused = 0,
    NotRefused = 10,
    NoControl = 11,
    CannotEnter = 12,
    OtherError = 13,
    NotAllowed = 14,
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// A process without rights could open a file: nothing is enforced.
    #[error("a process without any rights could open a file: the kernel does not enforce")]
    NotRefused,
    /// A process was refused what its policy allows.
    #[error("a process was refused what its policy allows: the kernel does not enforce what policies say")]
    NotAllowed,
    /// It was refused, and the audit log would not know.
    #[error("the record of a refusal did not arrive: what agents try could not be recorded")]
    NoRecord,
    /// It could not be tried.
    #[error("cannot tell whether the kernel enforces: {0}")]
    CannotTell(String),
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        let remedy = match silence {
            Silence::NotRefused => {
                "check that bpf is among the LSMs (/sys/kernel/security/lsm), and that nothing has detached \
                 the programs (bpftool link)"
            }
            Silence::NotAllowed => {
                "look for the refusals of agent enforcer-canary in the audit log, and whether another security \
                 module refuses it"
            }
            Silence::NoRecord => {
                "look whether another program reads the rings pinned in /sys/fs/bpf/enforcer/maps, and at \
                 journalctl -u enforcer"
            }
            Silence::CannotTell(_) => "see the daemon's log: journalctl -u enforcer",
        };
        Failure::new(Exit::Kernel, silence.to_string(), remedy)
    }
}

/// The canary's cgroups and files.
#[derive(Clone, Debug)]
pub struct Canary {
    directory: PathBuf,
    member: PathBuf,
    refused: PathBuf,
    allowed: PathBuf,
    program: PathBuf,
}

impl Canary {
    /// Makes what the canary needs. `program` is this program.
    pub fn prepare(settings: &Settings, program: &Path) -> io::Result<Self> {
        let root = settings.paths.cgroups.join(settings.home_root().trim_start_matches('/'));
        // Policies name objects by their resolved paths.
        let state = settings.paths.state.canonicalize()?;
        let (refused, allowed) = (state.join("canary"), state.join("canary-allowed"));
        for file in [&refused, &allowed] {
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(file)?;
        }
        let (directory, member) = (root.join(CGROUP), root.join(MEMBER));
        let canary = Self { directory, member, refused, allowed, program: program.to_owned() };
        canary.cgroup()?;
        canary.member_cgroup()?;
        Ok(canary)
    }

    /// Makes the cgroup if it is not there (a stopped slice takes it along) and says its id.
    pub fn cgroup(&self) -> io::Result<u64> {
        made(&self.directory)
    }

    /// As [`Self::cgroup`], for the one that becomes a session.
    pub fn member_cgroup(&self) -> io::Result<u64> {
        made(&self.member)
    }

    /// The file that its policy denies.
    pub fn refused(&self) -> &Path {
        &self.refused
    }

    /// The file that its policy allows.
    pub fn allowed(&self) -> &Path {
        &self.allowed
    }

    /// Tries it as nobody's process.
    pub async fn stranger(&self) -> Result<(), Silence> {
        self.cgroup().map_err(tell)?;
        self.sing(&self.directory, None).await
    }

    /// Tries it in the session that the second cgroup is.
    pub async fn member(&self) -> Result<(), Silence> {
        self.sing(&self.member, Some(&self.allowed)).await
    }

    async fn sing(&self, cgroup: &Path, allowed: Option<&Path>) -> Result<(), Silence> {
        let mut child = tokio::process::Command::new(&self.program)
            .arg("canary")
            .arg(cgroup.join("cgroup.procs"))
            .arg(&self.refused)
            .args(allowed)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(tell)?;
        let status = tokio::time::timeout(PATIENCE, child.wait())
            .await
            .map_err(|_| Silence::CannotTell(format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(tell)?;
        judge(status.code())
    }
}

fn made(cgroup: &Path) -> io::Result<u64> {
    fs::create_dir_all(cgroup)?;
    Ok(cgroup::SessionCgroup::at(cgroup.to_owned())?.id())
}

fn tell(error: io::Error) -> Silence {
    Silence::CannotTell(error.to_string())
}

fn judge(code: Option<i32>) -> Result<(), Silence> {
    let is = |song: Song| code == Some(song as i32);
    if is(Song::Refused) {
        return Ok(());
    }
    if is(Song::NotRefused) {
        return Err(Silence::NotRefused);
    }
    if is(Song::NotAllowed) {
        return Err(Silence::NotAllowed);
    }
    Err(Silence::CannotTell(match code {
        _ if is(Song::NoControl) => "the canary could not open its files outside either".to_owned(),
        _ if is(Song::CannotEnter) => "the canary could not enter its cgroup".to_owned(),
        _ if is(Song::OtherError) => "the canary failed in another way than by EPERM".to_owned(),
        Some(code) => format!("the canary ended with status {code}"),
        None => "the canary was killed".to_owned(),
    }))
}

/// What the canary does: open the files outside, enter the cgroup, try again.
pub fn sing(procs: &Path, refused: &Path, allowed: Option<&Path>) -> ExitCode {
    let open = |file: &Path| File::open(file).map(drop);
    let outside = [Some(refused), allowed].into_iter().flatten().try_for_each(open);
    let song = if outside.is_err() {
        Song::NoControl
    } else if enter(procs, allowed.is_some()).is_err() {
        Song::CannotEnter
    } else if allowed.map(open).is_some_and(|tried| tried.is_err()) {
        Song::NotAllowed
    } else {
        match open(refused) {
            Ok(()) => Song::NotRefused,
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Song::Refused,
            Err(_) => Song::OtherError,
        }
    };
    ExitCode::from(song as u8)
}

fn enter(procs: &Path, session: bool) -> io::Result<()> {
    let mut procs = OpenOptions::new().write(true).open(procs)?;
    if session {
        let (root, other) = (Uid::from_raw(0), Uid::from_raw(NOT_ROOT));
        setresuid(other, root, root)?;
    }
    procs.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_proves_anything() {
        assert_eq!(judge(Some(0)), Ok(()));
        assert_eq!(judge(Some(10)), Err(Silence::NotRefused));
        assert_eq!(judge(Some(14)), Err(Silence::NotAllowed));
        for code in [Some(1), Some(11), Some(12), Some(13), Some(101), None] {
            assert!(matches!(judge(code), Err(Silence::CannotTell(_))), "{code:?}");
        }
    }

    #[test]
    fn a_canary_that_is_not_refused_says_so() {
        let dir = tempfile::tempdir().expect("dir");
        let (procs, file) = (dir.path().join("cgroup.procs"), dir.path().join("file"));
        fs::write(&procs, "").expect("write");
        let sung = |p: &Path, f: &Path| format!("{:?}", sing(p, f, None));
        assert_eq!(sung(&procs, &file), format!("{:?}", ExitCode::from(Song::NoControl as u8)));
        fs::write(&file, "").expect("write");
        assert_eq!(sung(&procs, &file), format!("{:?}", ExitCode::from(Song::NotRefused as u8)));
        let nowhere = dir.path().join("nowhere/cgroup.procs");
        assert_eq!(sung(&nowhere, &file), format!("{:?}", ExitCode::from(Song::CannotEnter as u8)));
    }
}
