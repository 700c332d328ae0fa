//! Keys in the kernel's keyrings. A session has keyrings of its own; those of its user are everybody's
//! who has that user.

use super::armed;
use crate::{
    call,
    emit::{Denial, refuse},
    object,
    verifier::{argument, errno},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::{
    event::{operation, reason},
    floor,
};

/// Using a key or a keyring. Refusing the user's keyrings closes what lies in them, too: searches do
/// not descend into what may not be searched (`search_nested_keyrings()`, security/keys/keyring.c).
#[lsm(hook = "key_permission")]
pub fn key_permission(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    // The lowest bit of a reference says that the key was found in keyrings of the caller (include/linux/key.h): others'
    // can be named by their numbers. As a number: the argument's type is incomplete, and the verifier does not let it be
    // read.
    let own = argument(&ctx, 0).is_some_and(|reference| reference & 1 != 0 && !is_shared(reference & !1));
    if own || subject.has(floor::USER_KEYRINGS) {
        return 0;
    }
    let mut denial = Denial::of(operation::KEY, reason::FLOOR, 0);
    denial.check = call::REPEATED;
    errno(refuse(&subject, &denial))
}

/// A key that is not there is asked for by running a program, as root and outside of every cgroup of agents
/// (`call_sbin_request_key()`, security/keys/request_key.c): first the authorisation for it is made, a key of a type
/// of its own.
#[lsm(hook = "key_alloc")]
pub fn key_alloc(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    // A file system of the network asks with credentials of its own, for names of users and hosts.
    let borrowed = subject.acts_for_others();
    if borrowed || argument(&ctx, 0).is_some_and(|key| !is_authorisation(key)) {
        return 0;
    }
    errno(refuse(&subject, &Denial::of(operation::KEY, reason::FLOOR, 0)))
}

/// Whether the key has the type `.request_key_auth` (security/keys/request_key_auth.c). What cannot be read has.
#[inline(always)]
fn is_authorisation(key: u64) -> bool {
    let Some(kind) = object::peek::<u64>(key + object::KEY_TYPE.get() as u64) else { return true };
    let Some(name) = object::peek::<u64>(kind + object::KEY_TYPE_NAME.get() as u64) else { return true };
    object::peek::<[u8; 8]>(name).is_none_or(|text| text == *b".request")
}

/// Credentials without an owner are made for one purpose: to give the parent process, which may be outside, the
/// caller's session keyring (`keyctl_session_to_parent()`, security/keys/keyctl.c).
#[lsm(hook = "cred_alloc_blank")]
pub fn cred_alloc_blank(_: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    errno(refuse(&subject, &Denial::of(operation::KEY, reason::FLOOR, 0)))
}

/// Whether the key is named like the keyrings that all processes of a user have: `_uid.N`, `_uid_ses.N`,
/// `_persistent.N` (security/keys/process_keys.c, persistent.c). What cannot be read is.
#[inline(always)]
fn is_shared(key: u64) -> bool {
    let Some(text) = object::peek::<u64>(key + object::KEY_DESCRIPTION.get() as u64) else { return true };
    if text == 0 {
        return false;
    }
    match object::peek::<[u8; 4]>(text) {
        Some(name) => name == *b"_uid" || name == *b"_per",
        None => true,
    }
}
