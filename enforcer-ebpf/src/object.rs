//! The only reader of kernel memory. Offsets stand in the instructions, where the daemon writes them from the running
//! kernel's BTF before loading; the verifier knows them as constants and checks each typed load.

use crate::{maps, proc::PROC, subject, verifier::compare_exchange};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::{arch::asm, mem::MaybeUninit};
use enforcer_common::offsets::{Extra, Index, PLACEHOLDER};

/// A number that the daemon writes into the instructions before the programs are loaded, where `PLACE` stands.
pub struct Offset<const PLACE: i32>;

impl<const PLACE: i32> Offset<PLACE> {
    /// The number.
    #[inline(always)]
    pub fn get(&self) -> usize {
        let value: u64;
        // SAFETY: one BPF move into a register.
        unsafe { asm!("{0} = {1}", out(reg) value, const PLACE, options(pure, nomem, nostack)) };
        value as usize
    }
}

/// A member of a structure.
pub trait Member {
    /// `of`, so many bytes further.
    fn behind(self, of: *const u8) -> *const u8;
}

impl<const PLACE: i32> Member for &Offset<PLACE> {
    #[inline(always)]
    fn behind(self, mut of: *const u8) -> *const u8 {
        // SAFETY: one BPF ALU instruction on a register.
        unsafe { asm!("{0} += {1}", inout(reg) of, const PLACE, options(pure, nomem, nostack)) };
        of
    }
}

macro_rules! globals {
    ($($global:ident, $of:literal, $members:tt, $size:literal;)*) => {
        $(
            #[doc = concat!("Offset of a member of `struct ", $of, "`.")]
            #[allow(dead_code)] // Some are for the check of the layout alone.
            pub static $global: Offset<{ PLACEHOLDER + Index::$global as i32 }> = Offset;
        )*
    };
}
enforcer_common::kernel_fields!(globals);

/// Address of `rename_lock` (fs/dcache.c), or 0.
static RENAME_LOCK: Offset<{ Extra::RenameLock.placeholder() }> = Offset;
/// Address of `mount_lock` (fs/namespace.c), or 0.
static MOUNT_LOCK: Offset<{ Extra::MountLock.placeholder() }> = Offset;
/// Address of `core_pattern` (fs/coredump.c), or 0.
pub static CORE_PATTERN: Offset<{ Extra::CorePattern.placeholder() }> = Offset;
/// BTF id of `struct timespec64`, whose two members are plain numbers, where `bpf_rdonly_cast` exists; else 0.
static CAST_TYPE: Offset<{ Extra::CastType.placeholder() }> = Offset;
/// The generation of these programs.
pub static GENERATION: Offset<{ Extra::Generation.placeholder() }> = Offset;

/// A pointer member of a structure that the verifier knows.
#[inline(always)]
pub fn pointer(of: *const u8, member: impl Member) -> *const u8 {
    // SAFETY: the verifier checks that a pointer lies there; a fault reads as null.
    unsafe { core::ptr::read_volatile(member.behind(of).cast::<*const u8>()) }
}

/// A number in a structure that the verifier knows.
#[inline(always)]
pub fn number<T: Copy>(of: *const u8, member: impl Member) -> T {
    // SAFETY: the verifier checks that a member of this size lies there; a fault reads as zero.
    unsafe { core::ptr::read_volatile(member.behind(of).cast::<T>()) }
}

/// `address` as a pointer that the verifier lets read two words; a fault reads as zero. `bpf_rdonly_cast` costs no
/// call. The daemon puts its id where this placeholder stands (or leaves it: the code is dead then).
#[inline(always)]
fn cast(address: u64) -> *const u8 {
    let to: u64;
    // SAFETY: the kernel function takes two numbers and changes nothing.
    unsafe {
        core::arch::asm!(
            "call 2147418113",
            inout("r1") address => _, inout("r2") CAST_TYPE.get() as u64 => _,
            out("r3") _, out("r4") _, out("r5") _, lateout("r0") to, options(nomem, nostack),
        );
    }
    to as *const u8
}

