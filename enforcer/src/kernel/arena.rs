//! Who has which part of the arena. Pure bookkeeping; first fit, neighbours merge.

/// Free ranges of the arena, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arena {
    free: Vec<(u32, u32)>,
    size: u32,
}

/// Every range begins at a multiple of this.
pub const ALIGN: u32 = 16;
/// The beginning stays zero: a state of 0 is a row without rights.
const RESERVED: u32 = 4096;

impl Arena {
    /// An empty arena of `size` bytes.
    pub fn new(size: u32) -> Self {
        Self { free: vec![(RESERVED, size - RESERVED)], size }
    }

    /// Takes `len` bytes; `None` if there is no piece of that size.
    pub fn take(&mut self, len: u32) -> Option<u32> {
        let len = len.max(1).checked_next_multiple_of(ALIGN)?;
        let i = self.free.iter().position(|(_, room)| *room >= len)?;
        let (base, room) = self.free[i];
        if room == len {
            self.free.remove(i);
        } else {
            self.free[i] = (base + len, room - len);
        }
        Some(base)
    }

    /// Takes exactly the `len` bytes at `base`, which a policy from before a restart uses.
    pub fn claim(&mut self, base: u32, len: u32) -> bool {
        let Some(len) = len.max(1).checked_next_multiple_of(ALIGN) else { return false };
        let Some(end) = base.checked_add(len) else { return false };
        let Some(i) = self.free.iter().position(|(b, room)| *b <= base && end <= *b + *room) else {
            return false;
        };
        let (from, room) = self.free.remove(i);
        if end < from + room {
            self.free.insert(i, (end, from + room - end));
        }
        if from < base {
            self.free.insert(i, (from, base - from));
        }
        true
    }

    /// Gives `len` bytes at `base` back.
    pub fn give(&mut self, base: u32, len: u32) {
        let len = len.max(1).next_multiple_of(ALIGN);
        let i = self.free.partition_point(|(b, _)| *b < base);
        self.free.insert(i, (base, len));
        self.merge(i);
        if i > 0 {
            self.merge(i - 1);
        }
    }

    fn merge(&mut self, i: usize) {
        if let [(a, room), (b, more), ..] = self.free[i..]
            && a + room == b
        {
            self.free[i] = (a, room + more);
            self.free.remove(i + 1);
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u32 {
        self.size - RESERVED - self.free.iter().map(|(_, room)| room).sum::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_as_one_piece_again() {
        let mut arena = Arena::new(1 << 16);
        let whole = (1 << 16) - RESERVED;
        let parts: Vec<u32> = (0..4).map(|_| arena.take(1000).expect("room")).collect();
        for i in [2, 0, 3, 1] {
            arena.give(parts[i], 1000);
        }
        assert_eq!(arena.take(whole), Some(RESERVED));
        assert_eq!(arena.take(1), None);
    }

    #[test]
    fn a_claimed_range_is_not_given_to_anybody_else() {
        let mut arena = Arena::new(1 << 16);
        assert!(arena.claim(8192, 4096));
        assert!(!arena.claim(8192, 16) && !arena.claim(12272, 32));
        let mut seen = Vec::new();
        while let Some(base) = arena.take(4096) {
            assert_ne!(base, 8192);
            seen.push(base);
        }
        assert_eq!(seen.len(), 14);
    }

    #[test]
    fn the_first_page_is_never_given_away() {
        assert!(!Arena::new(1 << 16).claim(0, 16));
        assert_eq!(Arena::new(1 << 16).used(), 0);
    }
}
