//! The second layer: whose task is this, what do the tables say, and the record of a refusal, without what only the
//! programs of LSM hooks have. Task storage is not to be had here before Linux 6.16 (`bpf_base_func_proto()`,
//! kernel/bpf/helpers.c), so there are no labels, no scratch and no tickets: a session is known by its cgroup, as
//! every session is at first, and what somebody has granted is known by a note that the hook leaves. Who runs is read
//! from the task itself: programs that see packets have no helpers for that before Linux 6.10.

mod exe;
mod whose;

use crate::{
    emit, maps, net,
    net::Judged,
    object, path,
    subject::{self, Subject},
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_task_pt_regs},
    maps::lpm_trie::Key,
};
use core::{arch::asm, mem::MaybeUninit, ptr::write_volatile};
use enforcer_common::{
    address::Address,
    event::{self, Header, NO_AGENT, flag, kind, operation, reason},
    map::{NetKey, Pass},
    scratch::CALL_REGISTERS,
    verdict::Verdict,
};

use exe::{EXE, name_exe};
pub use whose::{governed, sender};

/// The call goes on.
pub const PASS: i32 = 1;

/// What is asked for.
pub struct Asked {
    /// One of [`operation`].
    pub operation: u16,
    /// The bit of [`enforcer_common::access::net`].
    pub want: u16,
    /// The address, unless it cannot be told.
    pub meant: Option<Address>,
    /// Its port, host byte order.
    pub port: u16,
    /// The socket's protocol.
    pub protocol: u16,
    /// The socket's family.
    pub family: u16,
}

/// As the trie takes it: the length, then the key.
#[repr(C)]
struct Prefix {
    len: u32,
    key: NetKey,
}

/// Judges an address by the rules and says what the program returns.
#[inline(always)]
pub fn answer(subject: &Subject, asked: &Asked) -> i32 {
    let mut prefix = Prefix {
        len: NetKey::FIXED_BITS + 128,
        key: NetKey { policy: 0, family: 0, protocol: asked.protocol as u8, reserved: 0, address: [0; 16] },
    };
    let why = match &asked.meant {
        Some(meant) => {
            prefix.key.family = meant.family;
            prefix.key.address = meant.bytes;
            judge(subject, asked, &mut prefix)
        }
        None => Some(reason::UNKNOWN_OBJECT),
    };
    match why {
        None => PASS,
        Some(reason::HELD) if has_pass(&prefix.key, asked) => PASS,
        // What rules refuse is only recorded, and the hooks have recorded it.
        Some(_) if subject.audits() != 0 || may_be_launching() => PASS,
        Some(_) => refuse(subject, asked.operation, asked.want, 0, |header| {
            header.address = prefix.key.address;
            header.port = asked.port;
            header.protocol = asked.protocol;
            header.family = match prefix.key.family {
                4 => net::INET,
                6 => net::INET6,
                _ => asked.family,
            };
        }),
    }
}

/// Why the rules refuse the address, if they do.
#[inline(always)]
fn judge(subject: &Subject, asked: &Asked, prefix: &mut Prefix) -> Option<u16> {
    let arena = path::arena();
    if subject.policy.is_null() {
        return Some(reason::NO_SESSION);
    }
    if asked.protocol != net::TCP && asked.protocol != net::UDP {
        return Some(reason::RULE);
    }
    // SAFETY: map values; the key is laid out as the trie's.
    unsafe {
        prefix.key.policy = (*subject.policy).id;
        let key = core::ptr::from_ref(prefix).cast::<Key<NetKey>>();
        let Some(value) = maps::PREFIXES.get(&*key) else { return Some(reason::RULE) };
        match net::by_port(subject, arena, value, asked.port, asked.want).0 {
            Judged::Allowed | Judged::First(_) => None,
            Judged::Refused(why) => Some(why),
        }
    }
}

/// Refuses a socket of a kind that no session may have: that is the floor, whatever the policy's mode.
#[inline(always)]
pub fn refuse_socket(subject: &Subject, family: u16, kind: u32, protocol: u16) -> i32 {
    if may_be_launching() {
        return PASS;
    }
    refuse(subject, operation::SOCKET, 0, kind, |header| {
        header.family = family;
        header.protocol = protocol;
    })
}

/// Whether the running task may be one that prepares a session: it runs a named executor as root. Such a task is told
/// from an agent's by its label, which cannot be read here, so the hooks alone decide about it.
#[inline(always)]
fn may_be_launching() -> bool {
    let task = subject::task();
    if uid(task) != 0 {
        return false;
    }
    let exe = object::pointer(object::pointer(task, &object::TASK_MM), &object::MM_EXE);
    let executor = object::file_id(object::pointer(exe, &object::FILE_INODE));
    maps::EXECUTORS.get_ptr(executor).is_some()
}

/// The real user (`bpf_get_current_uid_gid()`, kernel/bpf/helpers.c).
#[inline(always)]
fn uid(task: *const u8) -> u32 {
    object::number(object::pointer(task, &object::TASK_CRED), &object::CRED_UID)
}

/// As `bpf_get_current_pid_tgid()` says it: the process, then the thread.
#[inline(always)]
fn thread(task: *const u8) -> u64 {
    let (tgid, pid): (u32, u32) =
        (object::number(task, &object::TASK_TGID), object::number(task, &object::TASK_PID));
    u64::from(tgid) << 32 | u64::from(pid)
}

