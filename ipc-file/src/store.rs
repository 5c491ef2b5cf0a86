//! Where segments live.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::directory::Directory;
use crate::segment::Header;
use crate::shape::Shape;
use crate::sys::{self, Access, Fault, Map};

#[derive(Debug)]
pub(crate) enum Store {
    /// One file without a name, whose slots are used over and over again.
    Ring(OwnedFd),
    /// A file for each segment.
    Files {
        directory: Directory,
        /// The segment that is mapped.
        current: OwnedFd,
        /// The first segment whose records may not have reached the storage.
        unsynced: u64,
    },
}

impl Store {
    /// The file that is mapped.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ring(file) | Self::Files { current: file, .. } => file.as_fd(),
        }
    }

    /// Maps the file that holds the current segment.
    pub(crate) fn map(&self, shape: Shape, access: Access) -> Result<Map, Fault> {
        Map::new(self.file(), shape.file() as usize, access)
            .map_err(|error| Fault::Io("mmap", error))
    }

    /// Goes on to an existing segment; `None` if it lies in the same mapping.
    pub(crate) fn enter(&mut self, shape: Shape, number: u64) -> Result<Option<Map>, Fault> {
        let Self::Files {
            directory, current, ..
        } = self
        else {
            return Ok(None);
        };
        *current = directory.open(number, shape)?;
        self.map(shape, Access::Read).map(Some)
    }

    /// Makes the next segment; `None` if it lies in the same mapping and the header is still to be
    /// written.
    pub(crate) fn begin(&mut self, header: &Header) -> Result<Option<Map>, Fault> {
        let Self::Files {
            directory, current, ..
        } = self
        else {
            return Ok(None);
        };
        let file = directory.create(header)?;
        let map = Map::new(file.as_fd(), header.shape.file() as usize, Access::Write)
            .map_err(|error| Fault::Io("mmap", error))?;
        *current = file;
        Ok(Some(map))
    }

    /// Waits until all that was stored up to segment `number`, the current one, has reached the
    /// storage.
    pub(crate) fn sync(&mut self, shape: Shape, number: u64) -> Result<(), Fault> {
        if let Self::Files {
            directory,
            unsynced,
            ..
        } = self
            && *unsynced <= number
        {
            for earlier in *unsynced..number {
                sys::sync_data(directory.open(earlier, shape)?.as_fd())?;
            }
            // A file is found after a power cut only if its name was written too.
            sys::sync_all(directory.fd())?;
            *unsynced = number + 1;
        }
        sys::sync_data(self.file())
    }

    /// Says that records may have gone to this segment since the last [`sync`](Self::sync).
    pub(crate) fn rotated(&mut self, from: u64) {
        if let Self::Files { unsynced, .. } = self {
            *unsynced = (*unsynced).min(from);
        }
    }
}
