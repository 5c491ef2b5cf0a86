//! How an end travels: its socket, the descriptors that wait in it, and a record.
//!
//! The record: version, role, wait strategy, whether descriptors are allowed (a byte each), the
//! longest message (u64 LE); then of a sender length and progress of an abandoned message (2 u64 LE) and
//! what became of the receiver; of a receiver its state and the bytes that it had read in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ipc_core::{Handoff, OpenError, Parts, WaitStrategy};

use crate::farewell::Gone;
use crate::frame::Header;
use crate::intake::Over;
use crate::long::Abandoned;
use crate::options::MAX_MESSAGE;
use crate::sys::{self, MAX_DESCRIPTORS, Transport};
use crate::{Options, Receiver, Sender};

const VERSION: u8 = 2;
const SENDER: u8 = b'S';
const RECEIVER: u8 = b'R';

const UNTRUSTED: OpenError = OpenError::Untrusted {
    what: "the record of a socket's end is wrong",
};

impl Handoff for Sender {
    fn to_parts(&self) -> io::Result<Parts> {
        let mut data = head(
            SENDER,
            self.waiter.strategy(),
            self.descriptors,
            self.max_message,
        );
        let Abandoned { len, done } = self.abandoned.unwrap_or(Abandoned { len: 0, done: 0 });
        data.extend_from_slice(&(len as u64).to_le_bytes());
        data.extend_from_slice(&(done as u64).to_le_bytes());
        data.push(match self.gone {
            None => 0,
            Some(Gone::Closed) => 1,
            Some(Gone::Died) => 2,
        });
        Ok(Parts {
            descriptors: vec![self.socket.try_clone()?],
            data,
        })
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let mut record = Record(&parts.data);
        let options = record.head(SENDER)?;
        let (len, done) = (record.number()?, record.number()?);
        if len > options.max_message || done >= Header::Long(len).total() {
            return Err(UNTRUSTED);
        }
        let gone = match record.byte()? {
            0 => None,
            1 => Some(Gone::Closed),
            2 => Some(Gone::Died),
            _ => return Err(UNTRUSTED),
        };
        record.finish()?;
        let (socket, others) = split(parts.descriptors)?;
        let transport = sys::transport(socket.as_fd())?;
        if !others.is_empty() || (options.descriptors && transport == Transport::Tcp) {
            return Err(UNTRUSTED);
        }
        let buffer = rustix::net::sockopt::socket_send_buffer_size(&socket)
            .map_err(|error| OpenError::io("getsockopt", error))?;
        sys::make_blocking(socket.as_fd())?;
        let mut sender = Self::new(socket, transport, buffer, &options);
        sender.abandoned = (done > 0).then_some(Abandoned { len, done });
        sender.gone = gone;
        Ok(sender)
    }
}

impl Handoff for Receiver {
    fn to_parts(&self) -> io::Result<Parts> {
        let mut data = head(
            RECEIVER,
            self.waiter.strategy(),
            self.intake.descriptors,
            self.intake.max_message,
        );
        let intake = &self.intake;
        data.push(match intake.over {
            None => 0,
            Some(Over::Gone(Gone::Closed)) => 1,
            Some(Over::Gone(Gone::Died)) => 2,
            Some(Over::Corrupt(_)) => 3,
            Some(Over::DescriptorsLost) => 4,
        });
        data.extend_from_slice(intake.bytes());
        let mut descriptors = vec![self.socket.try_clone()?];
        for waiting in &intake.rights {
            descriptors.push(waiting.try_clone()?);
        }
        Ok(Parts { descriptors, data })
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let mut record = Record(&parts.data);
        let options = record.head(RECEIVER)?;
        let over = match record.byte()? {
            0 => None,
            1 => Some(Over::Gone(Gone::Closed)),
            2 => Some(Over::Gone(Gone::Died)),
            3 => Some(Over::Corrupt("found before the hand-off")),
            4 => Some(Over::DescriptorsLost),
            _ => return Err(UNTRUSTED),
        };
        let bytes = record.0;
        let (socket, rights) = split(parts.descriptors)?;
        let transport = sys::transport(socket.as_fd())?;
        if rights.len() > 2 * MAX_DESCRIPTORS
            || (options.descriptors && transport == Transport::Tcp)
        {
            return Err(UNTRUSTED);
        }
        sys::make_blocking(socket.as_fd())?;
        let mut receiver = Self::new(socket, transport, &options);
        let intake = &mut receiver.intake;
        intake.put_in(bytes);
        intake.rights.extend(rights);
        intake.over = over;
        Ok(receiver)
    }
}

fn head(role: u8, strategy: WaitStrategy, descriptors: bool, max_message: usize) -> Vec<u8> {
    let strategy = match strategy {
        WaitStrategy::Block => 0,
        WaitStrategy::Spin => 1,
        WaitStrategy::Adaptive => 2,
    };
    let mut data = vec![VERSION, role, strategy, descriptors.into()];
    data.extend_from_slice(&(max_message as u64).to_le_bytes());
    data
}

fn split(descriptors: Vec<OwnedFd>) -> Result<(OwnedFd, Vec<OwnedFd>), OpenError> {
    let mut descriptors = descriptors.into_iter();
    let socket = descriptors.next().ok_or(UNTRUSTED)?;
    Ok((socket, descriptors.collect()))
}

/// The record, from its front.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], OpenError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(UNTRUSTED)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<usize, OpenError> {
        let number = u64::from_le_bytes(self.take()?);
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn byte(&mut self) -> Result<u8, OpenError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn head(&mut self, role: u8) -> Result<Options, OpenError> {
        let [version, found, strategy, descriptors] = self.take()?;
        if (version, found) != (VERSION, role) {
            return Err(OpenError::Incompatible {
                what: "these are not the parts of such an end",
            });
        }
        let wait_strategy = match strategy {
            0 => WaitStrategy::Block,
            1 => WaitStrategy::Spin,
            2 => WaitStrategy::Adaptive,
            _ => return Err(UNTRUSTED),
        };
        let max_message = self.number()?;
        if max_message > MAX_MESSAGE || descriptors > 1 {
            return Err(UNTRUSTED);
        }
        Ok(Options {
            wait_strategy,
            max_message,
            descriptors: descriptors == 1,
            ..Options::default()
        })
    }

    fn finish(self) -> Result<(), OpenError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(UNTRUSTED)
        }
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);
