//! Where segments live.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::shape::Shape;
use crate::sys::{Access, Fault, Map};

#[derive(Debug)]
pub(crate) enum Store {
    /// One file without a name, whose slots are used over and over again.
    Ring(OwnedFd),
}

impl Store {
    /// The file that holds what was appended last.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ring(file) => file.as_fd(),
        }
    }

    /// Makes room for a segment.
    pub(crate) fn add(&self, _shape: Shape, _number: u64) -> Result<(), Fault> {
        Ok(())
    }

    pub(crate) fn map(&self, shape: Shape, _number: u64, access: Access) -> Result<Map, Fault> {
        match self {
            Self::Ring(file) => Map::new(file.as_fd(), shape.file() as usize, access)
                .map_err(|error| Fault::Io("mmap", error)),
        }
    }

    /// Makes the next segment for the writer; `None` if it lies in the same mapping.
    pub(crate) fn next(&mut self, _shape: Shape, _number: u64) -> Result<Option<Map>, Fault> {
        Ok(None)
    }
}
