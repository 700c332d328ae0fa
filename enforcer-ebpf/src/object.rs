//! The only reader of kernel memory. Offsets are globals that the daemon fills from the running
//! kernel's BTF before loading; the verifier knows them as constants and checks each typed load.

use crate::{proc::PROC, subject};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::mem::MaybeUninit;

/// A global that the daemon sets before the programs are loaded.
pub struct Offset(u64);

impl Offset {
    /// The value, read so that the compiler cannot assume the one in the source.
    #[inline(always)]
    pub fn get(&'static self) -> usize {
        // SAFETY: a plain read of a static.
        unsafe { core::ptr::read_volatile(&self.0) as usize }
    }
}

macro_rules! globals {
    ($($global:ident, $of:literal, $members:tt, $size:literal;)*) => {
        $(
            #[doc = concat!("Offset of a member of `struct ", $of, "`.")]
            #[unsafe(no_mangle)]
            pub static $global: Offset = Offset(0);
        )*
    };
}
enforcer_common::kernel_fields!(globals);

/// Address of `rename_lock` (fs/dcache.c), or 0.
#[unsafe(no_mangle)]
pub static RENAME_LOCK: Offset = Offset(0);
/// Address of `mount_lock` (fs/namespace.c), or 0.
#[unsafe(no_mangle)]
pub static MOUNT_LOCK: Offset = Offset(0);
/// The generation of these programs.
#[unsafe(no_mangle)]
pub static GENERATION: Offset = Offset(0);

/// A pointer member of a structure that the verifier knows.
#[inline(always)]
pub fn pointer(of: *const u8, member: &'static Offset) -> *const u8 {
    // SAFETY: the verifier checks that a pointer lies there; a fault reads as null.
    unsafe { core::ptr::read_volatile(of.add(member.get()).cast::<*const u8>()) }
}

/// A number in a structure that the verifier knows.
#[inline(always)]
pub fn number<T: Copy>(of: *const u8, member: &'static Offset) -> T {
    // SAFETY: the verifier checks that a member of this size lies there; a fault reads as zero.
    unsafe { core::ptr::read_volatile(of.add(member.get()).cast::<T>()) }
}

/// BTF id of `struct timespec64`, whose two members are plain numbers, where `bpf_rdonly_cast` exists; else 0.
#[unsafe(no_mangle)]
pub static CAST: Offset = Offset(0);

/// `address` as a pointer that the verifier lets read two words; a fault reads as zero. `bpf_rdonly_cast` costs no
/// call. The daemon puts its id where this placeholder stands (or leaves it: the code is dead then).
#[inline(always)]
fn cast(address: u64) -> *const u8 {
    let to: u64;
    // SAFETY: the kernel function takes two numbers and changes nothing.
    unsafe {
        core::arch::asm!(
            "call 2147418113",
            inout("r1") address => _, inout("r2") CAST.get() as u64 => _,
            out("r3") _, out("r4") _, out("r5") _, lateout("r0") to, options(nomem, nostack),
        );
    }
    to as *const u8
}

/// Whether [`word`] works on this kernel.
#[inline(always)]
pub fn casts() -> bool {
    CAST.get() != 0
}

/// Eight bytes at a plain address; a fault reads as zero. Only where [`casts`].
#[inline(always)]
pub fn word(address: u64) -> u64 {
    // SAFETY: the verifier knows the pointer.
    unsafe { core::ptr::read_volatile(cast(address).cast::<u64>()) }
}

/// Words at a plain address, copied to memory of a map rather than to the stack.
///
/// # Safety
/// There is room for them at `to`.
#[inline(always)]
pub unsafe fn peek_into<const WORDS: usize>(to: *mut [u64; WORDS], address: u64) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        if casts() {
            let mut i = 0;
            while i < WORDS {
                core::ptr::write_volatile(to.cast::<u64>().add(i), word(address + 8 * i as u64));
                i += 1;
            }
            return true;
        }
        bpf_probe_read_kernel(to.cast(), 8 * WORDS as u32, address as *const _) == 0
    }
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

/// `rename_lock` and `mount_lock`, the counters that move before and after every rename, exchange,
/// mount, unmount and move anywhere. While one is going on, and where they cannot be read, a bit of
/// [`MOVING`] is set: nothing may be remembered, and nothing that was is equal.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn sequence() -> u64 {
    let (rename, mount) = (RENAME_LOCK.get() as u64, MOUNT_LOCK.get() as u64);
    if rename == 0 || mount == 0 {
        return MOVING;
    }
    if casts() {
        // SAFETY: the verifier knows the pointers.
        unsafe {
            let mount = core::ptr::read_volatile(cast(mount).cast::<u32>());
            let rename = core::ptr::read_volatile(cast(rename).cast::<u32>());
            return u64::from(rename) << 32 | u64::from(mount);
        }
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

/// The bits of [`sequence`] that are set while a rename or a mount is going on.
pub const MOVING: u64 = 0x1_0000_0001;

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

/// Whether the character device is the task's own terminal, a pseudo terminal, or what makes them. Consoles and serial
/// lines are others.
#[inline(always)]
pub fn is_terminal(inode: *const u8) -> bool {
    match device(inode) {
        // tty, ptmx
        (5, minor) => matches!(minor, 0 | 2),
        (major, _) => matches!(major, 136..=143),
    }
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
        device: u64::from(number::<u32>(pointer(inode, &INODE_SB), &SB_DEVICE)),
        inode: number(inode, &INODE_NUMBER),
    }
}

/// Whether an object without a name in any mount namespace may be opened: what the agent itself made
/// (pipes, memory files, descriptors of processes), and the layers below an overlay, whose own object was judged already
/// (include/uapi/linux/magic.h).
#[inline(always)]
pub fn nameless_may_open(magic: u64) -> bool {
    const PIPEFS: u64 = 0x5049_5045;
    const TMPFS: u64 = 0x0102_1994;
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
    const SYSFS: u64 = 0x6265_6572;
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