/// The id of its cgroup.
#[inline(always)]
fn cgroup(task: *const u8) -> u64 {
    let cgroup = object::pointer(object::pointer(task, &object::TASK_CGROUPS), &object::CSS_SET_CGROUP);
    object::number(object::pointer(cgroup, &object::CGROUP_NODE), &object::NODE_ID)
}

/// The registers at the entry of the running call, from the third argument on (see [`crate::call`]).
#[inline(always)]
fn registers() -> Option<[u64; CALL_REGISTERS]> {
    const DX: u64 = 96;
    let mut found = MaybeUninit::<[u64; CALL_REGISTERS]>::uninit();
    // SAFETY: the helper takes the running task; the other one fills the array or says that it did not.
    unsafe {
        let at = bpf_task_pt_regs(subject::task() as *mut task_struct) as u64 + DX;
        if bpf_probe_read_kernel(found.as_mut_ptr().cast(), 8 * CALL_REGISTERS as u32, at as *const _) != 0 {
            return None;
        }
        Some(found.assume_init())
    }
}

/// Called by the hooks: somebody has granted what the running call asks for and what stands in the scratch.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn let_pass(want: u64) -> u64 {
    let sc = maps::SCRATCH.of_current();
    if sc.is_null() {
        return 0;
    }
    let Some(registers) = registers() else { return 0 };
    // SAFETY: the scratch is not null.
    let (key, port) = unsafe { ((*sc).prefix, (*sc).port) };
    let pass = Pass { registers, key, port, access: want as u16, reserved: 0 };
    // Without the note the call is refused further on.
    let _ = maps::PASSES.insert(thread(subject::task()), pass, 0);
    0
}

/// Takes the note that the hooks have left about this very call and this address, if there is one.
#[inline(always)]
fn has_pass(key: &NetKey, asked: &Asked) -> bool {
    let thread = thread(subject::task());
    let (Some(pass), Some(running)) = (maps::PASSES.get_ptr(thread), registers()) else { return false };
    // SAFETY: a map value.
    let fits = unsafe {
        let mut same = (*pass).port == asked.port
            && (*pass).access == asked.want
            && (*pass).key.policy == key.policy
            && (*pass).key.family == key.family
            && (*pass).key.protocol == key.protocol;
        let mut i = 0;
        while i < 16 {
            same &= (*pass).key.address[i] == key.address[i];
            i += 1;
        }
        let mut i = 0;
        while i < CALL_REGISTERS {
            same &= (*pass).registers[i] == running[i];
            i += 1;
        }
        same
    };
    fits && maps::PASSES.remove(thread).is_ok()
}

/// A record, with room for what a bounded copy may add.
#[repr(C)]
pub struct Refusal {
    header: Header,
    exe: [u8; EXE + 256],
}

/// Records a refusal, and refuses.
#[inline(always)]
fn refuse(
    subject: &Subject,
    operation: u16,
    access: u16,
    argument: u32,
    fill: impl FnOnce(&mut Header),
) -> i32 {
    let Some(mut entry) = maps::DECISIONS.reserve::<Refusal>(0) else {
        emit::lose(subject.session);
        return refused();
    };
    // SAFETY: the ring's memory is as long as the record; map values; typed loads start at the running task.
    unsafe {
        let record = entry.as_mut_ptr();
        let words = record.cast::<u64>();
        let mut i = 0;
        while i < size_of::<Header>() / 8 {
            write_volatile(words.add(i), 0);
            i += 1;
        }
        let header = &mut (*record).header;
        header.version = event::VERSION;
        header.kind = kind::DECISION;
        header.verdict = Verdict::Deny as u16;
        header.reason = reason::SECOND_LAYER;
        header.error = emit::EPERM;
        header.operation = operation;
        header.access = u32::from(access);
        header.argument = argument;
        header.agent = NO_AGENT;
        if subject.flags != 0 {
            header.flags |= flag::STRAY;
        }
        if !subject.session.is_null() {
            header.agent = (*subject.session).agent;
            header.session = (*subject.session).id;
            header.trust = (*subject.session).tiers.level;
        }
        if !subject.policy.is_null() {
            header.policy = (*subject.policy).id;
        }
        fill(header);
        let task = subject::task();
        header.time = bpf_ktime_get_boot_ns();
        header.cgroup = cgroup(task);
        header.tgid = object::number(task, &object::TASK_TGID);
        header.pid = object::number(task, &object::TASK_PID);
        header.uid = uid(task);
        header.parent = object::number(object::pointer(task, &object::TASK_PARENT), &object::TASK_TGID);
        header.started = object::number(object::pointer(task, &object::TASK_LEADER), &object::TASK_START);
        header.comm = object::number(task, &object::TASK_COMM);
        let len = name_exe((&raw mut (*record).exe).cast(), task);
        if len == 0 {
            header.flags |= flag::EXE_CUT;
        }
        header.exe_len = len as u16;
        header.length = size_of::<Header>() as u32 + len as u32;
    }
    entry.submit(0);
    refused()
}

/// The call fails with EPERM; a constant that the verifier can see.
#[inline(always)]
fn refused() -> i32 {
    let value: i64;
    // SAFETY: one BPF move into a register.
    unsafe { asm!("{0} = 0", out(reg) value, options(nomem, nostack)) };
    value as i32
}
