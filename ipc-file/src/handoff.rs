use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipc_core::{Handoff, OpenError, Parts, WaitStrategy, Waiter};

use crate::cursor::Cursor;
use crate::link::Link;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::sys;
use crate::writer::Writer;

/// What travels beside the descriptors: five words and two bytes, little-endian.
struct Passport {
    end: End,
    shape: Shape,
    epoch: u64,
    position: u64,
    seq: u64,
    strategy: WaitStrategy,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Sender = 1,
    Receiver = 2,
}

const LEN: usize = 42;

impl Passport {
    fn encode(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(LEN);
        data.push(self.end as u8);
        for word in [
            self.shape.segment,
            self.shape.slots,
            self.epoch,
            self.position,
            self.seq,
        ] {
            data.extend(word.to_le_bytes());
        }
        data.push(match self.strategy {
            WaitStrategy::Block => 0,
            WaitStrategy::Spin => 1,
            WaitStrategy::Adaptive => 2,
        });
        data
    }

    fn decode(data: &[u8], end: End) -> Option<Self> {
        let data: &[u8; LEN] = data.try_into().ok()?;
        if data[0] != end as u8 {
            return None;
        }
        let mut words = [0u64; 5];
        for (word, bytes) in words.iter_mut().zip(data[1..41].chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let strategy = match data[41] {
            0 => WaitStrategy::Block,
            1 => WaitStrategy::Spin,
            2 => WaitStrategy::Adaptive,
            _ => return None,
        };
        let [segment, slots, epoch, position, seq] = words;
        let shape = Shape { segment, slots };
        // Beyond 2^63 sums of positions could wrap.
        let sound = shape.is_sound()
            && position < 1 << 63
            && position.is_multiple_of(8)
            && shape.within(position) >= SEGMENT_HEADER;
        sound.then_some(Self {
            end,
            shape,
            epoch,
            position,
            seq,
            strategy,
        })
    }
}

/// The log must be whole, and nobody may shrink it who could not end this process as well.
fn check_log(file: &OwnedFd, shape: Shape) -> Result<(), OpenError> {
    let len = shape.file();
    if sys::is_sealed_memory(file.as_fd(), len) || sys::is_unnamed_file(file.as_fd(), len) {
        Ok(())
    } else {
        Err(OpenError::Untrusted {
            what: "the log is neither sealed memory of the size that was announced nor a file of \
                   this user's without a name",
        })
    }
}

fn take(parts: Parts, end: End) -> Result<(Passport, OwnedFd, Link), OpenError> {
    let wrong = OpenError::Incompatible {
        what: "these are not the parts of such an end of a log",
    };
    let Some(passport) = Passport::decode(&parts.data, end) else {
        return Err(wrong);
    };
    let Ok([log, link @ ..]) = <[OwnedFd; 1 + Link::DESCRIPTORS]>::try_from(parts.descriptors)
    else {
        return Err(wrong);
    };
    check_log(&log, passport.shape)?;
    let link = Link::from_descriptors(link)?;
    Ok((passport, log, link))
}

fn give(passport: &Passport, file: BorrowedFd<'_>, link: &Link) -> io::Result<Parts> {
    let mut descriptors = Vec::with_capacity(1 + Link::DESCRIPTORS);
    descriptors.push(file.try_clone_to_owned()?);
    descriptors.extend(link.to_descriptors()?);
    Ok(Parts {
        descriptors,
        data: passport.encode(),
    })
}

impl Handoff for Sender {
    fn to_parts(&self) -> io::Result<Parts> {
        let passport = Passport {
            end: End::Sender,
            shape: self.writer.shape,
            epoch: self.writer.epoch,
            position: self.writer.position,
            seq: self.writer.seq,
            strategy: self.waiter.strategy(),
        };
        give(&passport, self.file(), &self.link)
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (passport, log, link) = take(parts, End::Sender)?;
        let Passport {
            shape,
            epoch,
            position,
            seq,
            ..
        } = passport;
        let writer = Writer::attach(log.as_fd(), shape, epoch, position, seq)?;
        Ok(Self::new(log, writer, link, Waiter::new(passport.strategy)))
    }
}

impl Handoff for Receiver {
    fn to_parts(&self) -> io::Result<Parts> {
        let passport = Passport {
            end: End::Receiver,
            shape: self.cursor.shape,
            epoch: self.cursor.epoch,
            position: self.cursor.position,
            seq: self.cursor.seq,
            strategy: self.waiter.strategy(),
        };
        give(&passport, self.cursor.file(), &self.link)
    }

    fn release(&self) {
        self.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (passport, log, link) = take(parts, End::Receiver)?;
        let Passport {
            shape,
            epoch,
            position,
            seq,
            ..
        } = passport;
        let cursor = Cursor::attach(log, shape, epoch, position, seq)?;
        Ok(Self::new(cursor, link, Waiter::new(passport.strategy)))
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);
