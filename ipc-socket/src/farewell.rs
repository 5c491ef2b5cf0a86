//! How an end says that it is closed, and what the other one makes of silence.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use ipc_core::{RecvError, SendError};
use rustix::io::Errno;

use crate::frame::{FIN, HEADER, PART_MAX, Pieces, Run, VOID};
use crate::sys::{self, Sleep};

/// What became of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Closed,
    Died,
}

impl Gone {
    pub(crate) fn to_send(self) -> SendError {
        match self {
            Self::Closed => SendError::Closed,
            Self::Died => SendError::PeerDied,
        }
    }

    pub(crate) fn to_recv(self) -> RecvError {
        match self {
            Self::Closed => RecvError::Closed,
            Self::Died => RecvError::PeerDied,
        }
    }
}

/// The one byte that a receiver ever sends.
const FAREWELL: u8 = b'F';

/// A receiver's farewell. There is always room for the one byte of this direction's life.
pub(crate) fn tell(socket: BorrowedFd<'_>) {
    let _ = sys::send(socket, &[FAREWELL], Sleep::Never);
}

/// After a send failed: whether the receiver said farewell. Bytes come before ECONNRESET on a
/// stream, whatever the receiver left unread.
pub(crate) fn ask(socket: BorrowedFd<'_>) -> Gone {
    let mut note = [0];
    loop {
        match sys::recv(socket, &mut note, Sleep::Never) {
            Ok(1) if note[0] == FAREWELL => return Gone::Closed,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return Gone::Died,
        }
    }
}

/// A sender's farewell, after what it owes. A full buffer is grown for it: its normal size leaves
/// room for that. Never waits; a farewell that does not get through is a death to the peer.
pub(crate) fn say(socket: BorrowedFd<'_>, owed: &mut Owed) {
    let mut grown = false;
    let mut said = 0;
    while said < HEADER {
        let slices = owed.slices();
        let slices = [slices[0], slices[1], slices[2], IoSlice::new(&FIN[said..])];
        match sys::send_slices(socket, &slices, Sleep::Never) {
            Ok(bytes) => {
                let paid = bytes.min(owed.remaining());
                owed.pay(paid);
                said += bytes - paid;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !grown => {
                grown = true;
                if sys::grow_buffer(socket).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// What an abandoned message owes to the stream, lest the receiver take the next header for the
/// rest of it: the rest of a header, filler for the rest of a piece, and VOID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    header: [u8; HEADER],
    /// Bytes of `header` that are out.
    header_from: usize,
    filler: usize,
    /// Bytes of VOID that are out.
    void_from: usize,
}

/// The bytes of filler do not matter: nobody reads a message that is void.
static FILLER: [u8; PART_MAX] = [0; PART_MAX];

impl Default for Owed {
    fn default() -> Self {
        Self {
            header: [0; HEADER],
            header_from: HEADER,
            filler: 0,
            void_from: HEADER,
        }
    }
}

impl Owed {
    /// What is owed after the first `sent` bytes of a message in pieces, of which at least one is
    /// still missing.
    pub(crate) fn after(pieces: Pieces, sent: usize) -> Self {
        let nothing = Self {
            void_from: 0,
            ..Self::default()
        };
        match pieces.at(sent) {
            // Between two pieces nothing but VOID is owed.
            Some(Run::Header { from: 0, .. }) => nothing,
            Some(Run::Header { piece, from }) => Self {
                header: crate::frame::part(piece),
                header_from: from,
                filler: piece,
                void_from: 0,
            },
            Some(Run::Payload { from, to }) => Self {
                filler: to - from,
                ..nothing
            },
            // END and VOID begin alike.
            Some(Run::Verdict { from }) => Self {
                void_from: from,
                ..nothing
            },
            None => Self::default(),
        }
    }

    pub(crate) fn remaining(&self) -> usize {
        (HEADER - self.header_from) + self.filler + (HEADER - self.void_from)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    pub(crate) fn slices(&self) -> [IoSlice<'_>; 3] {
        [
            IoSlice::new(&self.header[self.header_from..]),
            IoSlice::new(&FILLER[..self.filler]),
            IoSlice::new(&VOID[self.void_from..]),
        ]
    }

    /// Counts `bytes` of it as sent.
    pub(crate) fn pay(&mut self, bytes: usize) {
        let header = bytes.min(HEADER - self.header_from);
        let filler = (bytes - header).min(self.filler);
        let void = (bytes - header - filler).min(HEADER - self.void_from);
        self.header_from += header;
        self.filler -= filler;
        self.void_from += void;
    }

    pub(crate) fn to_bytes(self) -> [u8; 10] {
        let [a, b, c, d] = self.header;
        let [e, f, g, h] = (self.filler as u32).to_le_bytes();
        [
            a,
            b,
            c,
            d,
            self.header_from as u8,
            e,
            f,
            g,
            h,
            self.void_from as u8,
        ]
    }

    /// Parts are input: `None` for what [`to_bytes`](Self::to_bytes) never gives.
    pub(crate) fn from_bytes(bytes: [u8; 10]) -> Option<Self> {
        let [a, b, c, d, header_from, e, f, g, h, void_from] = bytes;
        let owed = Self {
            header: [a, b, c, d],
            header_from: header_from.into(),
            filler: u32::from_le_bytes([e, f, g, h]) as usize,
            void_from: void_from.into(),
        };
        let sane =
            owed.header_from <= HEADER && owed.void_from <= HEADER && owed.filler <= PART_MAX;
        sane.then_some(owed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use ipc_core::Receiver as _;

    use super::*;
    use crate::frame::{END, part};
    use crate::sys::Transport;
    use crate::{Options, Receiver};

    #[test]
    fn every_way_to_abandon_a_message_leaves_the_stream_in_step() {
        // From every offset into the message, the bytes owed lead back to a frame boundary.
        let pieces = Pieces::of(PART_MAX + 3);
        let mut stream = part(PART_MAX).to_vec();
        stream.resize(HEADER + PART_MAX, 9);
        stream.extend_from_slice(&part(3));
        stream.extend_from_slice(&[9; 3]);
        stream.extend_from_slice(&END);
        assert_eq!(stream.len(), pieces.total());
        let near = [1, 3, 4, 5, 1000, PART_MAX + 3];
        for sent in near.into_iter().chain(PART_MAX + 4..pieces.total()) {
            let (ours, theirs) = sys::pair().unwrap();
            let options = Options::default();
            sys::size_buffer(ours.as_fd(), None, 1 << 20).unwrap();
            assert_eq!(
                sys::send(ours.as_fd(), &stream[..sent], Sleep::Never).unwrap(),
                sent
            );
            let mut rx = Receiver::new(theirs, Transport::Unix, &options);
            assert!(matches!(rx.try_recv(&mut []), Err(RecvError::Empty)));
            say(ours.as_fd(), &mut Owed::after(pieces, sent));
            assert!(
                matches!(rx.try_recv(&mut []), Err(RecvError::Closed)),
                "{sent}"
            );
        }
    }
}
