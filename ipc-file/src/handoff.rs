use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ipc_core::{Handoff, OpenError, Parts, WaitStrategy, Waiter};
use rustix::fs::FileType;

use crate::cursor::Cursor;
use crate::link::Link;
use crate::options::Durability;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::store::Store;
use crate::writer::Writer;

/// What travels beside the descriptors: six words and two bytes, little-endian.
struct Passport {
    end: End,
    shape: Shape,
    epoch: u64,
    position: u64,
    seq: u64,
    strategy: WaitStrategy,
    durability: Durability,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Sender = 1,
    Receiver = 2,
}

const LEN: usize = 43;

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
        data.push(match self.durability {
            Durability::Process => 0,
            Durability::PowerLoss => 1,
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
        let durability = match data[42] {
            0 => Durability::Process,
            1 => Durability::PowerLoss,
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
            durability,
        })
    }
}

/// The log must be an ordinary file of this user's, whole, and without a name by which others
/// could reach it: what could truncate it then has it from us.
fn check_log(file: &OwnedFd, shape: Shape) -> Result<(), OpenError> {
    let stat = rustix::fs::fstat(file).map_err(|error| OpenError::io("fstat", error))?;
    let sound = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 0
        && u64::try_from(stat.st_size) == Ok(shape.file());
    if sound {
        Ok(())
    } else {
        Err(OpenError::Untrusted {
            what: "the log is not a file of the size that was announced",
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

fn give(passport: &Passport, store: &Store, link: &Link) -> io::Result<Parts> {
    let mut descriptors = Vec::with_capacity(1 + Link::DESCRIPTORS);
    descriptors.push(store.file().as_fd().try_clone_to_owned()?);
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
            durability: self.durability,
        };
        give(&passport, &self.writer.store, &self.link)
    }

    fn release(&self) {
        self.released.set(true);
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
        let writer = Writer::attach(Store::Ring(log), shape, epoch, position, seq)?;
        Ok(Self::new(
            writer,
            link,
            passport.durability,
            Waiter::new(passport.strategy),
        ))
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
            durability: Durability::Process,
        };
        give(&passport, &self.cursor.store, &self.link)
    }

    fn release(&self) {
        self.released.set(true);
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
        let cursor = Cursor::attach(Store::Ring(log), shape, epoch, position, seq)?;
        Ok(Self::new(cursor, link, Waiter::new(passport.strategy)))
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);
