//! What exactly is asked for: the names and the object, as a key that only the same request has.

use super::hash;
use crate::{
    emit, maps,
    object::{self, peek},
    path,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns};
use enforcer_common::{
    event::{Header, operation},
    limits,
    scratch::{ASKED_WORDS, Scratch},
};

/// Bytes that the executable's path needs at least.
const EXE_ROOM: u64 = 512;

/// Puts the names into the record and makes the request's key. Non-zero: what is asked for cannot be said
/// exactly, so nobody can be asked.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn identify(sc: *mut Scratch) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() {
        return 1;
    }
    // SAFETY: map memory. What is read of the kernel goes through `peek`.
    unsafe {
        let header = record.cast::<Header>();
        let words = (&raw mut (*sc).asking.words).cast::<u64>();
        let mut i = 0;
        while i < ASKED_WORDS {
            words.add(i).write_volatile(0);
            i += 1;
        }
        let dentry = core::ptr::read_volatile(&raw const (*sc).dentry);
        if dentry != 0 {
            if identity(sc, dentry, 8) != 0 {
                return 1;
            }
            (*header).device = words.add(8).read_volatile() & 0xffff_ffff;
            (*header).inode = words.add(9).read_volatile();
            if name(sc, limits::PATH as u64) != 0 {
                return 1;
            }
        } else if !has_address(&*header) {
            return 1;
        }
        let object_end = core::ptr::read_volatile(&raw const (*sc).used);
        (*header).object_len = (object_end - size_of::<Header>() as u64) as u16;
        let target = core::ptr::read_volatile(&raw const (*sc).asking.target[0]);
        if target != 0 {
            core::ptr::write_volatile(&raw mut (*sc).dentry, target);
            let mount = core::ptr::read_volatile(&raw const (*sc).asking.target[1]);
            core::ptr::write_volatile(&raw mut (*sc).mount, mount);
            if identity(sc, target, 12) != 0 || name(sc, limits::PATH as u64) != 0 {
                return 1;
            }
        }
        if (*header).operation == operation::ARGUMENTS {
            // Each run of a program is a request of its own.
            words.add(12).write_volatile(bpf_get_current_pid_tgid());
            words.add(13).write_volatile(bpf_ktime_get_boot_ns());
        }
        let end = core::ptr::read_volatile(&raw const (*sc).used);
        (*header).target_len = (end - object_end) as u16;
        // The names are there; `send` only adds the executable.
        core::ptr::write_volatile(&raw mut (*sc).dentry, 0);
        if !hash::begin(sc) {
            return 1;
        }
        hash::absorb(sc, u64::from((*header).object_len) << 32 | u64::from((*header).target_len));
        hash::absorb(sc, (*header).session[0]);
        hash::absorb(sc, (*header).session[1]);
        if !hash::absorb_names(sc, (end - size_of::<Header>() as u64 + 7) / 8) {
            return 1;
        }
        (*sc).asking.names = hash::finish(sc);

        words.write_volatile((*sc).asking.names[0]);
        words.add(1).write_volatile((*sc).asking.names[1]);
        words.add(2).write_volatile(u64::from((*header).operation));
        let mut i = 0;
        while i < 4 {
            words.add(16 + i).write_volatile((*sc).asking.policy[i]);
            i += 1;
        }
        words.add(3).write_volatile(u64::from((*header).access) << 32 | u64::from((*header).argument));
        let address = (&raw const (*header).address).cast::<u64>();
        words.add(4).write_volatile(address.read_unaligned());
        words.add(5).write_volatile(address.add(1).read_unaligned());
        let (port, protocol) = (u64::from((*header).port), u64::from((*header).protocol));
        words.add(6).write_volatile(port << 32 | protocol << 16 | u64::from((*header).family));
        hash::begin(sc);
        let mut i = 0;
        while i < ASKED_WORDS {
            hash::absorb(sc, words.add(i).read_volatile());
            i += 1;
        }
        (*sc).asking.id = hash::finish(sc);
    }
    0
}

