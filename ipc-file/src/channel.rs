use std::os::fd::AsFd;

use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Name,
    OpenError, Order, Readiness, Retention, Wait, Waiter,
};

use crate::cursor::Cursor;
use crate::link::Link;
use crate::options::Options;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shape::{SEGMENT_HEADER, Shape};
use crate::store::Store;
use crate::sys::{self, Fault};
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
        // The file of a channel has no name: it lives as long as somebody holds it.
        retention: Retention::Object,
        // Doorbell and lifeline are two descriptors.
        readiness: Readiness::None,
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
        let temporary = std::env::temp_dir();
        let directory = options.directory.as_deref().unwrap_or(&temporary);
        let file = sys::unnamed_file(directory, shape.file())?;
        let again = file
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Fault::Io("fcntl", e))?;
        let epoch = sys::random();
        let (ours, theirs) = Link::pair()?;
        let writer = Writer::create(file, shape, epoch)?;
        let cursor = Cursor::attach(Store::Ring(again), shape, epoch, SEGMENT_HEADER, 0)?;
        let waiter = Waiter::new(options.wait_strategy);
        Ok((
            Sender::new(writer, ours, options.durability, waiter.clone()),
            Receiver::new(cursor, theirs, waiter),
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
