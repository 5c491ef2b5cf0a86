use std::os::fd::AsFd;

use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty,
    OpenError, Order, Readiness, Retention, Wait,
};

use crate::sys::{self, Transport};
use crate::{Address, Listener, Options, Receiver, Sender, listener};

/// Stream sockets as channels of whole messages.
#[derive(Clone, Copy, Debug)]
pub struct Socket;

impl Channel for Socket {
    const NAME: &'static str = "socket";

    const CAPABILITIES: Capabilities = Capabilities {
        // A stream: seqpacket would keep boundaries, but reports the death of a peer that left
        // something unread before what it had sent.
        boundaries: Boundaries::Framed,
        // A header of its own keeps it apart from the end of the stream.
        empty: Empty::Carried,
        // Chunks of two senders would mix.
        producers: Arity::One,
        // A reader takes in as much as there is, so a second one would find half a message.
        consumers: Consumers::One,
        order: Order::Fifo,
        // The send buffer of the socket.
        back_pressure: BackPressure::Waits,
        // The kernel closes a dead process's socket.
        death: DeathNotice::HangUp,
        // What was sent stays in the socket, and what was read in travels with the receiver.
        retention: Retention::Object,
        // A socket is a descriptor.
        readiness: Readiness::Pollable,
    };

    type Options = Options;
    type Address = Address;
    type Sender = Sender;
    type Receiver = Receiver;
    type Listener = Listener;

    fn pair(options: &Options) -> Result<(Sender, Receiver), OpenError> {
        options.check()?;
        let (ours, theirs) = sys::pair()?;
        let buffer = sys::size_buffer(ours.as_fd(), options.capacity, options.max_message)?;
        let sender = Sender::new(ours, Transport::Unix, buffer, options);
        let receiver = Receiver::new(theirs, Transport::Unix, options);
        Ok((sender, receiver))
    }

    fn listen(address: &Address, options: &Options) -> Result<Listener, OpenError> {
        Listener::bind(address, options)
    }

    fn connect(address: &Address, options: &Options, wait: Wait) -> Result<Sender, OpenError> {
        options.check()?;
        let (socket, transport) = listener::connect(address, options, wait)?;
        let buffer = sys::size_buffer(socket.as_fd(), options.capacity, options.max_message)?;
        let descriptors = options.descriptors && transport == Transport::Unix;
        let options = Options {
            descriptors,
            ..options.clone()
        };
        Ok(Sender::new(socket, transport, buffer, &options))
    }
}
