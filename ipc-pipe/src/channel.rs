use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Name,
    OpenError, Order, Readiness, Retention, Wait,
};
use rustix::io::Errno;

use crate::notes::Notes;
use crate::sys::Descriptor;
use crate::{Listener, Options, Receiver, Sender, fifo, frame, sys};

/// Channels over pipes, and over FIFOs where they need a name.
#[derive(Clone, Copy, Debug)]
pub struct Pipe;

impl Channel for Pipe {
    const NAME: &'static str = "pipe";
    const CAPABILITIES: Capabilities = Capabilities {
        // A pipe carries bytes (pipe(7)).
        boundaries: Boundaries::Framed,
        // The frame has a length of its own, so that no bytes are not an end.
        empty: Empty::Carried,
        // Writes up to PIPE_BUF are atomic; see `Sender::try_clone`.
        producers: Arity::Many,
        // Two readers would tear frames apart.
        consumers: Consumers::One,
        order: Order::Fifo,
        back_pressure: BackPressure::Waits,
        // read(2) gives 0, write(2) gives EPIPE once the other side has no descriptor left.
        death: DeathNotice::HangUp,
        retention: Retention::Object,
        readiness: Readiness::Pollable,
    };
    type Options = Options;
    type Address = Name;
    type Sender = Sender;
    type Receiver = Receiver;
    type Listener = Listener;

    fn pair(options: &Options) -> Result<(Sender, Receiver), OpenError> {
        check(options)?;
        let (reader, writer) = sys::pipe()?;
        let reader = Descriptor::reader(reader)?;
        let writer = Descriptor::writer(writer)?;
        let notes = Notes::anonymous()?;
        notes.sender_opened()?;
        let receiver = Receiver::new(reader, notes.try_clone()?, options);
        Ok((sender(writer, notes, options), receiver))
    }

    fn listen(address: &Name, options: &Options) -> Result<Listener, OpenError> {
        check(options)?;
        Listener::bind(address, options)
    }

    fn connect(address: &Name, options: &Options, wait: Wait) -> Result<Sender, OpenError> {
        check(options)?;
        let (writer, notes) = fifo::connect(address, wait)?;
        Ok(sender(writer, notes, options))
    }
}

fn sender(writer: Descriptor, notes: Notes, options: &Options) -> Sender {
    // A wish; see `Options::capacity`. The size that a pipe has is never refused.
    let mut capacity = options.capacity;
    while rustix::pipe::fcntl_setpipe_size(&writer, capacity) == Err(Errno::PERM)
        && capacity > frame::PIPE_BUF
    {
        capacity /= 2;
    }
    Sender::new(writer, notes, options)
}

fn check(options: &Options) -> Result<(), OpenError> {
    if options.max_message == 0 || options.max_message > frame::LONGEST {
        return Err(OpenError::Invalid {
            what: "max_message must lie between 1 and 4294967294",
        });
    }
    Ok(())
}
