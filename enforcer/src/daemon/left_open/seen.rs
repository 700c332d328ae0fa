//! What processes hold open, as `/proc` shows it to the daemon: nothing of it is said by the processes themselves.

use super::{super::progress, sockets::Sockets};
use enforcer_common::access::{file, net};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    io::{self, BufRead as _, BufReader},
    net::IpAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Descriptors and mappings that are looked at; what has more is not known whole, and that is said.
const MOST: usize = 65_536;
/// How long a look at all sessions of an agent may take: names can be long, and there are as many mappings as processes
/// like. What was not looked at by then is not known, and that is said.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// How something is held open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// A file's descriptor.
    Descriptor,
    /// Memory that is a file's.
    Mapping,
    /// Memory that is a file's and can be executed.
    Code,
    /// The program that runs.
    Program,
    /// A socket that is connected, or that others can reach.
    Socket,
}

impl How {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Descriptor => "descriptor",
            Self::Mapping => "mapping",
            Self::Code => "code",
            Self::Program => "program",
            Self::Socket => "socket",
        }
    }
}

/// What is held open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Object {
    /// A file by the name that it was opened with, as far as that still leads to it.
    File(Vec<u8>),
    /// The other end, or the own one where others can reach it.
    Address { ip: IpAddr, port: u16, protocol: u8 },
}

/// One thing that is held open, and what can be done through it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Open {
    pub(super) how: How,
    pub(super) object: Object,
    /// Operations of `access::file` or `access::net`.
    pub(super) want: u16,
}

/// What some processes hold open.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// With the process.
    pub(super) open: BTreeSet<(Open, u32)>,
    /// Why there may be more.
    pub(super) problems: Vec<String>,
    looked_at: usize,
    /// When the look must be over.
    until: Option<Instant>,
}

impl Seen {
    /// Looks at processes, until then. One that has ended holds nothing.
    pub(super) fn of(proc: &Path, processes: &[u32], until: Instant) -> Self {
        let (mut seen, mut sockets) = (Self::default(), Sockets::default());
        seen.until = Some(until);
        for process in processes {
            progress::goes_on();
            if seen.is_late() {
                break;
            }
            let at = proc.join(process.to_string());
            if let Err(error) = seen.process(&at, *process, &mut sockets)
                && !is_gone(&error)
            {
                seen.problems.push(format!("process {process}: {error}"));
            }
        }
        if seen.looked_at >= MOST {
            seen.problems.push(format!("only {MOST} descriptors and mappings were looked at"));
        }
        if seen.is_late() {
            seen.problems.push(format!("not everything could be looked at in {} s", LOOK.as_secs()));
        }
        seen
    }

