//! Array maps mapped into the daemon. Single fields of it change by one aligned store, which the
//! programs see whole: that is how policies are switched.

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::{
    ffi::c_void,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

/// Bytes of a page on the machines that are supported.
const PAGE: usize = 4096;

/// A mapping of a map's values.
pub struct Mapped {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is accessed through `&self` by atomics or by
// copies; nothing in it is tied to a thread.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `len` bytes of values.
    pub fn new(map: impl AsFd, len: usize) -> io::Result<Self> {
        Self::with(map, 0, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    /// The positions of a ring: its reader's and its writers', a page each (`ringbuf_map_mmap_kern()`,
    /// kernel/bpf/ringbuf.c). They can be loaded only.
    pub fn positions(ring: impl AsFd) -> io::Result<Self> {
        Self::with(ring, 0, 2 * PAGE, ProtFlags::PROT_READ)
    }

    /// Bytes that wait in the ring whose positions these are.
    pub fn waiting(&self) -> u64 {
        let [read, written] = [0, PAGE].map(|at| self.word(at).load(Ordering::SeqCst));
        written.saturating_sub(read)
    }

    fn with(map: impl AsFd, from: usize, len: usize, access: ProtFlags) -> io::Result<Self> {
        let page = NonZeroUsize::new(len.next_multiple_of(PAGE)).ok_or(io::ErrorKind::InvalidInput)?;
        let from = libc::off_t::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh shared mapping at an address that the kernel chooses; the kernel keeps the
        // map alive as long as it is mapped.
        let start = unsafe { mmap(None, page, access, MapFlags::MAP_SHARED, map, from)? };
        Ok(Self { start, len })
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(
            offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= self.len,
            "outside of the map"
        );
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.start.as_ptr().cast::<u8>().add(offset).cast() }
    }

    /// An aligned word that the kernel may change at any time.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: aligned, inside the mapping, and lives as long as `self`.
        unsafe { AtomicU64::from_ptr(self.at(offset)) }
    }

    /// As [`Self::word`], 32 bits.
    pub fn half(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    /// As [`Self::word`], 16 bits.
    pub fn quarter(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as in `word`.
        unsafe { AtomicU16::from_ptr(self.at(offset)) }
    }

    /// Copies bytes that nobody uses yet into the map.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "outside of the map");
        // SAFETY: inside the mapping, as just checked; the source cannot overlap it.
        unsafe {
            let to = self.start.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// A copy of what the map holds.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len, "outside of the map");
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`, the other way. Words that the kernel changes meanwhile may be torn;
        // callers read such fields through the atomics.
        unsafe {
            let from = self.start.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len);
        }
        bytes
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.len.next_multiple_of(PAGE)) };
        debug_assert!(unmapped.is_ok());
    }
}

/// The values of a large array map, of which a piece is mapped while it is copied and no longer: a mapping has all its
/// pages at once (`remap_vmalloc_range()`, mm/vmalloc.c), and they would count as the daemon's memory.
pub struct Pieces {
    map: OwnedFd,
    len: usize,
}

impl Pieces {
    /// Of a map with `len` bytes of values.
    pub fn new(map: impl AsFd, len: usize) -> io::Result<Self> {
        Ok(Self { map: map.as_fd().try_clone_to_owned()?, len })
    }

    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes that nobody uses yet into the map.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let (piece, at) = self.piece(offset, bytes.len())?;
        piece.write(at, bytes);
        Ok(())
    }

    /// A copy of what the map holds.
    pub fn read(&self, offset: usize, len: usize) -> io::Result<Vec<u8>> {
        let (piece, at) = self.piece(offset, len)?;
        Ok(piece.read(at, len))
    }

    /// The pages with these bytes, and where in them they begin.
    fn piece(&self, offset: usize, len: usize) -> io::Result<(Mapped, usize)> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let (from, end) = (offset / PAGE * PAGE, end.ok_or(io::ErrorKind::InvalidInput)?);
        let piece = Mapped::with(&self.map, from, end - from, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        Ok((piece, offset - from))
    }
}
