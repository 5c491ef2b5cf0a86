use std::io::IoSlice;
use std::marker::PhantomData;

use ipc_core::{
    Channel, Handoff, OpenError, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait,
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
pub(crate) struct ChannelLink<C, const BATCH: bool>(PhantomData<C>);

/// Messages offered at a time where a sender is offered a batch.
pub(crate) const BATCH_MESSAGES: usize = 64;

impl<C: Measured, const BATCH: bool> Link for ChannelLink<C, BATCH> {
    type Port = Ends<C, BATCH>;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        let (there_tx, there_rx) = pair::<C>(spec)?;
        let (back_tx, back_rx) = pair::<C>(spec)?;
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
        let sender = C::Sender::from_parts(sender)?;
        let receiver = C::Receiver::from_parts(receiver)?;
        Ok(Ends { sender, receiver })
    }

    fn depth(spec: &Spec) -> Option<u64> {
        depth::<C>(spec)
    }
}

/// A family with the options that its rows are measured with, besides capacity and waiting.
pub(crate) trait Measured: Channel {
    fn options() -> Self::Options {
        Self::Options::default()
    }
}

impl Measured for ipc_pipe::Pipe {}
impl Measured for ipc_socket::Socket {}
impl Measured for ipc_mqueue::MessageQueue {}
impl Measured for ipc_shm::SharedMemory {}
impl Measured for ipc_signal::SignalQueue {}

impl Measured for ipc_file::FileLog {
    /// In the directory of the reports, where the floors have their files too.
    fn options() -> ipc_file::Options {
        ipc_file::Options::default().directory(report::directory())
    }
}

pub(crate) fn pair<C: Measured>(spec: &Spec) -> Outcome<(C::Sender, C::Receiver)> {
    let mut options = C::options();
    if let Some(wait) = spec.wait {
        options = options.wait_strategy(wait.into());
    }
    match C::pair(&options.clone().capacity(spec.capacity())) {
        // A capacity that the user may not have is measured as it comes; the depth is in the report.
        Err(OpenError::Limit(_)) => Ok(C::pair(&options)?),
        pair => Ok(pair?),
    }
}

/// Fills a channel of its own to the brim, unless the mechanism itself counts messages.
pub(crate) fn depth<C: Measured>(spec: &Spec) -> Option<u64> {
    const ENOUGH: u64 = 1 << 20;
    let (mut sender, _receiver) = pair::<C>(spec).ok()?;
    if let Some(messages) = sender.limits().depth_messages {
        return u64::try_from(messages).ok();
    }
    let message = vec![0; spec.size];
    for sent in 0..ENOUGH {
        match sender.send_with(&message, Wait::Never) {
            Ok(()) => {}
            Err(SendError::Full) => return Some(sent),
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
