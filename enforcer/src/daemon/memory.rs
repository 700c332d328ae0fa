//! Memory that many policies have taken goes back to the system.

use super::core::Core;
use std::time::Instant;

impl Core {
    /// Lets go of what nobody has asked for lately.
    pub(crate) fn rest(&mut self) {
        if self.numbers.rest(Instant::now()) > 0 {
            give_back();
        }
    }
}

/// Hands freed memory to the kernel. The allocator keeps it otherwise, and a daemon rests most of the time.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, and touches nothing but what is free in the allocator's own books.
    unsafe {
        libc::malloc_trim(0);
    }
}