/// Whether [`word`] works on this kernel. The verifier knows the number, so what is for other kernels is not there.
#[inline(always)]
pub fn casts() -> bool {
    CAST_TYPE.get() != 0
}

/// Eight bytes at a plain address; a fault reads as zero. Only where [`casts`].
#[inline(always)]
pub fn word(address: u64) -> u64 {
    // SAFETY: the verifier knows the pointer.
    unsafe { core::ptr::read_volatile(cast(address).cast::<u64>()) }
}

/// Four bytes at a plain address; a fault reads as zero. Only where [`casts`].
#[inline(always)]
fn half(address: u64) -> u32 {
    // SAFETY: the verifier knows the pointer.
    unsafe { core::ptr::read_volatile(cast(address).cast::<u32>()) }
}

/// What [`pointer`] and [`number`] read, for records and other ways that are seldom gone: as words at plain addresses where the
/// kernel can. A pointer that is loaded from one that the verifier trusts makes it look for the names of structures in the
/// kernel's type information (`type_is_trusted()`, kernel/bpf/verifier.c), on 6.12 from one end to the other: most of the
/// time that loading took there.
pub mod loosely {
    use super::{Offset, casts, half, number, pointer, word};

    /// A pointer member.
    #[inline(always)]
    pub fn follow<const PLACE: i32>(of: *const u8, member: &Offset<PLACE>) -> *const u8 {
        if casts() { word(of as u64 + member.get() as u64) as *const u8 } else { pointer(of, member) }
    }

    /// A number of four bytes.
    #[inline(always)]
    pub fn small<const PLACE: i32>(of: *const u8, member: &Offset<PLACE>) -> u32 {
        if casts() { half(of as u64 + member.get() as u64) } else { number(of, member) }
    }

    /// A number of eight bytes.
    #[inline(always)]
    pub fn large<const PLACE: i32>(of: *const u8, member: &Offset<PLACE>) -> u64 {
        if casts() { word(of as u64 + member.get() as u64) } else { number(of, member) }
    }
}

/// Words at a plain address. Where they are read by a call they go through `room`, memory of a map rather than of the
/// stack.
///
/// # Safety
/// There is room for them.
#[inline(always)]
pub unsafe fn words_at<const WORDS: usize>(address: u64, room: *mut [u64; WORDS]) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    // SAFETY: as the caller promises.
    unsafe {
        if !casts() && bpf_probe_read_kernel(room.cast(), 8 * WORDS as u32, address as *const _) != 0 {
            return None;
        }
        let mut i = 0;
        while i < WORDS {
            words[i] = if casts() {
                word(address + 8 * i as u64)
            } else {
                core::ptr::read_volatile(room.cast::<u64>().add(i))
            };
            i += 1;
        }
    }
    Some(words)
}

/// Kernel memory at a plain address.
#[inline(always)]
pub fn peek<T: Copy>(address: u64) -> Option<T> {
    if casts() && size_of::<T>() % 8 == 0 {
        let mut value = MaybeUninit::<T>::uninit();
        let to = value.as_mut_ptr().cast::<u64>();
        let mut i = 0;
        while i < size_of::<T>() / 8 {
            // SAFETY: within the value.
            unsafe { to.add(i).write(word(address + 8 * i as u64)) };
            i += 1;
        }
        // SAFETY: every word was written.
        return Some(unsafe { value.assume_init() });
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the value or fails.
    unsafe {
        if bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _) != 0 {
            return None;
        }
        Some(value.assume_init())
    }
}

/// The bits of [`stamp`] that are set while a rename or a mount is going on.
pub const MOVING: u64 = 0x1_0000_0001;

