//! Under which name do rules know a unix socket? A bound one by the path of the file that it is bound
//! to, an abstract one by its name.

use crate::{
    maps,
    object::{self, peek},
    path::{self, States},
    subject::Subject,
    verifier::bound,
};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use enforcer_common::{access::file::ABSTRACT, limits::GROUPS, scratch::Scratch};

/// What is known of a socket's name.
pub struct Name {
    /// Where the automata end after it, or `None`: it has no name, or one that cannot be told.
    pub states: Option<States>,
    /// Dentry of the file that it is bound to, or 0.
    pub dentry: u64,
    /// Mount of that file.
    pub mount: u64,
}

/// The name of the socket at `sock`, a `struct unix_sock`.
///
/// The mount is the one through which whoever bound the socket saw its file: a socket of another mount
/// namespace has no name here.
#[inline(always)]
pub fn name(subject: &Subject, sock: *const u8) -> Name {
    let nothing = Name { states: None, dentry: 0, mount: 0 };
    let sc = path::begin(subject, 0, 0);
    if sc.is_null() {
        return nothing;
    }
    // SAFETY: not null. Through memory the address is a number, which the verifier lets be added to.
    let sock = unsafe {
        core::ptr::write_volatile(&raw mut (*sc).address, sock as u64);
        core::ptr::read_volatile(&raw const (*sc).address)
    };
    let at = sock + object::UNIX_PATH.get() as u64;
    let Some(mount) = peek::<u64>(at + object::PATH_MOUNT.get() as u64) else { return nothing };
    let Some(dentry) = peek::<u64>(at + object::PATH_DENTRY.get() as u64) else { return nothing };
    if sock == 0 {
        return nothing;
    }
    if dentry != 0 {
        return Name { states: path::states_uncached(subject, dentry, mount).ok(), dentry, mount };
    }
    if abstract_name(sc) != 0 {
        return nothing;
    }
    // SAFETY: not null.
    let object = unsafe { &(*sc).object };
    Name { states: Some([object[0], object[1], object[2]]), ..nothing }
}

/// Whether the file with this dentry is the socket at which sessions ask about themselves.
#[inline(always)]
pub fn is_agent_socket(dentry: u64) -> bool {
    let gate = maps::gate();
    // SAFETY: a map value.
    let [number, device] = unsafe { core::ptr::read_volatile(&raw const (*gate).agent_socket) };
    if dentry == 0 || number == 0 {
        return false;
    }
    let Some(inode) = peek::<u64>(dentry + object::DENTRY_INODE.get() as u64) else { return false };
    let Some(sb) = peek::<u64>(inode + object::INODE_SB.get() as u64) else { return false };
    peek::<u64>(inode + object::INODE_NUMBER.get() as u64) == Some(number)
        && peek::<u32>(sb + object::SB_DEVICE.get() as u64).map(u64::from) == Some(device)
}

/// Runs the automata over the abstract name of the socket at `sc.address`. Non-zero: it has none.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn abstract_name(sc: *mut Scratch) -> u64 {
    if sc.is_null() {
        return 1;
    }
    // SAFETY: `sc` is the task's scratch.
    unsafe {
        let at = (*sc).address + object::UNIX_ADDRESS.get() as u64;
        let Some(address) = peek::<u64>(at) else { return 1 };
        if address == 0 {
            return 1;
        }
        let Some(len) = peek::<u32>(address + object::UNIX_LEN.get() as u64) else { return 1 };
        // The family comes first, then a zero byte, then the name (struct sockaddr_un).
        const BEFORE: u32 = 3;
        const LONGEST: u32 = 107;
        let path = address + object::UNIX_NAME.get() as u64 + u64::from(BEFORE);
        let (Some(zero), true) = (peek::<u8>(path - 1), len > BEFORE) else { return 1 };
        if zero != 0 || len - BEFORE > LONGEST {
            return 1;
        }
        let len = u64::from(len - BEFORE);
        (*sc).address = path;
        if has_zero(sc, len) {
            return 1;
        }
        let slot = (*sc).policy as u32;
        let arena = path::arena();
        let Some(policy) = maps::POLICIES.get_ptr(slot) else { return 1 };
        let groups = u64::from((*policy).groups);
        let mut group = 0u64;
        while group < GROUPS as u64 {
            if group >= groups {
                break;
            }
            let turn = bound::<3>(group) as usize;
            let first = u64::from(*(&raw const (*policy).start).cast::<u32>().add(turn));
            let behind = path::step(arena, path::class_table(policy, group), first, ABSTRACT);
            let state = path::run_name(sc, slot, group, behind, len);
            if state == u64::MAX {
                return 1;
            }
            core::ptr::write_volatile((&raw mut (*sc).object).cast::<u32>().add(turn), state as u32);
            group += 1;
        }
        0
    }
}

/// Whether a zero byte is among the `len` bytes of the name at `sc.address`, or they cannot be read:
/// automata do not know it.
#[inline(always)]
unsafe fn has_zero(sc: *mut Scratch, len: u64) -> bool {
    // SAFETY: `sc` is not null; the buffer has room for 127 bytes.
    unsafe {
        let len = bound::<127>(len);
        let name = (&raw mut (*sc).name).cast::<u8>();
        if bpf_probe_read_kernel(name.cast(), len as u32, (*sc).address as *const _) != 0 {
            return true;
        }
        let mut i = 0u64;
        while i < 127 {
            if i < len && core::ptr::read_volatile(name.add(i as usize)) == 0 {
                return true;
            }
            i += 1;
        }
        false
    }
}
