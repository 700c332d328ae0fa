//! The filter of a session, in the kernel's classic BPF: made of the table of calls, nothing read or asked.

use super::calls::{Calls, Refused};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The compiler refuses it.
    #[error(transparent)]
    Compiler(#[from] seccompiler::BackendError),
    /// It begins in another way than this version of the compiler's.
    #[error("the compiler's filter begins in an unknown way")]
    Shape,
}

/// Instructions of linux/bpf_common.h and linux/filter.h that are used here.
mod code {
    /// `A = seccomp_data[k]`
    pub const LOAD: u16 = 0x20;
    /// Goes on by `k`.
    pub const GO: u16 = 0x05;
    /// `A == k`
    pub const EQUAL: u16 = 0x15;
    /// `A >= k`
    pub const NOT_LESS: u16 = 0x35;
    /// `A & k`
    pub const ANY_BIT: u16 = 0x45;
    pub const RETURN: u16 = 0x06;
}

/// `seccomp_data.nr`, include/uapi/linux/seccomp.h
const NUMBER: u32 = 0;
/// `seccomp_data.arch`
const ARCHITECTURE: u32 = 4;
/// `seccomp_data.args`: eight bytes each, of which 32-bit programs fill the first four.
const ARGUMENTS: u32 = 16;
/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_I386`, include/uapi/linux/audit.h
const WIDE: u32 = 0xc000_003e;
const NARROW: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`: the same kernel calls by other numbers.
const X32: u32 = 0x4000_0000;

const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

fn load(k: u32) -> sock_filter {
    sock_filter { code: code::LOAD, jt: 0, jf: 0, k }
}

fn answer(k: u32) -> sock_filter {
    sock_filter { code: code::RETURN, jt: 0, jf: 0, k }
}

/// Skips `jf` instructions unless the test holds.
fn unless(code: u16, k: u32, jf: u8) -> sock_filter {
    sock_filter { code, jt: 0, jf, k }
}

/// The program that refuses these calls and allows all others. The kernel finds out by itself which numbers it
/// always allows, and does not run it for them (`seccomp_cache_prepare()`, kernel/seccomp.c).
pub fn program(calls: &Calls) -> Result<BpfProgram, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in &calls.native {
        rules.insert(call.number, conditions(call)?);
    }
    let errno = SeccompAction::Errno(libc::EPERM as u32);
    let native: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, errno, TargetArch::x86_64)?.try_into()?;
    // The compiler's first three instructions end everybody who is not of one architecture. Here 32-bit programs
    // have a part of their own, and what x32 is to another filter is refused.
    let [load_arch, is_wide, kill, body @ ..] = native.as_slice() else { return Err(FilterError::Shape) };
    let expected = load_arch.code == code::LOAD
        && load_arch.k == ARCHITECTURE
        && (is_wide.code, is_wide.k, is_wide.jt) == (code::EQUAL, WIDE, 1)
        && (kill.code, kill.k) == (code::RETURN, libc::SECCOMP_RET_KILL_PROCESS);
    if !expected {
        return Err(FilterError::Shape);
    }
    let narrow = narrow(calls);
    let mut all = vec![
        load(ARCHITECTURE),
        unless(code::EQUAL, WIDE, 1),
        sock_filter { code: code::GO, jt: 0, jf: 0, k: narrow.len() as u32 },
    ];
    all.extend(narrow);
    all.extend([load(NUMBER), unless(code::NOT_LESS, X32, 1), answer(ENOSYS)]);
    if calls.no_clone3 {
        all.extend([unless(code::EQUAL, libc::SYS_clone3 as u32, 1), answer(ENOSYS)]);
    }
    all.extend_from_slice(body);
    Ok(all)
}

/// One rule for each bit: the compiler has no "any of these".
fn conditions(call: &Refused<i64>) -> Result<Vec<SeccompRule>, FilterError> {
    let Some((argument, bits)) = call.bits else { return Ok(Vec::new()) };
    let set = (0..32).map(|n| 1u64 << n).filter(|bit| u64::from(bits) & bit != 0);
    let rule = |bit: u64| {
        let any = SeccompCmpOp::MaskedEq(bit);
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, any, bit)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    set.map(rule).collect()
}