/// The kernel's count of renames, odd while one is going on. It moves with every name of an object that exists.
///
/// Where memory is read by calls, [`stamp`] alone tells as much, and this is always the same.
#[inline(always)]
pub fn renames() -> u32 {
    let at = RENAME_LOCK.get() as u64;
    if casts() && at != 0 { half(at) } else { 0 }
}

/// Under what the name of a directory may be remembered: `mount_lock`, which moves with every mount, and the number of
/// renames that were no mere file's. A bit of [`MOVING`] is set while something is going on and where it cannot be
/// told: nothing may be remembered then, and nothing that was is equal.
///
/// Moving a file changes no directory's name. [`maps::MOVES`] says how many renames concerned directories and up to
/// which state of the kernel's count that is known (see `hooks/moves.rs`). Its word is read first, the kernel's count
/// second: if they fit, no rename had begun since then that is not in it.
#[inline(always)]
pub fn stamp() -> u64 {
    if casts() { stamp_by_loads().0 } else { stamp_by_calls() }
}

/// [`stamp`], if since [`renames`] said `since` no name of any object has moved; else something with a bit of
/// [`MOVING`].
#[inline(always)]
pub fn stamp_since(since: u32) -> u64 {
    if !casts() {
        return stamp_by_calls();
    }
    let (stamp, renames) = stamp_by_loads();
    if renames == since { stamp } else { MOVING }
}

/// [`stamp`], if the kernel's count of renames is still the one that `moves`, the word in [`maps::MOVES`], said at an
/// earlier time, and that word is the same; else something with a bit of [`MOVING`]. Only where [`casts`].
#[inline(always)]
pub fn stamp_if(moves: u64) -> u64 {
    if told() == moves { stamp_of(moves).0 } else { MOVING }
}

/// The word in [`maps::MOVES`].
#[inline(always)]
pub fn told() -> u64 {
    // SAFETY: a map value.
    unsafe { core::ptr::read_volatile(maps::moves()) }
}

#[inline(always)]
fn stamp_by_loads() -> (u64, u32) {
    stamp_of(told())
}

/// The stamp that `word`, read before, stands for if the kernel's count has not gone on, and that count.
#[inline(always)]
fn stamp_of(word: u64) -> (u64, u32) {
    let (rename, mount) = (RENAME_LOCK.get() as u64, MOUNT_LOCK.get() as u64);
    if rename == 0 || mount == 0 {
        return (MOVING, 0);
    }
    let (renames, mounts) = (half(rename), half(mount));
    if word as u32 != renames {
        return (MOVING, renames);
    }
    (word >> 32 << 32 | u64::from(mounts), renames)
}

/// As [`stamp`], where every rename counts.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn stamp_by_calls() -> u64 {
    let (rename, mount) = (RENAME_LOCK.get() as u64, MOUNT_LOCK.get() as u64);
    if rename == 0 || mount == 0 {
        return MOVING;
    }
    // `sequence` is the first member of seqlock_t and of seqcount_t (include/linux/seqlock_types.h).
    let mut counters = [1u32; 2];
    // SAFETY: the helper fills one word each, or clears it and says so.
    unsafe {
        let to = (&raw mut counters).cast::<u32>();
        if bpf_probe_read_kernel(to.cast(), 4, mount as *const _) != 0 {
            return MOVING;
        }
        if bpf_probe_read_kernel(to.add(1).cast(), 4, rename as *const _) != 0 {
            return MOVING;
        }
    }
    u64::from(counters[1]) << 32 | u64::from(counters[0])
}

/// Takes note of renames that nobody has said what they were of, as those of directories: while the programs were
/// not attached, and on kernels without a function to attach to. What was remembered before holds no longer.
#[inline(always)]
pub fn take_stock() {
    let at = RENAME_LOCK.get() as u64;
    if !casts() || at == 0 {
        return;
    }
    let moves = maps::moves();
    // SAFETY: an aligned word of a map value. Read before the kernel's count: whatever was said of a rename since then
    // has changed the word, and is not overwritten.
    unsafe {
        let word = core::ptr::read_volatile(moves);
        let renames = half(at);
        if renames & 1 == 0 && word as u32 != renames {
            compare_exchange(moves, word, moved(word) << 32 | u64::from(renames));
        }
    }
}

