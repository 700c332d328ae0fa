//! Controls of descriptors, by what kind of object they are about. On files and sockets, whose controls are the
//! kernel's, a list of harmless ones is allowed; on terminals their own, without what reaches beyond the session. Whoever
//! may open another device (`system: [devices]`, and a rule) has its controls too.

use super::{armed, file::uncached, judge};
use crate::{
    emit::{Denial, refuse},
    object::{self, pointer},
    proc::{PIDFS, PROC},
    subject::Subject,
    verifier::{errno, result},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    access::file::METADATA,
    event::{operation, reason},
};

/// What everybody asks of every descriptor: whether it is a terminal, of which size, what can be read, whether to wait
/// and to keep it over an exec (include/uapi/asm-generic/ioctls.h).
#[inline(always)]
fn is_everyday(command: u32) -> bool {
    // TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO; FIONCLEX, FIOCLEX, FIOASYNC
    matches!(command, 0x5401 | 0x5413 | 0x541b | 0x5421 | 0x5450..=0x5452)
}

/// The letter by which controls are told apart ("type", include/uapi/asm-generic/ioctl.h).
#[inline(always)]
fn letter(command: u32) -> u8 {
    (command >> 8) as u8
}

/// Controls that change a file's attributes: `chattr`, its version, its project, encryption and verity
/// (include/uapi/linux/fs.h, fscrypt.h, fsverity.h). The size is part of the number: 32-bit programs
/// have others.
#[inline(always)]
fn changes_attributes(command: u32) -> bool {
    const SETFLAGS: u32 = 0x4008_6602;
    const SETFLAGS_32: u32 = 0x4004_6602;
    const SETVERSION: u32 = 0x4008_7602;
    const SETVERSION_32: u32 = 0x4004_7602;
    const FSSETXATTR: u32 = 0x401c_5820;
    const SET_ENCRYPTION_POLICY: u32 = 0x800c_6613;
    const ENABLE_VERITY: u32 = 0x4080_6685;
    matches!(command, SETFLAGS | SETFLAGS_32 | SETVERSION | SETVERSION_32 | FSSETXATTR)
        || command == SET_ENCRYPTION_POLICY
        || command == ENABLE_VERITY
}

/// What files and directories may be asked: what `changes_attributes` would set, where their bytes lie, sharing bytes
/// with a file that the caller may write, and names of the file system. Terminals' controls are no file's.
#[inline(always)]
fn is_for_files(command: u32) -> bool {
    const GETFLAGS: u32 = 0x8008_6601;
    const GETFLAGS_32: u32 = 0x8004_6601;
    const GETVERSION: u32 = 0x8008_7601;
    const GETVERSION_32: u32 = 0x8004_7601;
    const FSGETXATTR: u32 = 0x801c_581f;
    const FIEMAP: u32 = 0xc020_660b;
    const CLONE: u32 = 0x4004_9409;
    const CLONE_RANGE: u32 = 0x4020_940d;
    const DEDUPE_RANGE: u32 = 0xc018_9436;
    const GET_BLOCK_SIZE: u32 = 2;
    const GET_LABEL: u32 = 0x8100_9431;
    const GET_UUID: u32 = 0x8011_1500;
    const GET_ENCRYPTION_POLICY: u32 = 0x400c_6615;
    const MEASURE_VERITY: u32 = 0xc004_6686;
    // BLKGETSIZE, BLKSSZGET, BLKGETSIZE64: asked to find out whether it is a disk.
    const IS_DISK: u32 = 0x1260;
    const IS_DISK_SECTORS: u32 = 0x1268;
    const IS_DISK_BYTES: u32 = 0x8008_1272;
    letter(command) == b'T'
        || matches!(command, GETFLAGS | GETFLAGS_32 | GETVERSION | GETVERSION_32 | FSGETXATTR | FIEMAP)
        || matches!(command, CLONE | CLONE_RANGE | DEDUPE_RANGE | GET_BLOCK_SIZE | GET_LABEL | GET_UUID)
        || matches!(command, GET_ENCRYPTION_POLICY | MEASURE_VERITY)
        || matches!(command, IS_DISK | IS_DISK_SECTORS | IS_DISK_BYTES)
}

