//! The second layer: whose task is this, what do the tables say, and the record of a refusal, without what only the
//! programs of LSM hooks have. Task storage is not to be had here before Linux 6.16 (`bpf_base_func_proto()`,
//! kernel/bpf/helpers.c), so there are no labels, no scratch and no tickets: a session is known by its cgroup, as
//! every session is at first, and what somebody has granted is known by a note that the hook leaves.

use crate::{
    emit,
    gate::decides,
    maps, net,
    net::Judged,
    object, path,
    subject::{self, Subject},
};
use aya_ebpf::{
    bindings::task_struct,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm,
            bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_task_pt_regs,
        },
    },
    maps::lpm_trie::Key,
};
use core::{arch::asm, mem::MaybeUninit, ptr::write_volatile};
use enforcer_common::{
    address::Address,
    event::{self, Header, NO_AGENT, flag, kind, operation, reason},
    limits,
    map::{NO_SESSION, NetKey, Pass, ROOT_SHARED},
    scratch::CALL_REGISTERS,
    verdict::Verdict,
};

/// The call goes on.
pub const PASS: i32 = 1;

/// What [`session_here`] says beside the slot of a session.
mod here {
    /// Nobody's task, or not for these programs to decide.
    pub(super) const OUTSIDE: u64 = 1 << 32;
    /// Beside a slot: the task lives outside every root.
    pub(super) const STRAY: u64 = 1 << 33;
}

/// The running task, if rules apply to it. A launching task cannot be told yet: see [`may_be_launching`].
#[inline(always)]
pub fn governed() -> Option<Subject> {
    let found = session_here();
    if found & here::OUTSIDE != 0 {
        return None;
    }
    let mut subject = subject::in_session(found as u32);
    // No other flag is of use here.
    subject.flags = (found >> 33) as u32 & 1;
    Some(subject)
}

/// The session of the nearest cgroup that has one. Slot 0 is a governed task that has none.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn session_here() -> u64 {
    let gate = maps::gate();
    // SAFETY: map values and the running task, read only.
    unsafe {
        if !decides(gate) {
            return here::OUTSIDE;
        }
        // Most sessions are one cgroup.
        let id = bpf_get_current_cgroup_id();
        if let Some(slot) = maps::SESSION_OF.get_ptr(id) {
            return u64::from(*slot);
        }
        let mut level = limits::SESSION_LEVEL;
        while level > 0 {
            let id = bpf_get_current_ancestor_cgroup_id(level as i32);
            if id != 0
                && let Some(slot) = maps::SESSION_OF.get_ptr(id)
            {
                return u64::from(*slot);
            }
            level -= 1;
        }
        let mut i = 0;
        while i < limits::ROOTS {
            let root = &raw const (*gate).root[i];
            if (*root).level == 0 {
                break;
            }
            let id = bpf_get_current_ancestor_cgroup_id((*root).level as i32);
            if id != 0 && id == (*root).id {
                return if (*root).flags & ROOT_SHARED != 0 { here::OUTSIDE } else { u64::from(NO_SESSION) };
            }
            i += 1;
        }
        // Somebody outside uses a socket that was made inside, or an agent's process was moved out.
        if (*gate).strays == 0 {
            return here::OUTSIDE;
        }
        let key = subject::stray_key(subject::task());
        let Some(label) = maps::STRAYS.get_ptr(key) else { return here::OUTSIDE };
        match maps::SESSIONS.get_ptr((*label).slot) {
            Some(session) if (*session).generation == (*label).generation => {
                u64::from((*label).slot) | here::STRAY
            }
            _ => u64::from(NO_SESSION) | here::STRAY,
        }
    }
}

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
            Judged::Allowed => None,
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
    if bpf_get_current_uid_gid() as u32 != 0 {
        return false;
    }
    let exe = object::pointer(object::pointer(subject::task(), &object::TASK_MM), &object::MM_EXE);
    let executor = object::file_id(object::pointer(exe, &object::FILE_INODE));
    maps::EXECUTORS.get_ptr(executor).is_some()
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
    let _ = maps::PASSES.insert(bpf_get_current_pid_tgid(), pass, 0);
    0
}