/// The part for 32-bit programs. Whoever is of yet another architecture is none of this kernel's.
fn narrow(calls: &Calls) -> BpfProgram {
    /// clone3(2) has one number everywhere.
    const CLONE3: u32 = 435;
    // The architecture is loaded already.
    let mut part = vec![
        sock_filter { code: code::EQUAL, jt: 1, jf: 0, k: NARROW },
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    if calls.no_clone3 {
        part.extend([unless(code::EQUAL, CLONE3, 1), answer(ENOSYS)]);
    }
    for call in calls.narrow.iter().filter(|call| call.bits.is_none()) {
        part.extend([unless(code::EQUAL, call.number, 1), answer(EPERM)]);
    }
    for (call, (argument, bits)) in calls.narrow.iter().filter_map(|call| Some((call, call.bits?))) {
        part.extend([
            unless(code::EQUAL, call.number, 4),
            load(ARGUMENTS + 8 * u32::from(argument)),
            unless(code::ANY_BIT, bits, 1),
            answer(EPERM),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    part.push(answer(libc::SECCOMP_RET_ALLOW));
    part
}

#[cfg(test)]
mod tests {
    use super::{super::calls::refused, *};
    use crate::policy::Seccomp;
    use enforcer_common::floor::Grants;

    /// What the kernel would do with a call.
    fn run(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |at: u32| match at {
            NUMBER => number,
            ARCHITECTURE => arch,
            _ => {
                let argument = arguments[((at - ARGUMENTS) / 8) as usize];
                (if at.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                code::LOAD => a = word(step.k),
                code::GO => at += step.k as usize,
                code::EQUAL => at += jump(a == step.k),
                code::NOT_LESS => at += jump(a >= step.k),
                code::ANY_BIT => at += jump(a & step.k != 0),
                0x54 => a &= step.k,
                code::RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn all() -> BpfProgram {
        let calls = refused(Seccomp::All, Grants::default(), true).expect("a filter");
        program(&calls).expect("it compiles")
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn every_call_of_the_table_is_refused_to_both_kinds_of_programs() {
        let (filter, calls) = (all(), refused(Seccomp::All, Grants::default(), true).expect("a filter"));
        for call in &calls.native {
            let number = u32::try_from(call.number).expect("a number");
            assert_eq!(run(&filter, WIDE, number, [u64::MAX; 6]), EPERM, "{number}");
            let harmless = if call.bits.is_some() { ALLOW } else { EPERM };
            assert_eq!(run(&filter, WIDE, number, [0; 6]), harmless, "{number}");
        }
        for call in &calls.narrow {
            assert_eq!(run(&filter, NARROW, call.number, [u64::MAX; 6]), EPERM, "{}", call.number);
            let harmless = if call.bits.is_some() { ALLOW } else { EPERM };
            assert_eq!(run(&filter, NARROW, call.number, [0; 6]), harmless, "{}", call.number);
        }
    }

    #[test]
    fn nothing_else_is_refused() {
        let (filter, calls) = (all(), refused(Seccomp::All, Grants::default(), true).expect("a filter"));
        for number in 0..500u32 {
            let listed = calls.native.iter().any(|call| call.number == i64::from(number));
            if !listed && i64::from(number) != libc::SYS_clone3 {
                assert_eq!(run(&filter, WIDE, number, [u64::MAX; 6]), ALLOW, "{number}");
            }
            if !calls.narrow.iter().any(|call| call.number == number) && number != 435 {
                assert_eq!(run(&filter, NARROW, number, [u64::MAX; 6]), ALLOW, "{number}");
            }
        }
    }

    #[test]
    fn namespaces_are_told_from_threads_and_forks() {
        let filter = all();
        let clone = libc::SYS_clone as u32;
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_THREAD;
        for (flags, answer) in [
            (thread, ALLOW),
            (libc::SIGCHLD, ALLOW),
            (libc::CLONE_NEWUSER | libc::SIGCHLD, EPERM),
            (libc::CLONE_NEWNS, EPERM),
            (libc::CLONE_NEWCGROUP, EPERM),
        ] {
            assert_eq!(run(&filter, WIDE, clone, [flags as u64, 0, 0, 0, 0, 0]), answer, "{flags:#x}");
        }
        let unshare = libc::SYS_unshare as u32;
        assert_eq!(run(&filter, WIDE, unshare, [libc::CLONE_FILES as u64, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(run(&filter, WIDE, unshare, [0x80, 0, 0, 0, 0, 0]), EPERM, "a time namespace");
        assert_eq!(run(&filter, WIDE, libc::SYS_clone3 as u32, [0; 6]), ENOSYS);
        assert_eq!(run(&filter, NARROW, 435, [0; 6]), ENOSYS);
    }

    #[test]
    fn x32_is_no_way_round_and_strangers_end() {
        let filter = all();
        for number in [X32 | libc::SYS_bpf as u32, X32 | libc::SYS_read as u32, u32::MAX] {
            assert_eq!(run(&filter, WIDE, number, [0; 6]), ENOSYS);
        }
        assert_eq!(run(&filter, 0xc000_00b7, 0, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
