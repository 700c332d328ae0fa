//! Keys in the kernel's keyrings. A session has keyrings of its own; those of its user are everybody's
//! who has that user.

use super::armed;
use crate::{
    call,
    emit::{Denial, refuse},
    object,
    verifier::errno,
};
use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_func_arg, macros::lsm, programs::LsmContext};
use enforcer_common::{
    event::{operation, reason},
    floor,
};

/// Using a key or a keyring. Refusing the user's keyrings closes what lies in them, too: searches do
/// not descend into what may not be searched (`search_nested_keyrings()`, security/keys/keyring.c).
#[lsm(hook = "key_permission")]
pub fn key_permission(ctx: LsmContext) -> i32 {
    let Some(subject) = armed() else { return 0 };
    let mut reference = 0u64;
    // By the helper: the argument's type is incomplete, and the verifier does not let it be read.
    // SAFETY: the helper takes the context and writes one word.
    let read = unsafe { bpf_get_func_arg(ctx.as_ptr(), 0, &raw mut reference) };
    // The lowest bit of a reference says that the caller possesses the key (include/linux/key.h).
    let key = reference & !1;
    if read == 0 && !is_shared(key) || subject.has(floor::USER_KEYRINGS) {
        return 0;
    }
    let mut denial = Denial::of(operation::KEY, reason::FLOOR, 0);
    denial.check = call::REPEATED;
    errno(refuse(&subject, &denial))
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
