use std::io::IoSlice;
use std::marker::PhantomData;
use std::time::Duration;

use ipc_core::{
    Channel, Handoff, Listener as _, OpenError, Receiver as _, RecvError, SendError, Sender as _,
    Tunable, Wait,
};

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::parcel::{pack, unpack};
use crate::peer::Link;
use crate::report;
use crate::spec::{Side, Spec};
use crate::workload::{self, Port};

/// Two channels of one family, one each way, made in the supervisor and handed to the processes.
/// `BATCH` offers the sender several messages at a time.
pub(crate) struct ChannelLink<M, const BATCH: bool>(PhantomData<M>);

/// Messages offered at a time where a sender is offered a batch.
pub(crate) const BATCH_MESSAGES: usize = 64;

impl<M: Measured, const BATCH: bool> Link for ChannelLink<M, BATCH> {
    type Port = Ends<M::Family, BATCH>;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (there_tx, there_rx) = pair::<M>(spec)?;
        let (back_tx, back_rx) = pair::<M>(spec)?;
        let max = there_tx.limits().max_message;
        if spec.size > max {
            return Err(Failure::limit(max));
        }
        Ok([
            pack(there_tx.into_parts()?, back_rx.into_parts()?),
            pack(back_tx.into_parts()?, there_rx.into_parts()?),
        ])
    }

    fn port(_spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [sender, receiver] = unpack(bundle)?;
        Ok(Ends {
            sender: Handoff::from_parts(sender)?,
            receiver: Handoff::from_parts(receiver)?,
        })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        depth::<M>(spec)
    }
}

/// A family, made in the way and with the options that its rows are measured with, besides capacity
/// and waiting.
pub(crate) trait Measured: 'static {
    type Family: Channel;

    fn options(_size: usize) -> OptionsOf<Self> {
        OptionsOf::<Self>::default()
    }

    fn pair(options: &OptionsOf<Self>) -> Result<PairOf<Self>, OpenError> {
        Self::Family::pair(options)
    }
}

type OptionsOf<M> = <<M as Measured>::Family as Channel>::Options;
type PairOf<M> = (
    <<M as Measured>::Family as Channel>::Sender,
    <<M as Measured>::Family as Channel>::Receiver,
);

impl Measured for ipc_pipe::Pipe {
    type Family = Self;
}

impl Measured for ipc_socket::Socket {
    type Family = Self;
}

impl Measured for ipc_mqueue::MessageQueue {
    type Family = Self;

    /// Queues for messages of the row's size, as those of the floor are, up to what they have by
    /// default.
    fn options(size: usize) -> ipc_mqueue::Options {
        const DEFAULT: usize = 4096;
        ipc_mqueue::Options::default().message_size(size.min(DEFAULT))
    }
}

impl Measured for ipc_shm::SharedMemory {
    type Family = Self;
}

impl Measured for ipc_signal::SignalQueue {
    type Family = Self;
}

impl Measured for ipc_file::FileLog {
    type Family = Self;

    /// In the directory of the reports, where the floors have their files too.
    fn options(_size: usize) -> ipc_file::Options {
        ipc_file::Options::default().directory(report::directory())
    }
}

/// `ipc-socket` over TCP, within this machine.
pub(crate) struct Tcp;

impl Measured for Tcp {
    type Family = ipc_socket::Socket;

    fn pair(options: &ipc_socket::Options) -> Result<PairOf<Self>, OpenError> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let mut listener = Self::Family::listen(&"tcp:127.0.0.1:0".parse()?, options)?;
        let address = listener.tcp_address().ok_or(OpenError::NotFound)?;
        let address = ipc_socket::Address::Tcp(address.to_string());
        let wait = Wait::at_most(PATIENCE);
        let sender = Self::Family::connect(&address, options, wait)?;
        Ok((sender, listener.accept(wait)?))
    }
}

pub(crate) fn pair<M: Measured>(spec: &Spec) -> Outcome<PairOf<M>> {
    let mut options = M::options(spec.size);
    if let Some(wait) = spec.wait {
        options = options.wait_strategy(wait.into());
    }
    match M::pair(&options.clone().capacity(spec.capacity())) {
        // A capacity that the user may not have is measured as it comes; the depth is in the report.
        Err(OpenError::Limit(_)) => Ok(M::pair(&options)?),
        pair => Ok(pair?),
    }
}

/// Fills a channel of its own to the brim, unless the mechanism itself counts messages.
pub(crate) fn depth<M: Measured>(spec: &Spec) -> Option<u64> {
    const ENOUGH: u64 = 1 << 20;
    // A long message may fit where the channel cannot promise it: then one that may wait tells.
    const PATIENCE: Duration = Duration::from_millis(1);
    let (mut sender, _receiver) = pair::<M>(spec).ok()?;
    if let Some(messages) = sender.limits().depth_messages {
        return u64::try_from(messages).ok();
    }
    let message = vec![0; spec.size];
    for sent in 0..ENOUGH {
        let mut outcome = sender.send_with(&message, Wait::Never);
        if matches!(outcome, Err(SendError::Full | SendError::Limit(_))) {
            outcome = sender.send_with(&message, Wait::at_most(PATIENCE));
        }
        match outcome {
            Ok(()) => {}
            Err(SendError::TimedOut) => return Some(sent),
            Err(_) => return None,
        }
    }
    None
}

/// What one process holds.
pub(crate) struct Ends<C: Channel, const BATCH: bool> {
    sender: C::Sender,
    receiver: C::Receiver,
}

impl<C: Channel, const BATCH: bool> Port for Ends<C, BATCH> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.sender
            .send_with(message, Wait::Forever)
            .map_err(sending)
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        self.receiver
            .recv_with(buffer, Wait::Forever)
            .map_err(receiving)
    }

    fn stream(&mut self, message: &mut [u8], messages: u64) -> Outcome<()> {
        if BATCH {
            return in_batches(message, messages, |batch| {
                let sent = self.sender.send_batch_with(batch, Wait::Forever);
                sent.map_err(sending)
            });
        }
        for number in 0..messages {
            workload::stamp(message, number);
            self.send(message)?;
        }
        Ok(())
    }
}

/// Numbers messages and offers them to `send` in batches, of which it says how many it took.
pub(crate) fn in_batches(
    message: &[u8],
    messages: u64,
    mut send: impl FnMut(&[IoSlice<'_>]) -> Outcome<usize>,
) -> Outcome<()> {
    let mut batch = vec![message.to_vec(); BATCH_MESSAGES];
    let mut next = 0;
    while next < messages {
        let left = usize::try_from(messages - next).unwrap_or(usize::MAX);
        let offered = left.min(BATCH_MESSAGES);
        for (number, message) in (next..).zip(&mut batch[..offered]) {
            workload::stamp(message, number);
        }
        let mut slices = [IoSlice::new(&[]); BATCH_MESSAGES];
        for (slice, message) in slices.iter_mut().zip(&batch) {
            *slice = IoSlice::new(message);
        }
        next += send(&slices[..offered])? as u64;
    }
    Ok(())
}

#[cold]
pub(crate) fn sending(error: SendError) -> Failure {
    match error {
        SendError::TooLong { max, .. } => Failure::limit(max),
        error => error.into(),
    }
}

#[cold]
pub(crate) fn receiving(error: RecvError) -> Failure {
    error.into()
}
