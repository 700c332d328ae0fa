//! Changing what a file is beside its content, by every call that there is for it.

use super::{
    Act, Args,
    sys::{fd, open, sys, text},
};
use std::{ffi::CStr, io, os::fd::OwnedFd};

const HERE: i32 = libc::AT_FDCWD;
const NAME: &CStr = c"user.probe";

pub(super) const ACTS: &[(&str, Act)] = &[
    ("chmod-plain", |a| sys!(SYS_chmod, &a.text(0)?, 0o640).map(drop)),
    // fchmodat2, since 6.6.
    ("fchmodat2", |a| number(452, &[Value::Number(HERE as u64), Value::Path(&a.text(0)?)], &[0o640, 0])),
    ("fchmod-by-name", |a| {
        let file = open(&a.text(0)?, libc::O_PATH, 0)?;
        let name = by_number(&file)?;
        sys!(SYS_fchmodat, HERE, &name, 0o640).map(drop)
    }),
    ("chown-plain", |a| sys!(SYS_chown, &a.text(0)?, 7, 7).map(drop)),
    ("fchownat-empty", |a| {
        let file = open(&a.text(0)?, libc::O_PATH, 0)?;
        sys!(SYS_fchownat, &file, c"", 7, 7, libc::AT_EMPTY_PATH).map(drop)
    }),
    ("futimens", |a| {
        let file = open(&a.text(0)?, libc::O_RDONLY, 0)?;
        sys!(SYS_utimensat, &file, 0, &TIMES.concat(), 0).map(drop)
    }),
    ("change-own", change_own),
    ("utime", |a| sys!(SYS_utime, &a.text(0)?, &[[1u8, 0, 0, 0, 0, 0, 0, 0]; 2].concat()).map(drop)),
    ("utimes-now", |a| sys!(SYS_utimensat, HERE, &a.text(0)?, 0, 0).map(drop)),
    ("touch-link", |a| {
        sys!(SYS_utimensat, HERE, &a.text(0)?, &TIMES.concat(), libc::AT_SYMLINK_NOFOLLOW).map(drop)
    }),
    ("lsetxattr", |a| sys!(SYS_lsetxattr, &a.text(0)?, NAME, &b"1"[..], 1, 0).map(drop)),
    ("fsetxattr", |a| {
        sys!(SYS_fsetxattr, &open(&a.text(0)?, libc::O_RDONLY, 0)?, NAME, &b"1"[..], 1, 0).map(drop)
    }),
    // setxattrat, since 6.13: a `struct xattr_args` has the value.
    ("setxattrat", setxattrat),
    ("drop-xattr", |a| sys!(SYS_removexattr, &a.text(0)?, NAME).map(drop)),
    ("drop-lxattr", |a| sys!(SYS_lremovexattr, &a.text(0)?, NAME).map(drop)),
    ("drop-fxattr", |a| sys!(SYS_fremovexattr, &open(&a.text(0)?, libc::O_RDONLY, 0)?, NAME).map(drop)),
    ("set-acl", |a| acl(a, c"system.posix_acl_access")),
    ("set-default-acl", |a| acl(a, c"system.posix_acl_default")),
    ("drop-acl", |a| sys!(SYS_removexattr, &a.text(0)?, c"system.posix_acl_access").map(drop)),
    ("set-capability", |a| {
        // struct vfs_cap_data, revision 2: CAP_CHOWN, effective.
        let value = [1u8, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

        sys!(SYS_setxattr, &a.text(0)?, c"security.capability", &value[..], 20, 0).map(drop)
    }),
    ("set-trusted", |a| sys!(SYS_setxattr, &a.text(0)?, c"trusted.probe", &b"1"[..], 1, 0).map(drop)),
    ("set-project", set_project),
    ("set-version", |a| {
        let file = open(&a.text(0)?, libc::O_RDONLY, 0)?;
        sys!(SYS_ioctl, &file, 0x4008_7602_u64, &7u64.to_ne_bytes()[..]).map(drop)
    }),
    ("set-immutable", set_immutable),
    // file_setattr, since 6.17: a `struct file_attr` without flags.
    ("file-setattr", |a| {
        let attributes = [0u8; 24];
        let memory = (attributes.as_ptr() as u64, 24);
        let path = a.text(0)?;
        number(469, &[Value::Number(HERE as u64), Value::Path(&path)], &[memory.0, memory.1, 0])
    }),
    ("truncate-path", |a| sys!(SYS_truncate, &a.text(0)?, 0).map(drop)),
    ("allocate", |a| {
        let file = open(&a.text(0)?, libc::O_WRONLY, 0)?;
        sys!(SYS_fallocate, &file, 0, 0, 8192).map(drop)
    }),
    ("collapse", |a| {
        let file = open(&a.text(0)?, libc::O_RDWR, 0)?;
        sys!(SYS_fallocate, &file, libc::FALLOC_FL_ZERO_RANGE, 0, 8).map(drop)
    }),
    ("mknod-plain", |a| sys!(SYS_mknod, &a.text(0)?, libc::S_IFREG | 0o644, 0).map(drop)),
    ("mkdir-plain", |a| sys!(SYS_mkdir, &a.text(0)?, 0o755).map(drop)),
    ("rmdir-plain", |a| sys!(SYS_rmdir, &a.text(0)?).map(drop)),
    ("unlink-plain", |a| sys!(SYS_unlink, &a.text(0)?).map(drop)),
    ("symlink-plain", |a| sys!(SYS_symlink, &a.text(0)?, &a.text(1)?).map(drop)),
    ("link-plain", |a| sys!(SYS_link, &a.text(0)?, &a.text(1)?).map(drop)),
    ("rename-plain", |a| sys!(SYS_rename, &a.text(0)?, &a.text(1)?).map(drop)),
    ("link-empty", |a| {
        let file = open(&a.text(0)?, libc::O_PATH, 0)?;
        sys!(SYS_linkat, &file, c"", HERE, &a.text(1)?, libc::AT_EMPTY_PATH).map(drop)
    }),
    ("tmpfile-link-empty", |a| {
        let file = open(&a.text(0)?, libc::O_TMPFILE | libc::O_WRONLY, 0o600)?;
        sys!(SYS_linkat, &file, c"", HERE, &a.text(1)?, libc::AT_EMPTY_PATH).map(drop)
    }),
];

/// `change-own memory|pipe`: size (of memory), mode, owner and times of what has no name.
fn change_own(args: &Args<'_>) -> io::Result<()> {
    let own = if args.str(0)? == "memory" {
        let memory = fd!(SYS_memfd_create, c"probe", libc::MFD_CLOEXEC)?;
        sys!(SYS_ftruncate, &memory, 4096)?;
        memory
    } else {
        OwnedFd::from(io::pipe()?.0)
    };
    sys!(SYS_fchmod, &own, 0o600)?;
    sys!(SYS_fchown, &own, 0, 0)?;
    sys!(SYS_utimensat, &own, 0, &TIMES.concat(), 0).map(drop)
}

/// Access and modification: one second after the beginning.
const TIMES: [[u8; 8]; 4] = [[1, 0, 0, 0, 0, 0, 0, 0], [0; 8], [1, 0, 0, 0, 0, 0, 0, 0], [0; 8]];

fn by_number(file: &OwnedFd) -> io::Result<std::ffi::CString> {
    text(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)).as_ref())
}

