//! The launch helper: from a fresh process of the daemon to the agent's first instruction.
//!
//! It starts as an outsider, makes itself clean, enters the session's cgroup (where the policy is already
//! in force) or lets systemd move it there, puts the layers around itself, becomes the session's user and executes the
//! command. One of the three files with `unsafe`: system calls that nix does not wrap.

use super::{
    layers::apply,
    spec::{Spec, Stage, Trouble},
};
use crate::control::{fds, message::Bytes};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    sched::{CloneFlags, setns},
    sys::{
        resource::{Resource, setrlimit},
        signal::SigSet,
        stat::{Mode, fstat, umask},
    },
    unistd::{self, Gid, Uid},
};
use std::{
    convert::Infallible,
    ffi::{CString, OsStr},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Descriptors that come with the order: standard input, output, error, and the order itself.
const DESCRIPTORS: usize = 4;

/// What the helper says when it may be moved into the session.
pub(super) const READY: &[u8] = b"r";

/// Runs the helper. The order comes as a message on standard input; standard output takes the report of a
/// failure and is closed by success.
pub fn run() -> ExitCode {
    let report = match fcntl(io::stdout(), FcntlArg::F_DUPFD_CLOEXEC(10)) {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
        Ok(fd) => File::from(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(_) => return ExitCode::FAILURE,
    };
    let Err(trouble) = launch();
    if let Ok(text) = serde_json::to_vec(&trouble) {
        // Nobody is left to hear that this failed; the daemon sees an end without a report.
        let _ = (&report).write_all(&text);
    }
    ExitCode::FAILURE
}

fn launch() -> Result<Infallible, Trouble> {
    let (spec, stdio) = receive().map_err(at(Stage::Prepare, "the order"))?;
    let way = Way::into_session(&spec)?;
    take_over(&stdio).map_err(at(Stage::Prepare, "standard descriptors"))?;
    drop(stdio);
    close_on_exec().map_err(at(Stage::Prepare, "inherited descriptors"))?;
    enter_first_mount_namespace().map_err(at(Stage::Prepare, "the mount namespace of process 1"))?;
    unistd::setsid().map_err(at(Stage::Prepare, "setsid"))?;
    if spec.terminal {
        take_terminal().map_err(at(Stage::Terminal, "controlling terminal"))?;
    }
    own_stdio(&spec);
    new_keyring().map_err(at(Stage::Prepare, "session keyring"))?;
    reset_signals().map_err(at(Stage::Prepare, "signals"))?;
    umask(Mode::from_bits_truncate(0o022));
    reset_limits().map_err(at(Stage::Prepare, "resource limits"))?;
    let program = find(&spec).ok_or_else(|| Trouble {
        stage: Stage::Find,
        what: spec.command.first().cloned().unwrap_or(Bytes(Vec::new())),
        errno: libc::ENOENT,
    })?;
    let call = Call::new(&program, &spec).map_err(at(Stage::Execute, &program))?;
    let layers = apply::prepare(&spec.layers).map_err(at(Stage::Layers, "Landlock, seccomp"))?;

    // From here on the policy decides.
    way.take().map_err(at(Stage::Enter, &way.name(&spec)))?;
    // As root still, since a session without no_new_privs gets them too.
    layers.put_on().map_err(at(Stage::Layers, "Landlock, seccomp"))?;
    become_user(&spec).map_err(at(Stage::User, "user and groups"))?;
    enter_directory(&spec).map_err(at(Stage::Directory, &spec.directory))?;
    call.execute().map_err(at(Stage::Execute, &program))
}

/// Names the place where an error happened.
fn at<E: Into<io::Error>>(stage: Stage, what: impl ToBytes) -> impl FnOnce(E) -> Trouble {
    move |error| {
        let errno = error.into().raw_os_error().unwrap_or(libc::EINVAL);
        Trouble { stage, what: what.to_bytes(), errno }
    }
}

trait ToBytes {
    fn to_bytes(&self) -> Bytes;
}
impl ToBytes for &str {
    fn to_bytes(&self) -> Bytes {
        Bytes::from(*self)
    }
}
impl ToBytes for &Bytes {
    fn to_bytes(&self) -> Bytes {
        (*self).clone()
    }
}
impl ToBytes for &PathBuf {
    fn to_bytes(&self) -> Bytes {
        Bytes(self.as_os_str().as_bytes().to_vec())
    }
}

fn receive() -> io::Result<(Spec, [OwnedFd; 3])> {
    let received = fds::receive(io::stdin().as_fd(), &mut [0; 1])?;
    let fds: [OwnedFd; DESCRIPTORS] = received.fds.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let [input, output, error, order] = fds;
    let mut order = File::from(order);
    order.rewind()?;
    let mut text = Vec::new();
    order.read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, [input, output, error]))
}

