use ipc_core::lifeline::Lifeline;
use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Name,
    OpenError, Order, Readiness, Retention, Wait,
};

use crate::inbox::Inbox;
use crate::queue::Access;
use crate::sender::BASE;
use crate::sys::Mqd;
use crate::{Options, Receiver, Sender};

/// The family of channels over POSIX message queues; see the [crate documentation](crate).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageQueue;

impl Channel for MessageQueue {
    const NAME: &'static str = "mqueue";

    const CAPABILITIES: Capabilities = Capabilities {
        // mq_receive(3) gives exactly one message.
        boundaries: Boundaries::Kernel,
        // A message of no bytes is a message; the end is told by the lifeline alone.
        empty: Empty::Carried,
        // The kernel would take many, but one lifeline speaks for one peer on each side. Several
        // producers and consumers share a `Queue`, which has no notice of death.
        producers: Arity::One,
        consumers: Consumers::One,
        // `send` uses priority 0 throughout, hence first in, first out.
        order: Order::Priority,
        back_pressure: BackPressure::Waits,
        // poll(2) never reports POLLHUP on a message queue.
        death: DeathNotice::Lifeline,
        // The kernel frees the messages with the last descriptor of the unlinked queue.
        retention: Retention::Object,
        readiness: Readiness::Pollable,
    };

    type Options = Options;
    type Address = Name;
    type Sender = Sender;
    type Receiver = Receiver;
    type Listener = RendezvousListener<Receiver>;

    fn pair(options: &Options) -> Result<(Sender, Receiver), OpenError> {
        let (size, depth) = options.resolve();
        let queue = Mqd::create_nameless(size, depth)?;
        let (sending, receiving) = (queue.narrow(Access::Send)?, queue.narrow(Access::Receive)?);
        let (near, far) = Lifeline::pair().map_err(crate::limit::of_lifeline)?;
        let strategy = options.strategy();
        Ok((
            Sender::new(sending, near, strategy)?,
            Receiver::new(Inbox::new(receiving, BASE)?, far, strategy),
        ))
    }

    fn listen(address: &Name, _options: &Options) -> Result<Self::Listener, OpenError> {
        // The connector makes the queue: its options count.
        RendezvousListener::bind(address, Self::NAME)
    }

    fn connect(address: &Name, options: &Options, wait: Wait) -> Result<Sender, OpenError> {
        let (sender, receiver) = Self::pair(options)?;
        rendezvous::connect(address, Self::NAME, receiver, wait)?;
        Ok(sender)
    }
}
