//! Which part of the arena holds which image. Policies with the same tables share one. Pure
//! bookkeeping over [`Arena`].

use super::arena::Arena;
use std::collections::{BTreeMap, HashMap};

/// SHA-256 of an image's tables.
pub type ImageDigest = [u8; 32];

/// An image in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    len: u32,
    image: ImageDigest,
    /// Policies that use it, replaced ones that are not freed yet included.
    users: u32,
}

/// The images in the arena.
pub struct Regions {
    arena: Arena,
    by_base: BTreeMap<u32, Region>,
    /// Where an image lies, for the next policy that has it.
    by_image: HashMap<ImageDigest, u32>,
}

/// Room for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Where it begins.
    pub base: u32,
    /// Nobody has written it yet.
    pub new: bool,
}

impl Regions {
    /// An empty arena of `size` bytes.
    pub fn new(size: u32) -> Self {
        Self { arena: Arena::new(size), by_base: BTreeMap::new(), by_image: HashMap::new() }
    }

    /// Room for an image of `len` bytes, the same as another policy's if it has the same image; `None` if
    /// there is no piece of that size.
    pub fn take(&mut self, image: ImageDigest, len: u32) -> Option<Room> {
        if let Some(base) = self.by_image.get(&image)
            && let Some(region) = self.by_base.get_mut(base)
            && region.len == len
        {
            region.users += 1;
            return Some(Room { base: *base, new: false });
        }
        let base = self.arena.take(len)?;
        self.insert(base, len, image);
        Some(Room { base, new: true })
    }

    /// Notes that a policy from before a restart has its image at `base`. False if something else lies
    /// there.
    pub fn claim(&mut self, base: u32, len: u32, image: ImageDigest) -> bool {
        if let Some(region) = self.by_base.get_mut(&base) {
            let same = region.len == len && region.image == image;
            region.users += u32::from(same);
            return same;
        }
        let free = self.arena.claim(base, len);
        if free {
            self.insert(base, len, image);
        }
        free
    }

    fn insert(&mut self, base: u32, len: u32, image: ImageDigest) {
        self.by_base.insert(base, Region { len, image, users: 1 });
        self.by_image.insert(image, base);
    }

    /// A policy does not use the image at `base` any more.
    pub fn give(&mut self, base: u32) {
        let Some(region) = self.by_base.get_mut(&base) else { return };
        region.users -= 1;
        if region.users == 0 {
            let Region { len, image, .. } = *region;
            self.by_base.remove(&base);
            if self.by_image.get(&image) == Some(&base) {
                self.by_image.remove(&image);
            }
            self.arena.give(base, len);
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u32 {
        self.arena.used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ImageDigest = [1; 32];
    const B: ImageDigest = [2; 32];

    #[test]
    fn equal_images_lie_in_the_arena_once_until_their_last_user_is_gone() {
        let mut regions = Regions::new(1 << 16);
        let first = regions.take(A, 1000).expect("room");
        let used = regions.used();
        let second = regions.take(A, 1000).expect("room");
        assert_eq!(second, Room { base: first.base, new: false });
        assert_eq!(regions.used(), used);
        let other = regions.take(B, 1000).expect("room");
        assert!(other.new && other.base != first.base);
        regions.give(first.base);
        assert_eq!(regions.take(A, 1000).map(|room| room.new), Some(false));
        regions.give(first.base);
        regions.give(first.base);
        regions.give(other.base);
        assert_eq!(regions.used(), 0);
        assert_eq!(regions.take(A, 1000).map(|room| room.new), Some(true));
    }

    #[test]
    fn what_an_earlier_daemon_shared_or_had_twice_is_taken_over() {
        let mut regions = Regions::new(1 << 16);
        assert!(regions.claim(8192, 1008, A) && regions.claim(8192, 1008, A));
        assert!(regions.claim(16384, 1008, A), "the same image at another place");
        assert!(!regions.claim(8192, 1008, B) && !regions.claim(8208, 16, B));
        regions.give(8192);
        regions.give(16384);
        // One user of the first is left.
        assert_eq!(regions.used(), 1008);
        regions.give(8192);
        assert_eq!(regions.used(), 0);
    }

    #[test]
    fn a_full_arena_gives_nothing() {
        let mut regions = Regions::new(1 << 16);
        assert_eq!(regions.take(A, 1 << 16), None);
        assert_eq!(regions.used(), 0);
    }
}
