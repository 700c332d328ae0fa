//! Shared memory, message queues and semaphores of System V. All processes of an IPC namespace see all of them, so
//! it is noted which session has made which: a session's own are its business, all others are refused.
//!
//! They are known by their address. An object whose address is used again was made by somebody, and is noted anew then.

use super::armed;
use crate::{
    emit::{Denial, refuse},
    maps, subject,
    subject::Subject,
    verifier::{argument, errno},
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::event::{operation, reason};

macro_rules! made_hook {
    ($(#[$doc:meta])* $hook:ident) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            // Programs that do not decide must not take back what the deciding ones have noted.
            if !subject::decide() {
                return 0;
            }
            made(argument(&ctx, 0))
        }
    };
}

made_hook!(
    /// Shared memory is made.
    shm_alloc_security);
made_hook!(
    /// A message queue is made.
    msg_queue_alloc_security);
made_hook!(
    /// A set of semaphores is made.
    sem_alloc_security);

#[inline(always)]
fn made(object: Option<u64>) -> i32 {
    let Some(object) = object else { return 0 };
    let Some(subject) = armed() else {
        // Somebody else's now, whosever it was.
        let _ = maps::IPC_OBJECTS.remove(object);
        return 0;
    };
    if !subject.session.is_null() {
        // SAFETY: a map value.
        let generation = unsafe { (*subject.session).generation };
        if maps::IPC_OBJECTS.insert(object, generation, 0).is_ok() {
            return 0;
        }
    }
    let why = if subject.session.is_null() { reason::NO_SESSION } else { reason::INTERNAL };
    // Nobody could use what cannot be noted.
    refuse(&subject, &Denial::of(operation::IPC, why, 0));
    errno(true)
}

macro_rules! gone_hook {
    ($(#[$doc:meta])* $hook:ident) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            if let Some(object) = argument(&ctx, 0) {
                let _ = maps::IPC_OBJECTS.remove(object);
            }
            0
        }
    };
}

gone_hook!(
    /// Shared memory is freed.
    shm_free_security);
gone_hook!(
    /// A message queue is freed.
    msg_queue_free_security);
gone_hook!(
    /// A set of semaphores is freed.
    sem_free_security);

macro_rules! use_hook {
    ($(#[$doc:meta])* $hook:ident) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            let Some(subject) = armed() else { return 0 };
            // Without an object the question is about limits and totals.
            if argument(&ctx, 0).is_some_and(|object| object == 0 || is_own(&subject, object)) {
                return 0;
            }
            errno(refuse(&subject, &Denial::of(operation::IPC, reason::FLOOR, 0)))
        }
    };
}

use_hook!(
    /// Finding by key, attaching, sending, receiving, counting, asking.
    ipc_permission);
use_hook!(
    /// Removing, changing, locking, and asking by number.
    shm_shmctl);
use_hook!(
    /// Removing, changing, and asking by number.
    msg_queue_msgctl);
use_hook!(
    /// Removing, changing, and asking by number.
    sem_semctl);

#[inline(always)]
fn is_own(subject: &Subject, object: u64) -> bool {
    let Some(generation) = maps::IPC_OBJECTS.get_ptr(object) else { return false };
    // SAFETY: map values.
    !subject.session.is_null() && unsafe { *generation == (*subject.session).generation }
}