/// The number of renames after another one that was no mere file's: always even, so that [`MOVING`] stays free.
#[inline(always)]
pub fn moved(word: u64) -> u64 {
    (word >> 32) + 2 & 0xffff_ffff
}
/// `FMODE_EXEC` as it stands in the open flags: the kernel opens the file to execute it
/// (include/linux/fs.h).
pub const OPEN_EXEC: u32 = 0x20;
/// `O_ACCMODE`.
pub const OPEN_ACCESS: u32 = 3;
/// `O_TRUNC`.
pub const OPEN_TRUNCATE: u32 = 0o1000;
/// `O_PATH`: neither reads nor writes; what is opened through it is judged by itself.
pub const OPEN_PATH: u32 = 0o10_000_000;
/// `__O_TMPFILE`: the file is created without passing the create hook.
pub const OPEN_TMPFILE: u32 = 0o20_000_000;
/// `PROT_EXEC`.
pub const PROT_EXEC: u64 = 4;

/// `S_IFMT` (include/uapi/linux/stat.h).
const TYPE: u16 = 0o170_000;
/// `S_IFREG`.
pub const REGULAR: u16 = 0o100_000;
/// `S_IFDIR`.
pub const DIRECTORY: u16 = 0o040_000;
/// `S_IFCHR`.
pub const CHARACTERS: u16 = 0o020_000;
/// `S_IFBLK`.
const BLOCKS: u16 = 0o060_000;
/// `S_IFSOCK`.
pub const SOCKET: u16 = 0o140_000;

/// What kind of object the inode is.
#[inline(always)]
pub fn kind(inode: *const u8) -> u16 {
    number::<u16>(inode, &INODE_MODE) & TYPE
}

/// Whether the mode has a set-user-id or a set-group-id bit (`S_ISUID`, `S_ISGID`, include/uapi/linux/stat.h).
#[inline(always)]
pub fn sets_id(mode: u16) -> bool {
    mode & 0o6000 != 0
}

/// Whether the inode is a directory.
#[inline(always)]
pub fn is_directory(inode: *const u8) -> bool {
    kind(inode) == DIRECTORY
}

/// Whether the inode is a device that does something else than what every program needs: sinks, sources of bytes, and
/// terminals. Memory, disks, input, virtual machines, networks and what else a driver offers.
#[inline(always)]
pub fn is_special_device(inode: *const u8) -> bool {
    match kind(inode) {
        BLOCKS => true,
        CHARACTERS => {
            let (major, minor) = device(inode);
            // null, zero, full, random, urandom
            let plain = major == MEMORY && matches!(minor, 3 | 5 | 7..=9);
            !plain && !is_terminal(inode)
        }
        _ => false,
    }
}

/// Whether the file is a device's memory in sysfs (`resource0`, `resource0_wc`, `legacy_mem`: `pci_create_resource_files()`,
/// drivers/pci/pci-sysfs.c), which can be mapped by whoever may read it. `resource` alone is a text, and so is `resources`.
#[inline(always)]
pub fn is_device_memory(inode: *const u8, dentry: *const u8) -> bool {
    if magic(inode) != SYSFS {
        return false;
    }
    let name = dentry as u64 + DENTRY_INLINE.get() as u64;
    let (Some(begin), Some(more)) = (peek::<[u8; 8]>(name), peek::<u8>(name + 8)) else { return true };
    begin == *b"resource" && more.is_ascii_digit() || begin == *b"legacy_m" || begin == *b"legacy_i"
}

