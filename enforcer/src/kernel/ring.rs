//! A ring of records, which is mapped while there is something to read. Its data lies there twice, so that no record
//! is cut at the end (`ringbuf_area_alloc()`, kernel/bpf/ringbuf.c), and all of it counts as the daemon's memory.

use super::mapped::Mapped;
use aya::maps::{Map, MapData, MapError, RingBuf};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

/// A pinned ring.
pub struct Ring {
    fd: OwnedFd,
    positions: Mapped,
    reader: Option<RingBuf<MapData>>,
    /// Read since the last rest.
    used: bool,
}

impl Ring {
    /// Of this map.
    pub fn new(data: &MapData) -> io::Result<Self> {
        let fd = data.fd().as_fd().try_clone_to_owned()?;
        Ok(Self { positions: Mapped::positions(&fd)?, fd, reader: None, used: false })
    }

    /// Bytes that wait in it.
    pub fn waiting(&self) -> u64 {
        self.positions.waiting()
    }

    /// What reads it, if anything waits.
    pub fn reader(&mut self) -> Result<Option<&mut RingBuf<MapData>>, MapError> {
        if self.waiting() == 0 {
            return Ok(None);
        }
        self.used = true;
        if self.reader.is_none() {
            let fd = self.fd.try_clone()?;
            self.reader = Some(RingBuf::try_from(Map::RingBuf(MapData::from_fd(fd)?))?);
        }
        Ok(self.reader.as_mut())
    }

    /// Unmaps it if it was not read since the last time, and says whether it was mapped until now.
    pub fn rest(&mut self) -> bool {
        !std::mem::take(&mut self.used) && self.reader.take().is_some()
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
