use ipc_core::lifeline::Lifeline;
use ipc_core::rendezvous::{self, RendezvousListener};
use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Name,
    OpenError, Order, Readiness, Retention, Wait,
};

use crate::history::History;
use crate::{Options, Receiver, Sender, notice};

/// Queued real-time signals: one message of 0 to 8 bytes is one signal.
#[derive(Clone, Copy, Debug)]
pub enum SignalQueue {}

impl Channel for SignalQueue {
    const NAME: &'static str = "signal";
    const CAPABILITIES: Capabilities = Capabilities {
        // One signal, one message.
        boundaries: Boundaries::Kernel,
        // The length travels beside the word, so nothing is something.
        empty: Empty::Carried,
        // Several senders would need one account of the messages in flight.
        producers: Arity::One,
        // The queue belongs to one process.
        consumers: Consumers::One,
        // signal(7): of one real-time signal, in the order in which they were sent.
        order: Order::Fifo,
        // The kernel only fails at its limit; the receiver's notices make it a wait.
        back_pressure: BackPressure::Waits,
        // A queue of signals does not say who sent them, let alone whether he lives.
        death: DeathNotice::Lifeline,
        // Pending signals belong to a process and die with it.
        retention: Retention::Receiver,
        // A signalfd is readable for whoever polls it, not for whoever opened it.
        readiness: Readiness::None,
    };
    type Options = Options;
    type Address = Name;
    type Sender = Sender;
    type Receiver = Receiver;
    type Listener = RendezvousListener<Receiver>;

    /// The receiver is ready at once in this process; handed to another, it is ready there anew.
    fn pair(options: &Options) -> Result<(Sender, Receiver), OpenError> {
        let (sender_life, receiver_life) =
            Lifeline::pair().map_err(|e| OpenError::io("socketpair", e))?;
        let (sender_notices, receiver_notices) =
            notice::pair().map_err(|e| OpenError::io("socketpair", e))?;
        let window = options.window();
        let history = History::new(window);
        let sender = Sender::new(sender_life, sender_notices, None, history, options.strategy);
        let receiver = Receiver::open(
            receiver_life,
            receiver_notices,
            window,
            options.strategy,
            options.signal,
        )?;
        Ok((sender, receiver))
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
