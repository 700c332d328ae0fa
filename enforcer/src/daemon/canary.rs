//! The proof that enforcement is real: a process below a root that no policy claims must be refused.

use crate::{
    cli::exit::{Exit, Failure},
    launch::cgroup,
    settings::Settings,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

/// Name of the canary's cgroup below the root.
pub const CGROUP: &str = "enforcer-canary";
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
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// A process without rights could open a file: nothing is enforced.
    #[error("a process without any rights could open a file: the kernel does not enforce")]
    NotRefused,
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
            Silence::CannotTell(_) => "see the daemon's log: journalctl -u enforcer",
        };
        Failure::new(Exit::Kernel, silence.to_string(), remedy)
    }
}

/// The canary's cgroup and file.
#[derive(Clone, Debug)]
pub struct Canary {
    directory: PathBuf,
    file: PathBuf,
    program: PathBuf,
}

impl Canary {
    /// Makes what the canary needs. `program` is this program.
    pub fn prepare(settings: &Settings, program: &Path) -> io::Result<Self> {
        let root = settings.paths.cgroups.join(settings.home_root().trim_start_matches('/'));
        let directory = root.join(CGROUP);
        let file = settings.paths.state.join("canary");
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&file)?;
        let canary = Self { directory, file, program: program.to_owned() };
        canary.cgroup()?;
        Ok(canary)
    }

    /// Makes the cgroup if it is not there (a stopped slice takes it along) and says its id.
    pub fn cgroup(&self) -> io::Result<u64> {
        fs::create_dir_all(&self.directory)?;
        Ok(cgroup::SessionCgroup::at(self.directory.clone())?.id())
    }

    /// Tries it.
    pub async fn prove(&self) -> Result<(), Silence> {
        let tell = |e: io::Error| Silence::CannotTell(e.to_string());
        self.cgroup().map_err(tell)?;
        let mut child = tokio::process::Command::new(&self.program)
            .arg("canary")
            .arg(self.directory.join("cgroup.procs"))
            .arg(&self.file)
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

fn judge(code: Option<i32>) -> Result<(), Silence> {
    let is = |song: Song| code == Some(song as i32);
    if is(Song::Refused) {
        return Ok(());
    }
    if is(Song::NotRefused) {
        return Err(Silence::NotRefused);
    }
    Err(Silence::CannotTell(match code {
        _ if is(Song::NoControl) => "the canary could not open its file outside either".to_owned(),
        _ if is(Song::CannotEnter) => "the canary could not enter its cgroup".to_owned(),
        _ if is(Song::OtherError) => "the canary failed in another way than by EPERM".to_owned(),
        Some(code) => format!("the canary ended with status {code}"),
        None => "the canary was killed".to_owned(),
    }))
}

/// What the canary does: open the file outside, enter the cgroup, try again.
pub fn sing(procs: &Path, file: &Path) -> ExitCode {
    let open = || File::open(file).map(drop);
    let song = if open().is_err() {
        Song::NoControl
    } else if OpenOptions::new().write(true).open(procs).and_then(|mut p| p.write_all(b"0")).is_err() {
        Song::CannotEnter
    } else {
        match open() {
            Ok(()) => Song::NotRefused,
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => Song::Refused,
            Err(_) => Song::OtherError,
        }
    };
    ExitCode::from(song as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_proves_anything() {
        assert_eq!(judge(Some(0)), Ok(()));
        assert_eq!(judge(Some(10)), Err(Silence::NotRefused));
        for code in [Some(1), Some(11), Some(12), Some(13), Some(101), None] {
            assert!(matches!(judge(code), Err(Silence::CannotTell(_))), "{code:?}");
        }
    }

    #[test]
    fn a_canary_that_is_not_refused_says_so() {
        let dir = tempfile::tempdir().expect("dir");
        let (procs, file) = (dir.path().join("cgroup.procs"), dir.path().join("file"));
        fs::write(&procs, "").expect("write");
        let sung = |p: &Path, f: &Path| format!("{:?}", sing(p, f));
        assert_eq!(sung(&procs, &file), format!("{:?}", ExitCode::from(Song::NoControl as u8)));
        fs::write(&file, "").expect("write");
        assert_eq!(sung(&procs, &file), format!("{:?}", ExitCode::from(Song::NotRefused as u8)));
        let nowhere = dir.path().join("nowhere/cgroup.procs");
        assert_eq!(sung(&nowhere, &file), format!("{:?}", ExitCode::from(Song::CannotEnter as u8)));
    }
}
