use std::os::fd::{AsFd, OwnedFd};

use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Name,
    OpenError, Order, Readiness, Retention, Wait, Waiter,
};

use crate::cursor::Cursor;
use crate::link::Link;
use crate::options::{Durability, Options};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::sys;
use crate::writer::Writer;

/// Channels that are files: an append-only log of checksummed records.
#[derive(Debug)]
pub enum FileLog {}

impl Channel for FileLog {
    const NAME: &'static str = "file";

    const CAPABILITIES: Capabilities = Capabilities {
        // A file is bytes; the record header says where a message ends.
        boundaries: Boundaries::Framed,
        // A record of no payload is still a record.
        empty: Empty::Carried,
        // One writer: the commit protocol knows the end of the log without asking anybody.
        producers: Arity::One,
        // The space of a channel's log is used anew once its one receiver has read it.
        consumers: Consumers::One,
        // A log has one order.
        order: Order::Fifo,
        // What was read is written over, so a channel never fills the disk.
        back_pressure: BackPressure::Waits,
        // A file says nothing of its holders.
        death: DeathNotice::Lifeline,
        // The file of a channel has no name: it lives as long as somebody holds it, and not
        // longer. What outlives all ends is a `Log`, which has no one receiver to be handed over.
        retention: Retention::Object,
        // An epoll(7) instance watches doorbell and lifeline.
        readiness: Readiness::Pollable,
    };

    type Options = Options;
    type Address = Name;
    type Sender = Sender;
    type Receiver = Receiver;
    type Listener = RendezvousListener<Receiver>;

    fn pair(options: &Options) -> Result<(Sender, Receiver), OpenError> {
        let shape = Shape::ring(options.capacity);
        if !shape.is_sound() {
            return Err(OpenError::Invalid {
                what: "a capacity of more than 1 TiB",
            });
        }
        let file = file(options, shape.file())?;
        // Of sealed memory nobody can truncate anything; of a file the receiver shall not.
        let theirs = sys::read_only(file.as_fd())?;
        let epoch = sys::random();
        let (ours, link) = Link::pair()?;
        let writer = Writer::create(file.as_fd(), shape, epoch)?;
        let cursor = Cursor::attach(theirs, shape, epoch, SEGMENT_HEADER, 0)?;
        let waiter = Waiter::new(options.wait_strategy);
        Ok((
            Sender::new(file, writer, ours, waiter.clone()),
            Receiver::new(cursor, link, waiter),
        ))
    }

    fn listen(address: &Name, _: &Options) -> Result<Self::Listener, OpenError> {
        RendezvousListener::bind(address, Self::NAME)
    }

    fn connect(address: &Name, options: &Options, wait: Wait) -> Result<Sender, OpenError> {
        let (sender, receiver) = Self::pair(options)?;
        rendezvous::connect(address, Self::NAME, receiver, wait)?;
        Ok(sender)
    }
}

/// Where the messages of a channel will lie.
fn file(options: &Options, len: u64) -> Result<OwnedFd, OpenError> {
    match options.durability {
        Durability::Nothing => Ok(sys::sealed_memory(c"ipc-file", len)?),
        Durability::Process => {
            let temporary = std::env::temp_dir();
            let directory = options.directory.as_deref().unwrap_or(&temporary);
            Ok(sys::unnamed_file(directory, len)?)
        }
        Durability::PowerLoss => Err(OpenError::Invalid {
            what: "a channel that survives power loss: its file has no name to be found by; use \
                   `Log` and `Follower`",
        }),
    }
}
