use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Name,
    OpenError, Order, Readiness, Retention, Wait,
};

use crate::doorbell;
use crate::link::Link;
use crate::options::Options;
use crate::receiver::Receiver;
use crate::ring::{Consumer, Corrupt, Producer};
use crate::sender::Sender;
use crate::sys::{self, Mapping};

/// A ring in shared memory as a channel.
#[derive(Clone, Copy, Debug)]
pub struct SharedMemory;

impl Channel for SharedMemory {
    const NAME: &'static str = "shm";

    const CAPABILITIES: Capabilities = Capabilities {
        // Memory has no messages; each frame begins with its length.
        boundaries: Boundaries::Framed,
        // A frame of length zero is a frame.
        empty: Empty::Carried,
        // The tail has one writer: that is what makes a send cost no lock.
        producers: Arity::One,
        // So has the head.
        consumers: Consumers::One,
        // Bytes are read where they were written, in that order.
        order: Order::Fifo,
        // The sender does not overtake the head.
        back_pressure: BackPressure::Waits,
        // Memory does not know who maps it; the pipe that is the doorbell hangs up.
        death: DeathNotice::Lifeline,
        // The memory lives as long as any process maps it.
        retention: Retention::Object,
        // An end that asks for it is rung for as if it slept.
        readiness: Readiness::Pollable,
    };

    type Options = Options;
    type Address = Name;
    type Sender = Sender;
    type Receiver = Receiver;
    type Listener = RendezvousListener<Receiver>;

    fn pair(options: &Options) -> Result<(Sender, Receiver), OpenError> {
        let memory = sys::create_memory(options.ring_len()?)?;
        let for_sender = Mapping::create(&memory, options.ring_len()?)?;
        let for_receiver = Mapping::open(&memory)?;
        let (sender_bell, rings_sender) = doorbell::create()?;
        let (receiver_bell, rings_receiver) = doorbell::create()?;
        let sender_memory = rustix::io::fcntl_dupfd_cloexec(&memory, 0)
            .map_err(|error| sys::open_error("fcntl(F_DUPFD_CLOEXEC)", error))?;

        let strategy = options.strategy();
        let fresh = |corrupt: Corrupt| OpenError::Untrusted { what: corrupt.0 };
        let producer = Producer::attach(for_sender).map_err(fresh)?;
        let consumer = Consumer::attach(for_receiver).map_err(fresh)?;
        let sender_link = Link::new(
            &producer,
            sender_memory,
            sender_bell,
            rings_receiver,
            strategy,
        );
        let receiver_link = Link::new(&consumer, memory, receiver_bell, rings_sender, strategy);
        Ok((
            Sender::new(producer, sender_link),
            Receiver::new(consumer, receiver_link),
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
