//! Message queues of POSIX. Their calls find a name in a mount that only the kernel has, so no rule can be about it, and
//! they make and remove it before the hooks that know paths are asked (ipc/mqueue.c).

use super::armed;
use crate::{
    emit::{Denial, refuse},
    object,
    verifier::errno,
};
use aya_ebpf::{macros::lsm, programs::LsmContext};
use enforcer_common::event::{operation, reason};

/// `MQUEUE_MAGIC` (ipc/mqueue.c).
const MQUEUE: u64 = 0x1980_0202;

macro_rules! queue_hook {
    ($(#[$doc:meta])* $hook:ident, $operation:ident) => {
        $(#[$doc])*
        #[lsm]
        pub fn $hook(ctx: LsmContext) -> i32 {
            // Before anything else: it is three loads, and everybody makes and removes files.
            if object::magic(ctx.arg(0)) != MQUEUE {
                return 0;
            }
            let Some(subject) = armed() else { return 0 };
            errno(refuse(&subject, &Denial::of(operation::$operation, reason::FLOOR, 0)))
        }
    };
}

queue_hook!(
    /// `mq_open` of a queue that is not there.
    inode_create, CREATE);
queue_hook!(
    /// `mq_unlink`.
    inode_unlink, UNLINK);
