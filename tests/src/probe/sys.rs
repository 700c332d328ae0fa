//! The one place at which acts enter the kernel, and the memory that they hand to it.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

/// An argument of a system call.
pub(super) enum Arg<'a> {
    /// A number, a descriptor, flags.
    Number(u64),
    /// A name.
    Text(&'a CStr),
    /// Memory that the kernel reads.
    In(&'a [u8]),
    /// Memory that the kernel writes.
    Out(&'a mut [u8]),
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl From<$type> for Arg<'_> {
            fn from(number: $type) -> Self {
                // As the C library passes them: sign-extended.
                Self::Number(number as i64 as u64)
            }
        })*
    };
}
numbers!(i32 u32 i64 u64 usize);

impl From<&OwnedFd> for Arg<'_> {
    fn from(fd: &OwnedFd) -> Self {
        fd.as_raw_fd().into()
    }
}
impl<'a> From<&'a CStr> for Arg<'a> {
    fn from(text: &'a CStr) -> Self {
        Self::Text(text)
    }
}
impl<'a> From<&'a CString> for Arg<'a> {
    fn from(text: &'a CString) -> Self {
        Self::Text(text)
    }
}
impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::In(bytes)
    }
}
impl<'a> From<&'a Vec<u8>> for Arg<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::In(bytes)
    }
}
impl<'a> From<&'a mut [u8]> for Arg<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        Self::Out(bytes)
    }
}

/// One system call. What the kernel may write is [`Arg::Out`]; the callers, all in this module's
/// directory, say so wherever a call writes.
pub(super) fn call(number: libc::c_long, arguments: &mut [Arg<'_>]) -> io::Result<i64> {
    let mut words = [0u64; 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        *word = match argument {
            Arg::Number(number) => *number,
            Arg::Text(text) => text.as_ptr() as u64,
            Arg::In(bytes) => bytes.as_ptr() as u64,
            Arg::Out(bytes) => bytes.as_mut_ptr() as u64,
        };
    }
    let [a, b, c, d, e, f] = words;
    // SAFETY: pointers among the arguments come from borrows that outlive the call, as long as the call
    // needs them to be; what the call writes was borrowed mutably.
    result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// -1 is the error in `errno`.
pub(super) fn result(value: libc::c_long) -> io::Result<i64> {
    if value == -1 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// `sys!(SYS_open, path, flags)`.
macro_rules! sys {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        $crate::probe::sys::call(libc::$number, &mut [$($crate::probe::sys::Arg::from($argument)),*])
    };
}
pub(super) use sys;

/// A call whose result is a new descriptor.
macro_rules! fd {
    ($($call:tt)*) => { sys!($($call)*).map($crate::probe::sys::owned) };
}
pub(super) use fd;

/// Takes a descriptor that a system call has just returned.
pub(super) fn owned(number: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(number as i32) }
}

/// A name for the kernel.
pub(super) fn text(argument: &OsStr) -> io::Result<CString> {
    CString::new(argument.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// `openat` relative to the working directory.
pub(super) fn open(path: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    fd!(SYS_openat, libc::AT_FDCWD, path, flags | libc::O_CLOEXEC, mode)
}

/// A copy of a plain structure's bytes.
pub(super) fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
    // SAFETY: `value` is readable for its size. Only structures without padding, or made from zeroes,
    // are passed.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }.to_vec()
}

/// A plain structure of the kernel's interface with all bytes zero.
pub(super) fn zeroed<T: Copy>() -> T {
    // SAFETY: used for C structures of integers and raw pointers only, for which zeroes are a value.
    unsafe { std::mem::zeroed() }
}

/// Runs `act` in a child and returns what it returned there.
pub(super) fn in_child(act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut ends = [0i32; 2];
    // SAFETY: room for two descriptors.
    result(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    let [from, to] = ends.map(|end| owned(end.into()));
    // SAFETY: the probe has one thread, so the child may do what the parent may.
    let child = result(unsafe { libc::fork() }.into())?;
    if child == 0 {
        drop(from);
        let code = match act() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        let _ = sys!(SYS_write, &to, &code.to_ne_bytes()[..], 4);
        // SAFETY: ends the child without running what the parent wants to run at its end.
        unsafe { libc::_exit(0) };
    }
    drop(to);
    let mut code = [0u8; 4];
    let read = sys!(SYS_read, &from, &mut code[..], 4)?;
    let mut status = 0i32;
    // SAFETY: `status` takes the status of the child that was just made.
    unsafe { libc::waitpid(child as i32, &mut status, 0) };
    match (read, i32::from_ne_bytes(code)) {
        // Closed without a word: an exec closed it, and the new program has ended.
        (0, _) if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 => Ok(()),
        (0, _) => Err(io::Error::other(format!("status-{status:#x}"))),
        (_, 0) => Ok(()),
        (_, -1) => Err(io::Error::other("child")),
        (_, code) => Err(io::Error::from_raw_os_error(code)),
    }
}