/// Whether the request is about an address that can be shown.
#[inline(always)]
fn has_address(header: &Header) -> bool {
    use crate::net::{INET, INET6};
    matches!(header.operation, operation::CONNECT | operation::SEND | operation::BIND | operation::LISTEN)
        && matches!(header.family, INET | INET6)
}

/// Appends the object's name to the record. Non-zero: it cannot be told, or not whole.
#[inline(always)]
unsafe fn name(sc: *mut Scratch, room: u64) -> u64 {
    // SAFETY: map memory.
    unsafe {
        let used = core::ptr::read_volatile(&raw const (*sc).used);
        if path::climb(sc) != path::outcome::KNOWN || emit::render(sc, room) != 0 {
            return 1;
        }
        // A hash is over whole words: what follows the last byte must not depend on an earlier record.
        let record = maps::RECORDS.of_current();
        let end = core::ptr::read_volatile(&raw const (*sc).used);
        let Some(end) = crate::verifier::below::<8191>(end, emit::RECORD_END - EXE_ROOM) else { return 1 };
        if record.is_null() || end == used {
            return 1;
        }
        let tail = record.cast::<u8>().add(end as usize);
        let mut i = 0;
        while i < 8 {
            tail.add(i).write_volatile(0);
            i += 1;
        }
        0
    }
}

/// Device, inode and generation of the object with this name, or of the directory that it will be in, as four
/// words from `at` on. For a program, its last change too: what was approved is what runs. Non-zero: it cannot be
/// told, or is being written to.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn identity(sc: *mut Scratch, dentry: u64, at: u64) -> u64 {
    let record = maps::RECORDS.of_current();
    if sc.is_null() || record.is_null() || at > 12 {
        return 1;
    }
    // SAFETY: map memory, within the words.
    unsafe {
        let words = (&raw mut (*sc).asking.words).cast::<u64>().add(at as usize);
        let Some(mut inode) = peek::<u64>(dentry + object::DENTRY_INODE.get() as u64) else { return 1 };
        let mut new = 0;
        if inode == 0 {
            new = 1 << 63;
            let Some(parent) = peek::<u64>(dentry + object::DENTRY_PARENT.get() as u64) else { return 1 };
            let Some(directory) = peek::<u64>(parent + object::DENTRY_INODE.get() as u64) else { return 1 };
            inode = directory;
        }
        let Some(sb) = peek::<u64>(inode + object::INODE_SB.get() as u64) else { return 1 };
        let Some(device) = peek::<u32>(sb + object::SB_DEVICE.get() as u64) else { return 1 };
        let Some(number) = peek::<u64>(inode + object::INODE_NUMBER.get() as u64) else { return 1 };
        let Some(generation) = peek::<u32>(inode + object::INODE_GENERATION.get() as u64) else { return 1 };
        words.write_volatile(u64::from(device) | new);
        words.add(1).write_volatile(number);
        words.add(2).write_volatile(u64::from(generation));
        if (*record.cast::<Header>()).operation == operation::EXEC {
            let Some(seconds) = peek::<u64>(inode + object::INODE_CHANGED.get() as u64) else { return 1 };
            let nanos = object::INODE_CHANGED_NANOS.get() as u64;
            let Some(nanos) = peek::<u32>(inode + nanos) else { return 1 };
            let Some(writers) = peek::<u32>(inode + object::INODE_WRITERS.get() as u64) else { return 1 };
            // Below zero: it is being executed. Above: somebody can write to it.
            if writers as i32 > 0 {
                return 1;
            }
            // The highest bit says that somebody has looked at it (I_CTIME_QUERIED, include/linux/fs.h).
            words.add(3).write_volatile(seconds << 31 ^ u64::from(nanos & 0x7fff_ffff));
        }
    }
    0
}