fn take_over(stdio: &[OwnedFd; 3]) -> nix::Result<()> {
    let [input, output, error] = stdio;
    unistd::dup2_stdin(input)?;
    unistd::dup2_stdout(output)?;
    unistd::dup2_stderr(error)
}

/// Marks every descriptor but the standard ones, so that none survives the exec.
fn close_on_exec() -> nix::Result<()> {
    // SAFETY: close_range(2) with CLOSE_RANGE_CLOEXEC touches no memory and closes nothing.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int)
    };
    Errno::result(result).map(drop)
}

/// The way into the session's cgroup. Its descriptor does not survive the exec.
enum Way {
    /// `cgroup.procs`.
    Procs(File),
    /// systemd moves this process while it waits on the daemon's socket.
    Moved(UnixStream),
}

impl Way {
    /// Before the standard descriptors are the session's: standard input still is the daemon's socket.
    fn into_session(spec: &Spec) -> Result<Self, Trouble> {
        let Some(procs) = &spec.procs else {
            let socket = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
            return socket.map(Self::Moved).map_err(at(Stage::Enter, "the daemon's socket"));
        };
        let path = Path::new(OsStr::from_bytes(&procs.0));
        let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let opened = OpenOptions::new().write(true).custom_flags(flags).open(path);
        opened.map(Self::Procs).map_err(at(Stage::Enter, procs))
    }

    /// Returns inside the session. Waiting for the move meets no hook: between the last byte that is sent outside and
    /// the first that is read inside there is nothing but the wait.
    fn take(&self) -> io::Result<()> {
        match self {
            Self::Procs(procs) => (&*procs).write_all(b"0"),
            Self::Moved(socket) => {
                (&*socket).write_all(READY)?;
                match (&*socket).read(&mut [0; 1])? {
                    // The daemon has given up, or has gone: nobody says that this cgroup has a policy.
                    0 => Err(Errno::ECANCELED.into()),
                    _ => Ok(()),
                }
            }
        }
    }

    fn name(&self, spec: &Spec) -> Bytes {
        spec.procs.clone().unwrap_or_else(|| Bytes::from("of systemd's scope"))
    }
}

/// The daemon's unit may give it mounts of its own; a session lives with the host's. Names are read in the
/// namespace that the session is armed in, so staying in the daemon's own, where process 1 is somebody
/// else's (a container), weakens nothing.
fn enter_first_mount_namespace() -> io::Result<()> {
    let identity = |path: &str| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    let first = match identity("/proc/1/ns/mnt") {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        first => first?,
    };
    if identity("/proc/self/ns/mnt")? != first {
        setns(File::open("/proc/1/ns/mnt")?, CloneFlags::CLONE_NEWNS)?;
    }
    Ok(())
}

fn take_terminal() -> nix::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer (ioctl_tty(2)). With 0 it fails for a terminal that is another
    // session's, so a caller cannot hand in the one that it sits at.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
}

/// The session's user must be able to open its own standard descriptors again, as `/dev/stderr`: the pipes
/// and the terminal that were made for it. The null device is everybody's.
fn own_stdio(spec: &Spec) {
    for fd in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        let made_for_it = fstat(fd).is_ok_and(|stat| match stat.st_mode & libc::S_IFMT {
            libc::S_IFIFO => true,
            // UNIX98_PTY_SLAVE_MAJOR and the seven after it, include/uapi/linux/major.h
            libc::S_IFCHR => spec.terminal && (136..=143).contains(&libc::major(stat.st_rdev)),
            _ => false,
        });
        if made_for_it {
            // One that cannot be given away still works as it is.
            let _ = unistd::fchown(fd, Some(Uid::from_raw(spec.uid)), None);
        }
    }
}

