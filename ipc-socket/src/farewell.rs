//! How an end says that it is closed, and what the other one makes of silence.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use ipc_core::wait::Sleep;
use ipc_core::{RecvError, SendError};
use rustix::io::Errno;

use crate::frame::{FIN, HEADER};
use crate::long::Abandoned;
use crate::sys;

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
pub(crate) fn say(socket: BorrowedFd<'_>, mut abandoned: Option<Abandoned>) {
    let mut grown = false;
    let mut said = 0;
    while said < HEADER {
        let mut header = [0; HEADER];
        let owed = abandoned.map_or([IoSlice::new(&[]); 2], |it| it.owed(&mut header));
        let slices = [owed[0], owed[1], IoSlice::new(&FIN[said..])];
        match sys::send_slices(socket, &slices, Sleep::Never) {
            Ok(bytes) => {
                let paid = bytes.min(owed[0].len() + owed[1].len());
                abandoned = abandoned.and_then(|it| it.pay(paid));
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use ipc_core::Receiver as _;

    use super::*;
    use crate::frame::{CHUNK, COMPLETE, Header};
    use crate::sys::Transport;
    use crate::{Options, Receiver};

    #[test]
    fn every_way_to_abandon_a_message_leaves_the_stream_in_step() {
        // From every offset into the message, the bytes owed lead back to a frame boundary.
        let len = CHUNK + 3;
        let mut stream = Header::Long(len).encode().to_vec();
        stream.resize(HEADER + CHUNK, 9);
        stream.push(COMPLETE);
        stream.extend_from_slice(&[9; 3]);
        stream.push(COMPLETE);
        let near = [1, 3, 4, 5, 1000, CHUNK + 3];
        for done in near.into_iter().chain(CHUNK + 4..stream.len()) {
            let (ours, theirs) = sys::pair().unwrap();
            let options = Options::default();
            sys::size_buffer(ours.as_fd(), None, 1 << 20).unwrap();
            assert_eq!(
                sys::send(ours.as_fd(), &stream[..done], Sleep::Never).unwrap(),
                done
            );
            let mut rx = Receiver::new(theirs, Transport::Unix, &options);
            assert!(matches!(rx.try_recv(&mut []), Err(RecvError::Empty)));
            say(ours.as_fd(), Some(Abandoned { len, done }));
            assert!(
                matches!(rx.try_recv(&mut []), Err(RecvError::Closed)),
                "{done}"
            );
        }
    }
}