/// What sockets may be asked: what waits in them, when something came, who owns their signals, and how the host's
/// interfaces are (include/uapi/linux/sockios.h). Some of the others make the kernel load modules, or reach drivers.
#[inline(always)]
fn is_for_sockets(command: u32) -> bool {
    // FIOGETOWN, SIOCGPGRP, SIOCATMARK, time stamps (two layouts)
    matches!(command, 0x8903..=0x8907 | 0x8010_8906 | 0x8010_8907)
        // SIOCGIFNAME, -CONF, -FLAGS, -ADDR, -DSTADDR, -BRDADDR, -NETMASK, -METRIC, -MEM, -MTU, -HWADDR
        || matches!(command, 0x8910 | 0x8912 | 0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x891d)
        || matches!(command, 0x891f | 0x8921 | 0x8927)
        // SIOCGIFINDEX, -COUNT, -TXQLEN, SIOCETHTOOL (changing takes a capability), SIOCOUTQNSD, SIOCGIFMAP, SIOCGIWNAME
        || matches!(command, 0x8933 | 0x8938 | 0x8942 | 0x8946 | 0x894b | 0x8970 | 0x8b01)
        || letter(command) == b'T'
}

/// What terminals may be asked and told: everything of theirs but typing for whoever reads (TIOCSTI), what virtual
/// consoles do (TIOCLINUX), where the system's messages go (TIOCCONS), keeping others out (TIOCEXCL), serial lines
/// (TIOCSSERIAL, TIOCSER*), other drivers behind the terminal (TIOCSETD) and hanging up (TIOCVHANGUP).
#[inline(always)]
fn is_for_terminals(command: u32) -> bool {
    let forbidden =
        matches!(command, 0x5412 | 0x541c | 0x541d | 0x540c | 0x541f | 0x5423 | 0x5437 | 0x5453..=0x545b);
    letter(command) == b'T' && !forbidden || matches!(command, 0x8903 | 0x8904)
}

/// `FIOSETOWN`, `SIOCSPGRP`: owners of signals.
#[inline(always)]
fn sets_owner(command: u32) -> bool {
    matches!(command, 0x8901 | 0x8902)
}

#[inline(always)]
fn control(subject: &Subject, file: *const u8, command: u32) -> i32 {
    const ANONYMOUS: u64 = 0x0904_1934;
    // PROCMAP_QUERY: the file is a map of the session's own memory.
    const QUERY_MAP: u32 = 0xc068_6611;
    let inode = pointer(file, &object::FILE_INODE);
    let harmless = match object::kind(inode) {
        object::REGULAR | object::DIRECTORY => match object::magic(inode) {
            _ if is_for_files(command) => true,
            // What a descriptor like that can do was judged when it was made. Older kernels give it no kind.
            ANONYMOUS => true,
            PROC => command == QUERY_MAP,
            PIDFS => letter(command) == 0xff,
            _ => {
                if changes_attributes(command) {
                    return result(judge(subject, &uncached(file), operation::SETATTR, METADATA));
                }
                false
            }
        },
        object::SOCKET => is_for_sockets(command),
        object::CHARACTERS if object::is_terminal(inode) => is_for_terminals(command),
        _ => true,
    };
    if harmless && !sets_owner(command) {
        return 0;
    }
    errno(refuse(subject, &Denial::of(operation::IOCTL, reason::FLOOR, command)))
}

macro_rules! control_hook {
    ($(#[$doc:meta])* $hook:ident) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            let command: u32 = ctx.arg(1);
            if is_everyday(command) {
                return 0;
            }
            let Some(subject) = armed() else { return 0 };
            control(&subject, ctx.arg(0), command)
        }
    };
}

control_hook!(
    /// Controls of descriptors.
    file_ioctl);
control_hook!(
    /// The same from 32-bit programs, on kernels that tell.
    file_ioctl_compat);