/// Takes the note that the hooks have left about this very call and this address, if there is one.
#[inline(always)]
fn has_pass(key: &NetKey, asked: &Asked) -> bool {
    let thread = bpf_get_current_pid_tgid();
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

/// Bytes for the path of the executable.
const EXE: usize = 512;
/// Directories and mounts above the executable that are followed.
const STEPS: u32 = 16;

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
        let ids = bpf_get_current_pid_tgid();
        header.time = bpf_ktime_get_boot_ns();
        header.cgroup = bpf_get_current_cgroup_id();
        header.tgid = (ids >> 32) as u32;
        header.pid = ids as u32;
        header.uid = bpf_get_current_uid_gid() as u32;
        header.parent = object::number(object::pointer(task, &object::TASK_PARENT), &object::TASK_TGID);
        header.started = object::number(object::pointer(task, &object::TASK_LEADER), &object::TASK_START);
        bpf_get_current_comm((&raw mut header.comm).cast(), 16);
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

/// Where a walk from the executable up to the root of its mount namespace stands.
struct Climb {
    dentry: u64,
    /// `struct mount *`.
    mount: u64,
}

impl Climb {
    #[inline(always)]
    fn begin(task: *const u8) -> Self {
        let exe = object::pointer(object::pointer(task, &object::TASK_MM), &object::MM_EXE);
        let at = exe.wrapping_add(object::FILE_PATH.get());
        let mount = object::pointer(at, &object::PATH_MOUNT) as u64;
        Self {
            dentry: object::pointer(at, &object::PATH_DENTRY) as u64,
            mount: mount.wrapping_sub(object::MOUNT_VFSMOUNT.get() as u64),
        }
    }

    /// One step up. `None`: it cannot be told.
    #[inline(always)]
    fn step(&mut self) -> Option<Step> {
        let vfsmount = self.mount + object::MOUNT_VFSMOUNT.get() as u64;
        let root = word(vfsmount + object::VFSMOUNT_ROOT.get() as u64)?;
        if self.dentry != root {
            let found = self.dentry;
            self.dentry = word(found + object::DENTRY_PARENT.get() as u64)?;
            return Some(Step::Component(found));
        }
        let parent = word(self.mount + object::MOUNT_PARENT.get() as u64)?;
        if parent == self.mount {
            return Some(Step::End);
        }
        self.dentry = word(self.mount + object::MOUNT_POINT.get() as u64)?;
        self.mount = parent;
        Some(Step::Crossed)
    }
}

enum Step {
    /// The dentry of a component.
    Component(u64),
    /// From a mount to where it lies.
    Crossed,
    /// There is nothing above.
    End,
}

/// Eight bytes at a plain address.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the helper fills the value or says that it did not.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, address as *const _) };
    if failed == 0 { Some(value) } else { None }
}

#[inline(always)]
fn length(dentry: u64) -> Option<u64> {
    let mut value = 0u32;
    let at = dentry + object::DENTRY_LEN.get() as u64;
    // SAFETY: as in `word`.
    let failed = unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 4, at as *const _) };
    if failed == 0 && value <= 255 { Some(value.into()) } else { None }
}

/// Bytes of the executable's path, or 0 if it cannot be told or does not fit. Verified by itself: what the way up is
/// known to be must not be multiplied with what the second way is.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn exe_length() -> u64 {
    let mut total = 0;
    let mut climb = Climb::begin(subject::task());
    let mut i = 0;
    while i < STEPS {
        match climb.step() {
            Some(Step::Component(dentry)) => match length(dentry) {
                Some(len) => total += len + 1,
                None => return 0,
            },
            Some(Step::Crossed) => {}
            Some(Step::End) => return if total > EXE as u64 { 0 } else { total },
            None => return 0,
        }
        i += 1;
    }
    0
}

/// Writes the executable's path to `to`, which is as long as [`Refusal`] says. The way up is gone twice, first for the
/// length: there is no memory for the components. Returns 0 if the path cannot be told or does not fit.
#[inline(always)]
unsafe fn name_exe(to: *mut u8, task: *const u8) -> u64 {
    use crate::verifier::bound;
    let total = exe_length();
    let mut end = total;
    let mut climb = Climb::begin(task);
    let mut i = 0;
    while i < STEPS {
        let dentry = match climb.step() {
            Some(Step::Component(dentry)) => dentry,
            Some(Step::Crossed) => 0,
            Some(Step::End) => break,
            None => return 0,
        };
        i += 1;
        if dentry == 0 {
            continue;
        }
        let (Some(len), Some(name)) = (length(dentry), word(dentry + object::DENTRY_NAME.get() as u64))
        else {
            return 0;
        };
        // Renamed meanwhile.
        if len + 1 > end {
            return 0;
        }
        // The same range in every round, so that the verifier sees the same state again.
        end = bound::<{ 2 * EXE as i32 - 1 }>(end - (len + 1));
        let at = bound::<{ EXE as i32 - 1 }>(end) as usize;
        let len = bound::<255>(len);
        // SAFETY: there is room for the longest name behind the last place.
        unsafe {
            write_volatile(to.add(at), b'/');
            if bpf_probe_read_kernel(to.add(at).add(1).cast(), len as u32, name as *const _) != 0 {
                return 0;
            }
        }
    }
    if end == 0 { total } else { 0 }
}
