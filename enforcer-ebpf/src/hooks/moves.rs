//! Which renames concern directories: those of files leave every directory's name as it was, so what is remembered
//! at directories still holds after them.
//!
//! `__d_move()` (fs/dcache.c) is the one function that gives a dentry another name or parent; `d_move()`, `d_exchange()`
//! and `d_splice_alias()` call it, each with `rename_lock` held for writing. A program at its end runs under that lock:
//! it is alone, it knows which state of the kernel's count is its rename's, and `MOVES` says so before the lock is
//! given up. The word there is `(renames of directories * 2) << 32 | state`, and it holds for exactly that state:
//!
//! - a file's rename moves the state from `n` to `n + 2` in the word, if the word was at `n`;
//! - a directory's does the same and counts;
//! - if the word was somewhere else, renames were missed, and one that counts stands for all of them;
//! - a rename that this program does not see (it was not attached yet, the kernel lacks the function) leaves the word
//!   behind, so nothing remembered is found, until a walk takes stock (`object::take_stock`), which counts too.
//!
//! So a state that fits and an equal count mean: between then and now no directory was renamed or moved. Counting renames
//! of files and subtracting would not do: one that is over and not counted yet would hide a directory's.
//!
//! An exchange counts if either is a directory; what has no inode counts. Both of two generations of programs run while
//! one replaces the other; the second finds the word at its state already, and leaves it.

use crate::{maps, object};
use aya_ebpf::{macros::fexit, programs::FExitContext};

/// A name has moved; `rename_lock` is held.
#[fexit(function = "__d_move")]
pub fn d_move(ctx: FExitContext) -> i32 {
    let (dentry, target): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    let exchange = ctx.arg::<u64>(2) & 0xff != 0;
    let state = object::renames();
    let moves = maps::moves();
    // Not under the lock: then nobody knows what this is, and the word stays behind.
    if state & 1 == 0 {
        return 0;
    }
    let (before, after) = (state.wrapping_sub(1), state.wrapping_add(1));
    // SAFETY: a map value, which nobody else writes meanwhile but `take_stock`. That finds no even state before this is
    // over, and what it found before is of no use to anybody: a reader compares with the count after it read the word.
    unsafe {
        let word = core::ptr::read_volatile(moves);
        if word as u32 == after {
            return 0;
        }
        let files = is_file(dentry) && (!exchange || is_file(target));
        let count = if files && word as u32 == before { word >> 32 } else { object::moved(word) };
        core::ptr::write_volatile(moves, count << 32 | u64::from(after));
    }
    0
}

/// Whether a dentry is certainly no directory's.
#[inline(always)]
fn is_file(dentry: *const u8) -> bool {
    let inode = object::pointer(dentry, &object::DENTRY_INODE);
    !inode.is_null() && !object::is_directory(inode)
}
