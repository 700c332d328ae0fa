//! Pseudo terminals that sessions make: noted as they are made, since nothing about a terminal says who did.
//!
//! They are known by the address of their inode, like objects of System V IPC, until they are taken away. Whoever makes one
//! at an address that was used before says whose it is now.

use super::armed;
use crate::{
    maps,
    object::{self, peek},
    subject,
};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_get_func_ret,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

/// The name in devpts was made, by `open` of `/dev/ptmx`; nobody can open it before that call is over.
#[fexit(function = "devpts_pty_new")]
pub fn devpts_pty_new(ctx: FExitContext) -> i32 {
    // Programs that do not decide must not take back what the deciding ones have noted.
    if !subject::decide() {
        return 0;
    }
    let mut dentry = 0u64;
    // SAFETY: the helper takes the context and writes one word.
    if unsafe { bpf_get_func_ret(ctx.as_ptr(), &raw mut dentry) } != 0 {
        return 0;
    }
    // An error reads as nothing.
    let Some(inode) = peek::<u64>(dentry + object::DENTRY_INODE.get() as u64) else { return 0 };
    if inode == 0 {
        return 0;
    }
    let made = armed().is_some_and(|subject| {
        // SAFETY: a map value, where it is not null.
        !subject.session.is_null()
            && maps::IPC_OBJECTS.insert(inode, unsafe { (*subject.session).generation }, 0).is_ok()
    });
    if !made {
        let _ = maps::IPC_OBJECTS.remove(inode);
    }
    0
}

/// The name is taken away, when the maker's side is closed for the last time.
#[fentry(function = "devpts_pty_kill")]
pub fn devpts_pty_kill(ctx: FEntryContext) -> i32 {
    let dentry: *const u8 = ctx.arg(0);
    let _ = maps::IPC_OBJECTS.remove(object::pointer(dentry, &object::DENTRY_INODE) as u64);
    0
}