    fn process(&mut self, at: &Path, process: u32, sockets: &mut Sockets) -> io::Result<()> {
        let mut mapped = false;
        // Threads can have tables of descriptors of their own, and the first of them may have ended.
        for task in fs::read_dir(at.join("task"))? {
            let task = task?.path();
            let whole = self.descriptors(&task, process, sockets).and_then(|()| {
                if !mapped {
                    mapped = self.mappings(&task, process)?;
                }
                Ok(())
            });
            match whole {
                Err(error) if !is_gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn descriptors(&mut self, task: &Path, process: u32, sockets: &mut Sockets) -> io::Result<()> {
        for entry in fs::read_dir(task.join("fd"))? {
            let entry = entry?;
            if !self.may_look() {
                return Ok(());
            }
            let (link, path) = match (fs::read_link(entry.path()), entry.path()) {
                (Ok(link), path) => (link.into_os_string().into_vec(), path),
                // Closed meanwhile.
                (Err(error), _) if is_gone(&error) => continue,
                (Err(error), _) => return Err(error),
            };
            if let Some(inode) = number(&link, b"socket:[") {
                for (object, want) in sockets.of(task, inode)? {
                    self.open.insert((Open { how: How::Socket, object, want }, process));
                }
            } else if link.starts_with(b"/") {
                let flags = match fs::read_to_string(task.join("fdinfo").join(entry.file_name())) {
                    Ok(text) => flags(&text).ok_or_else(|| io::Error::other("fdinfo without flags"))?,
                    Err(error) if is_gone(&error) => continue,
                    Err(error) => return Err(error),
                };
                self.file(&path, link, flags, process)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, at: &Path, link: Vec<u8>, flags: i32, process: u32) -> io::Result<()> {
        // What such a descriptor is used for is asked about then.
        if flags & libc::O_PATH != 0 {
            return Ok(());
        }
        let stat = match statx(CWD, at, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error.into()) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let kind = u32::from(stat.stx_mode) & libc::S_IFMT;
        let Some(path) = name(link, stat.stx_nlink == 0) else { return Ok(()) };
        let read = if kind == libc::S_IFDIR { file::LIST } else { file::READ };
        let want = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => read,
            libc::O_WRONLY => file::WRITE,
            _ => read | file::WRITE,
        };
        self.open.insert((Open { how: How::Descriptor, object: Object::File(path), want }, process));
        Ok(())
    }

    /// Says whether this task shows its process's memory: one that has ended does not.
    fn mappings(&mut self, task: &Path, process: u32) -> io::Result<bool> {
        // Line by line: all of them can be hundreds of megabytes.
        let mut lines = BufReader::new(fs::File::open(task.join("maps"))?);
        let (mut line, mut any) = (Vec::new(), false);
        while lines.read_until(b'\n', &mut line)? != 0 {
            any = true;
            if !self.may_look() {
                return Ok(true);
            }
            let found = mapping(line.strip_suffix(b"\n").unwrap_or(&line));
            line.clear();
            let Some((path, wants)) = found else { continue };
            for (how, want) in wants {
                self.open.insert((Open { how, object: Object::File(path.clone()), want }, process));
            }
        }
        match fs::read_link(task.join("exe")) {
            Ok(link) => {
                if let Some(path) = name(link.into_os_string().into_vec(), false) {
                    let program = Open { how: How::Program, object: Object::File(path), want: file::EXEC };
                    self.open.insert((program, process));
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(any)
    }

    fn may_look(&mut self) -> bool {
        self.looked_at += 1;
        if self.looked_at.is_multiple_of(256) {
            progress::goes_on();
        }
        self.looked_at < MOST && !self.is_late()
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// The processes in cgroups and below.
pub(super) fn processes(cgroups: &[PathBuf]) -> io::Result<Vec<u32>> {
    let mut all = BTreeSet::new();
    for cgroup in cgroups {
        for (at, _) in crate::launch::cgroup::cgroups_below(cgroup)? {
            let text = match fs::read_to_string(at.join("cgroup.procs")) {
                Ok(text) => text,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            all.extend(text.lines().filter_map(|line| line.trim().parse::<u32>().ok()));
        }
    }
    Ok(all.into_iter().collect())
}

/// A process, thread, descriptor or cgroup that went away meanwhile.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV | libc::EBADF))
}

/// `socket:[123]`
fn number(link: &[u8], prefix: &[u8]) -> Option<u64> {
    let text = link.strip_prefix(prefix)?.strip_suffix(b"]")?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The open flags, which `/proc/PID/fdinfo` gives in octal.
fn flags(fdinfo: &str) -> Option<i32> {
    let text = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(text.trim(), 8).ok()
}

/// The name in a link of `/proc`; none for memory that only looks like a file.
fn name(mut link: Vec<u8>, removed: bool) -> Option<Vec<u8>> {
    let nameless: [&[u8]; 5] = [b"/memfd:", b"/SYSV", b"/dev/zero (deleted)", b"/[aio]", b"/anon_hugepage"];
    if nameless.iter().any(|start| link.starts_with(start)) {
        return None;
    }
    if removed && let Some(kept) = link.strip_suffix(b" (deleted)") {
        link.truncate(kept.len());
    }
    Some(link)
}

/// A file, and what a mapping of it lets its process do.
type Mapped = (Vec<u8>, Vec<(How, u16)>);

/// A line of `/proc/PID/maps`: the file, and what the mapping lets its process do.
fn mapping(line: &[u8]) -> Option<Mapped> {
    // start-end perms offset device inode          path
    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (word, more) = rest.split_at(end);
        let skip = more.iter().position(|byte| *byte != b' ').unwrap_or(more.len());
        rest = more.get(skip..)?;
        Some(word)
    };
    let (_, permissions) = (field()?, field()?);
    let (_, _, inode) = (field()?, field()?, field()?);
    if inode == b"0" || !rest.starts_with(b"/") {
        return None;
    }
    // The only byte that the kernel writes as an escape (seq_file_path(), fs/seq_file.c).
    let path =
        name(replaced(rest, b"\\012", b"\n"), OsStr::from_bytes(rest).as_bytes().ends_with(b" (deleted)"))?;
    let has = |byte| permissions.contains(&byte);
    let shared = has(b's');
    let mut wants = Vec::new();
    if has(b'r') {
        wants.push((How::Mapping, file::READ));
    }
    if has(b'w') && shared {
        wants.push((How::Mapping, file::WRITE));
    }
    if has(b'x') {
        wants.push((How::Code, file::LOAD));
    }
    Some((path, wants))
}

fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(what) {
            Some(more) => {
                out.extend_from_slice(with);
                rest = more;
            }
            None => {
                out.push(*byte);
                rest = &rest[1..];
            }
        }
    }
    out
}

/// What can be done with a socket that is connected, and with one that others can reach.
pub(super) const CONNECTED: u16 = net::CONNECT;
/// See [`CONNECTED`].
pub(super) const REACHABLE: u16 = net::BIND;

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn links_of_proc_are_names() {
        assert_eq!(name(b"/srv/a (deleted)".to_vec(), true).as_deref(), Some(&b"/srv/a"[..]));
        assert_eq!(name(b"/srv/a (deleted)".to_vec(), false).as_deref(), Some(&b"/srv/a (deleted)"[..]));
        assert_eq!(name(b"/memfd:x (deleted)".to_vec(), true), None);
        assert_eq!(number(b"socket:[77]", b"socket:["), Some(77));
        assert_eq!(flags("pos:\t0\nflags:\t0100002\nmnt_id:\t1\n"), Some(0o100_002));
        assert_eq!(flags("pos:\t0\n"), None);
    }

    #[test]
    fn mappings_are_what_they_let_a_process_do() {
        let line = b"7f00-7f01 rw-s 00000000 08:01 42                         /srv/a b\\012c (deleted)";
        let (path, wants) = mapping(line).expect("a file");
        assert_eq!(path, b"/srv/a b\nc");
        assert_eq!(wants, [(How::Mapping, file::READ), (How::Mapping, file::WRITE)]);
        let (path, wants) = mapping(b"7f00-7f01 r-xp 00001000 08:01 42   /lib/x.so").expect("a file");
        assert_eq!((path.as_slice(), wants.len()), (&b"/lib/x.so"[..], 2));
        assert_eq!(wants[1], (How::Code, file::LOAD));
        for line in
            [&b"7f00-7f01 rw-p 00000000 00:00 0 "[..], b"7f00-7f01 rw-p 00000000 00:00 0   [heap]", b""]
        {
            assert_eq!(mapping(line), None);
        }
    }

    #[test]
    fn what_this_process_holds_open_is_seen() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("kept");
        fs::write(&path, "x").expect("write");
        let kept = fs::File::options().read(true).write(true).open(&path).expect("open");
        let listing = fs::File::open(dir.path()).expect("open");
        fs::remove_file(&path).expect("remove");
        let seen = Seen::of(Path::new("/proc"), &[std::process::id()], soon());
        assert!(seen.problems.is_empty(), "{:?}", seen.problems);
        let has = |how, path: &Path, want| {
            let object = Object::File(path.as_os_str().as_bytes().to_vec());
            seen.open.contains(&(Open { how, object, want }, std::process::id()))
        };
        assert!(has(How::Descriptor, &path, file::READ | file::WRITE), "{:?}", seen.open);
        assert!(has(How::Descriptor, dir.path(), file::LIST));
        assert!(has(How::Program, &std::env::current_exe().expect("exe"), file::EXEC));
        drop((kept, listing));
        // Nobody has this number.
        assert!(Seen::of(Path::new("/proc"), &[u32::MAX], soon()).open.is_empty());
        let late = Seen::of(Path::new("/proc"), &[std::process::id()], Instant::now());
        assert!(late.open.is_empty() && late.problems.len() == 1, "{late:?}");
    }
}