/// An argument of a call that the C library does not know.
enum Value<'a> {
    Number(u64),
    Path(&'a CStr),
}

/// A call by its number. Nothing that it names is written by the kernel.
fn number(number: libc::c_long, first: &[Value<'_>], rest: &[u64]) -> io::Result<()> {
    let mut words: Vec<super::sys::Arg<'_>> = Vec::new();
    for value in first {
        words.push(match value {
            Value::Number(number) => (*number).into(),
            Value::Path(path) => (*path).into(),
        });
    }
    words.extend(rest.iter().map(|number| super::sys::Arg::from(*number)));
    super::sys::call(number, &mut words).map(drop)
}

fn setxattrat(args: &Args<'_>) -> io::Result<()> {
    // struct xattr_args: value, size, flags.
    let value = b"1";
    let mut attributes = (value.as_ptr() as u64).to_ne_bytes().to_vec();
    attributes.extend(1u64.to_ne_bytes());
    let (path, memory) = (args.text(0)?, attributes.as_ptr() as u64);
    let name = NAME.as_ptr() as u64;
    number(463, &[Value::Number(HERE as u64), Value::Path(&path)], &[0, name, memory, 16])
}

/// An access list: the owner, one more user, the group, a mask, others.
fn acl(args: &Args<'_>, name: &CStr) -> io::Result<()> {
    const ENTRIES: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 1000), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 5, u32::MAX)];
    let mut value = 2u32.to_ne_bytes().to_vec();
    for (tag, rights, id) in ENTRIES {
        value.extend(tag.to_ne_bytes().into_iter().chain(rights.to_ne_bytes()).chain(id.to_ne_bytes()));
    }
    sys!(SYS_setxattr, &args.text(0)?, name, &value, value.len(), 0).map(drop)
}

/// `struct fsxattr` as it is, handed back.
fn set_project(args: &Args<'_>) -> io::Result<()> {
    let file = open(&args.text(0)?, libc::O_RDONLY, 0)?;
    let mut attributes = [0u8; 28];
    sys!(SYS_ioctl, &file, 0x801c_581f_u64, &mut attributes[..])?;
    sys!(SYS_ioctl, &file, 0x401c_5820_u64, &attributes[..]).map(drop)
}

/// "Nobody changes it", and back.
fn set_immutable(args: &Args<'_>) -> io::Result<()> {
    const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
    const FS_IOC_SETFLAGS: u64 = 0x4008_6602;
    const FS_IMMUTABLE_FL: u64 = 0x10;
    let file = fd!(SYS_openat, HERE, &args.text(0)?, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
    let mut flags = [0u8; 8];
    sys!(SYS_ioctl, &file, FS_IOC_GETFLAGS, &mut flags[..])?;
    let before = u64::from_ne_bytes(flags);
    sys!(SYS_ioctl, &file, FS_IOC_SETFLAGS, &(before | FS_IMMUTABLE_FL).to_ne_bytes()[..])?;
    sys!(SYS_ioctl, &file, FS_IOC_SETFLAGS, &before.to_ne_bytes()[..]).map(drop)
}
