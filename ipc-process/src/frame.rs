//! What the two sides of a control socket say to each other.

use std::os::fd::OwnedFd;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Child: I am the program you started, entered `init`, and am as you want me.
    Hello = 1,
    /// Parent: run this with these arguments.
    Start = 2,
    /// Either: descriptors that belong to the next frame.
    Descriptors = 3,
    /// Child: what the function returned.
    Returned = 4,
    /// Child: the function panicked.
    Panicked = 5,
    /// Child: the arguments could not be read.
    BadArguments = 6,
    /// Child: the result could not be written.
    BadResult = 7,
    /// Child: I could not become what you want me to be.
    Refused = 8,
    /// Parent: be a fork server.
    Serve = 9,
    /// Parent to a fork server: one more process for each of these sockets.
    Fork = 10,
    /// Fork server: here it is.
    Forked = 11,
    /// Parent: get ready for a start.
    Rehearse = 12,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        use Kind::*;
        [
            Hello,
            Start,
            Descriptors,
            Returned,
            Panicked,
            BadArguments,
            BadResult,
            Refused,
            Serve,
            Fork,
            Forked,
            Rehearse,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Frame {
    pub(crate) fn new(kind: Kind, body: Vec<u8>) -> Self {
        Self {
            kind,
            body,
            descriptors: Vec::new(),
        }
    }
}