/// Whether the character device is the task's own terminal, a pseudo terminal, or what makes them. Consoles and serial
/// lines are others.
#[inline(always)]
pub fn is_terminal(inode: *const u8) -> bool {
    match device(inode) {
        // tty, ptmx
        (5, minor) => matches!(minor, 0 | 2),
        (major, _) => is_pseudo(major),
    }
}

/// Whether the inode is `/dev/ptmx`, and whether it is `/dev/tty`: one name for terminals of everybody.
#[inline(always)]
pub fn terminal_by_file(inode: *const u8) -> (bool, bool) {
    let device = device(inode);
    let characters = kind(inode) == CHARACTERS;
    (characters && device == (5, 2), characters && device == (5, 0))
}

/// Whether the inode is the user's side of a pseudo terminal.
#[inline(always)]
pub fn is_pseudo_terminal(inode: *const u8) -> bool {
    kind(inode) == CHARACTERS && is_pseudo(device(inode).0)
}

/// `UNIX98_PTY_SLAVE_MAJOR` and the seven after it (include/uapi/linux/major.h).
#[inline(always)]
fn is_pseudo(major: u32) -> bool {
    matches!(major, 136..=143)
}

/// `MEM_MAJOR` (include/uapi/linux/major.h).
const MEMORY: u32 = 1;

/// Major and minor number of a device (include/linux/kdev_t.h, Documentation/admin-guide/devices.txt).
#[inline(always)]
fn device(inode: *const u8) -> (u32, u32) {
    let device: u32 = number(inode, &INODE_DEVICE);
    (device >> 20, device & 0xf_ffff)
}

/// Whether the inode is a socket: one in sockfs, or the name of a unix socket.
#[inline(always)]
pub fn is_socket(inode: *const u8) -> bool {
    kind(inode) == SOCKET
}

/// Whether the running task acts with other credentials than its own: an overlay with its mounter's,
/// `access(2)` with the real user's (`override_creds()`, kernel/cred.c). Only the kernel's own code does
/// that, for the length of one step.
#[inline(always)]
pub fn borrows_credentials(task: *const u8) -> bool {
    pointer(task, &TASK_CRED) != pointer(task, &TASK_REAL_CRED)
}

/// `s_magic` of the file system that `inode` belongs to.
#[inline(always)]
pub fn magic(inode: *const u8) -> u64 {
    number(pointer(inode, &INODE_SB), &SB_MAGIC)
}

/// Device and number of `inode`.
#[inline(always)]
pub fn file_id(inode: *const u8) -> enforcer_common::map::FileId {
    enforcer_common::map::FileId {
        device: u64::from(loosely::small(loosely::follow(inode, &INODE_SB), &SB_DEVICE)),
        inode: loosely::large(inode, &INODE_NUMBER),
    }
}

/// Whether an object without a name in any mount namespace may be opened: what the agent itself made
/// (pipes, memory files, descriptors of processes), and the layers below an overlay, whose own object was judged already
/// (include/uapi/linux/magic.h).
#[inline(always)]
pub fn nameless_may_open(magic: u64) -> bool {
    const RAMFS: u64 = 0x8584_58f6;
    const EXT: u64 = 0xef53;
    const XFS: u64 = 0x5846_5342;
    const BTRFS: u64 = 0x9123_683e;
    const OVERLAY: u64 = 0x794c_7630;
    // Descriptors of processes; what they can do to a process is judged when they do it.
    const PIDFS: u64 = 0x5049_4446;
    const SQUASHFS: u64 = 0x7371_7368;
    const EROFS: u64 = 0xe0f5_e1e2;
    matches!(magic, PIPEFS | TMPFS | RAMFS | EXT | XFS | BTRFS | OVERLAY | PIDFS | SQUASHFS | EROFS)
}

/// Whether an object without a name is a pipe or a memory file, which agents make for themselves.
#[inline(always)]
pub fn is_memory(inode: *const u8) -> bool {
    // As the hooks know it: no inode, nothing to be sure of.
    !inode.is_null() && matches!(magic(inode), PIPEFS | TMPFS) && !is_directory(inode)
}

