//! What connects the two ends beside the log: control page, doorbells, lifeline.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ipc_core::OpenError;
use ipc_core::lifeline::Lifeline;

use crate::control::Control;
use crate::fault::Fault;
use crate::sys;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) control: Control,
    /// Rung by the writer for a sleeping reader.
    pub(crate) news: OwnedFd,
    /// Rung by the reader for a sleeping writer.
    pub(crate) room: OwnedFd,
    pub(crate) lifeline: Lifeline,
}

impl Link {
    /// How many descriptors [`to_descriptors`](Self::to_descriptors) gives.
    pub(crate) const DESCRIPTORS: usize = 4;

    /// The writer's and the reader's side.
    pub(crate) fn pair() -> Result<(Self, Self), Fault> {
        let control = Control::new()?;
        let [news, room] = [sys::doorbell()?, sys::doorbell()?];
        let (ours, theirs) = Lifeline::pair().map_err(|error| Fault::Io("socketpair", error))?;
        let other = Self {
            control: control.try_clone()?,
            news: sys::own_doorbell(news.as_fd()).map_err(Fault::io("open"))?,
            room: sys::own_doorbell(room.as_fd()).map_err(Fault::io("open"))?,
            lifeline: theirs,
        };
        Ok((
            Self {
                control,
                news,
                room,
                lifeline: ours,
            },
            other,
        ))
    }

    pub(crate) fn to_descriptors(&self) -> io::Result<[OwnedFd; Self::DESCRIPTORS]> {
        Ok([
            self.control.fd().try_clone_to_owned()?,
            self.news.try_clone()?,
            self.room.try_clone()?,
            self.lifeline.as_fd().try_clone_to_owned()?,
        ])
    }

    pub(crate) fn from_descriptors(
        [control, news, room, lifeline]: [OwnedFd; Self::DESCRIPTORS],
    ) -> Result<Self, OpenError> {
        if !sys::is_doorbell(news.as_fd()) || !sys::is_doorbell(room.as_fd()) {
            return Err(OpenError::Untrusted {
                what: "a doorbell is not a nameless pipe",
            });
        }
        let [news, room] = [news, room].map(|bell| {
            sys::own_doorbell(bell.as_fd()).map_err(|error| OpenError::io("open", error))
        });
        let control = Control::from_fd(control)?;
        Ok(Self {
            control,
            news: news?,
            room: room?,
            lifeline: Lifeline::from_fd(lifeline)?,
        })
    }
}
