//! How an end travels: memory, own doorbell, both sides of the peer's doorbell; and one byte that
//! says which end it is, one for the wait strategy. The positions travel in the memory.

use std::io;
use std::os::fd::OwnedFd;

use ipc_core::{Handoff, OpenError, Parts, WaitStrategy};

use crate::doorbell::{Bell, Ringer};
use crate::link::{Link, Side};
use crate::receiver::Receiver;
use crate::ring::{Consumer, Corrupt, Producer};
use crate::sender::Sender;
use crate::sys::Mapping;

const SENDER: u8 = b'S';
const RECEIVER: u8 = b'R';

impl Handoff for Sender {
    fn to_parts(&self) -> io::Result<Parts> {
        parts(&self.link, SENDER)
    }

    fn release(&self) {
        self.link.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (mapping, unpacked) = unpack(parts, SENDER)?;
        let ring = Producer::attach(mapping).map_err(incompatible)?;
        let link = unpacked.link(&ring);
        Ok(Self::new(ring, link))
    }
}

impl Handoff for Receiver {
    fn to_parts(&self) -> io::Result<Parts> {
        parts(&self.link, RECEIVER)
    }

    fn release(&self) {
        self.link.custody.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        let (mapping, unpacked) = unpack(parts, RECEIVER)?;
        let ring = Consumer::attach(mapping).map_err(incompatible)?;
        let link = unpacked.link(&ring);
        Ok(Self::new(ring, link))
    }
}

#[cfg(feature = "serde")]
ipc_core::impl_serde_handoff!(Sender, Receiver);

fn parts(link: &Link, role: u8) -> io::Result<Parts> {
    let strategy = match link.strategy() {
        WaitStrategy::Block => 0,
        WaitStrategy::Spin => 1,
        WaitStrategy::Adaptive => 2,
    };
    let mut descriptors = vec![link.memory.try_clone()?];
    descriptors.extend(link.bell.to_parts()?);
    descriptors.extend(link.ringer.to_parts()?);
    Ok(Parts {
        descriptors,
        data: vec![role, strategy],
    })
}

struct Unpacked {
    memory: OwnedFd,
    bell: Bell,
    ringer: Ringer,
    strategy: WaitStrategy,
}

impl Unpacked {
    fn link(self, side: &impl Side) -> Link {
        Link::new(side, self.memory, self.bell, self.ringer, self.strategy)
    }
}

fn unpack(parts: Parts, role: u8) -> Result<(Mapping, Unpacked), OpenError> {
    let strategy = match parts.data[..] {
        [end, strategy] if end == role => match strategy {
            0 => WaitStrategy::Block,
            1 => WaitStrategy::Spin,
            2 => WaitStrategy::Adaptive,
            _ => {
                return Err(OpenError::Incompatible {
                    what: "an unknown wait strategy",
                });
            }
        },
        _ => {
            return Err(OpenError::Incompatible {
                what: "not the parts of this end of a ring",
            });
        }
    };
    let Ok([memory, bell, writer, reader]) = <[OwnedFd; 4]>::try_from(parts.descriptors) else {
        return Err(OpenError::Incompatible {
            what: "a ring's end consists of four descriptors",
        });
    };
    let mapping = Mapping::open(&memory)?;
    let unpacked = Unpacked {
        memory,
        bell: Bell::from_parts([bell])?,
        ringer: Ringer::from_parts([writer, reader])?,
        strategy,
    };
    Ok((mapping, unpacked))
}

fn incompatible(corrupt: Corrupt) -> OpenError {
    OpenError::Untrusted { what: corrupt.0 }
}