fn new_keyring() -> nix::Result<()> {
    /// include/uapi/linux/keyctl.h
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed (keyctl(2)).
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    match Errno::result(result) {
        // A kernel without keys has none to leak.
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(e) => Err(e),
    }
}

fn reset_signals() -> nix::Result<()> {
    /// SIG_DFL, no flags, no restorer, empty mask: `struct sigaction` of the kernel, all zero.
    const DEFAULT: [u64; 4] = [0; 4];
    const SET_BYTES: usize = 8;
    for number in 1..=64 {
        // By the system call itself, because the C library keeps two signals to itself, which may be ignored
        // nevertheless.
        // SAFETY: the kernel reads one `struct sigaction` (rt_sigaction(2)), at most 32 bytes on 64-bit hosts,
        // from memory that is valid for it. The default action runs no code of ours. Signals that cannot be
        // set (SIGKILL, SIGSTOP) answer with an error, which changes nothing.
        unsafe {
            let none = std::ptr::null_mut::<libc::c_void>();
            libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), none, SET_BYTES);
        }
    }
    SigSet::empty().thread_set_mask()
}

fn reset_limits() -> io::Result<()> {
    const MIB: u64 = 1 << 20;
    let limits = [
        (Resource::RLIMIT_NOFILE, 1024, 524_288),
        (Resource::RLIMIT_MEMLOCK, 8 * MIB, 8 * MIB),
        (Resource::RLIMIT_STACK, 8 * MIB, libc::RLIM_INFINITY),
    ];
    for (resource, soft, hard) in limits {
        // The hard limit of whoever runs the daemon may be lower, and stays.
        let (_, most) = nix::sys::resource::getrlimit(resource)?;
        setrlimit(resource, soft.min(most), hard.min(most))?;
    }
    // A crash can make the kernel run a program, as root and outside of the session, with what the crashed one had in
    // its memory. One byte, and not none, means that it does not (`do_coredump()`, fs/coredump.c).
    setrlimit(Resource::RLIMIT_CORE, 1, 1)?;
    // The daemon is the last to be killed when memory runs out; a session is not.
    match fs::write("/proc/self/oom_score_adj", "0") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The program that a command names: with a slash as it stands, else the first on the session's PATH.
fn find(spec: &Spec) -> Option<PathBuf> {
    let command = Path::new(OsStr::from_bytes(&spec.command.first()?.0));
    if command.as_os_str().as_bytes().contains(&b'/') {
        return Some(command.to_owned());
    }
    if command.as_os_str().is_empty() {
        return None;
    }
    spec.path
        .split(':')
        .filter(|dir| dir.starts_with('/'))
        .map(|dir| Path::new(dir).join(command))
        .find(|path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

fn become_user(spec: &Spec) -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    let groups: Vec<Gid> = spec.groups.iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&groups)?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)
}

fn enter_directory(spec: &Spec) -> nix::Result<()> {
    match unistd::chdir(Path::new(OsStr::from_bytes(&spec.directory.0))) {
        Err(_) if spec.directory_is_home => unistd::chdir("/"),
        result => result,
    }
}

/// The arguments of execve, ready before the policy decides.
struct Call {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Call {
    fn new(program: &Path, spec: &Spec) -> io::Result<Self> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
        let variable = |(name, value): &(Bytes, Bytes)| text(&[&name.0[..], b"=", &value.0[..]].concat());
        Ok(Self {
            program: text(program.as_os_str().as_bytes())?,
            arguments: spec.command.iter().map(|argument| text(&argument.0)).collect::<Result<_, _>>()?,
            environment: spec.environment.iter().map(variable).collect::<Result<_, _>>()?,
        })
    }

    fn execute(&self) -> nix::Result<Infallible> {
        unistd::execve(&self.program, &self.arguments, &self.environment)
    }
}