/// Pipes and memory files (include/uapi/linux/magic.h).
const PIPEFS: u64 = 0x5049_5045;
const TMPFS: u64 = 0x0102_1994;

/// `SYSFS_MAGIC` (include/uapi/linux/magic.h).
const SYSFS: u64 = 0x6265_6572;

/// Whether writing to a file of this system changes the kernel or another process rather than data.
/// Refused to agents whatever their policy says.
#[inline(always)]
pub fn is_knob(magic: u64) -> bool {
    const CGROUP: u64 = 0x0027_e0eb;
    const CGROUP2: u64 = 0x6367_7270;
    const BPFFS: u64 = 0xcafe_4a11;
    const TRACEFS: u64 = 0x7472_6163;
    const DEBUGFS: u64 = 0x6462_6720;
    const SECURITYFS: u64 = 0x7363_6673;
    const SELINUXFS: u64 = 0xf97c_ff8c;
    const EFIVARFS: u64 = 0xde5e_81e4;
    const BINFMTFS: u64 = 0x4249_4e4d;
    const CONFIGFS: u64 = 0x6265_6570;
    const NFSD: u64 = 0x6e66_7364;
    const RPC_PIPEFS: u64 = 0x6759_6969;
    const AAFS: u64 = 0x5a3c_69f0;
    const FUSECTL: u64 = 0x6573_5543;
    const RESCTRL: u64 = 0x0765_5821;
    const PSTORE: u64 = 0x6165_676c;
    const SMACK: u64 = 0x4341_5d53;
    const MQUEUE: u64 = 0x1980_0202;
    const BINDERFS: u64 = 0x6c6f_6f70;
    const XENFS: u64 = 0xabba_1974;
    const DLMFS: u64 = 0x76a9_f425;
    const USBFS: u64 = 0x9fa2;
    const FUNCTIONFS: u64 = 0x0a64_7361;
    const GADGETFS: u64 = 0xaee7_1ee7;
    const OPENPROM: u64 = 0x9fa1;
    matches!(magic, BINFMTFS | CONFIGFS | NFSD | RPC_PIPEFS | AAFS | FUSECTL | RESCTRL | PSTORE | SMACK)
        || matches!(magic, MQUEUE | BINDERFS | XENFS | DLMFS | USBFS | FUNCTIONFS | GADGETFS | OPENPROM)
        || matches!(
            magic,
            CGROUP | CGROUP2 | BPFFS | TRACEFS | DEBUGFS | SECURITYFS | SYSFS | SELINUXFS | EFIVARFS
        )
}

/// Whether names and metadata on a file system with this magic are nobody's to change: a file system of knobs, and proc.
#[inline(always)]
pub fn is_control(magic: u64) -> bool {
    is_knob(magic) || magic == PROC
}

/// Whether writing to `inode` would turn one of the kernel's knobs or touch another process: a file
/// of a control file system, or of proc, unless it belongs to the running process itself.
#[inline(always)]
pub fn is_forbidden_to_write(inode: *const u8) -> bool {
    let magic = magic(inode);
    is_knob(magic) || magic == PROC && !is_own_proc(inode)
}

/// Whether the inode of proc belongs to the running process. `struct proc_inode` (fs/proc/internal.h)
/// contains the inode, so its other members lie before it; files that belong to no process have no
/// pid.
#[inline(always)]
fn is_own_proc(inode: *const u8) -> bool {
    let at = inode as u64 - PROC_INODE.get() as u64 + PROC_PID.get() as u64;
    let Some(pid) = peek::<u64>(at) else { return false };
    if pid == 0 {
        return false;
    }
    // numbers[0] is the id in the initial namespace.
    let Some(number) = peek::<u32>(pid + PID_NUMBERS.get() as u64) else { return false };
    subject::is_current(number)
}
