use std::io::IoSlice;
use std::marker::PhantomData;

use ipc_core::{
    Channel, Handoff, OpenError, Parts, Receiver as _, RecvError, SendError, Sender as _, Tunable,
    Wait,
};

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::{self, Port};

/// Two channels of one family, one each way, made in the supervisor and handed to the processes.
/// `BATCH` offers the sender several messages at a time.
pub(crate) struct ChannelLink<C, const BATCH: bool>(PhantomData<C>);

/// Messages offered at a time where a sender is offered a batch.
const BATCH_MESSAGES: usize = 64;

impl<C: Channel, const BATCH: bool> Link for ChannelLink<C, BATCH> {
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

    fn port(spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [sender, receiver] = unpack(bundle)?;
        let sender = C::Sender::from_parts(sender)?;
        let receiver = C::Receiver::from_parts(receiver)?;
        Ok(Ends {
            sender,
            receiver,
            size: spec.size,
        })
    }
}

fn pair<C: Channel>(spec: &Spec) -> Outcome<(C::Sender, C::Receiver)> {
    let mut options = C::Options::default();
    if let Some(wait) = spec.wait {
        options = options.wait_strategy(wait.into());
    }
    match C::pair(&options.clone().capacity(spec.capacity())) {
        // What the user may not have is measured as it comes; the depth is in the report.
        Err(OpenError::Limit(_) | OpenError::Invalid { .. }) => Ok(C::pair(&options)?),
        pair => Ok(pair?),
    }
}

/// Both ends of one process in one bundle: how many descriptors and bytes are the sender's, then
/// everything.
fn pack(sender: Parts, receiver: Parts) -> Bundle {
    let counts = [sender.descriptors.len(), sender.data.len()];
    let mut data = Vec::new();
    for count in counts {
        data.extend_from_slice(&(count as u64).to_ne_bytes());
    }
    data.extend_from_slice(&sender.data);
    data.extend_from_slice(&receiver.data);
    let mut descriptors = sender.descriptors;
    descriptors.extend(receiver.descriptors);
    Bundle { descriptors, data }
}

fn unpack(bundle: Bundle) -> Outcome<[Parts; 2]> {
    let lost = || Failure::Failed("the ends were lost on the way".into());
    let Bundle {
        mut descriptors,
        data,
    } = bundle;
    let (fds, data) = data.split_first_chunk::<8>().ok_or_else(lost)?;
    let (len, data) = data.split_first_chunk::<8>().ok_or_else(lost)?;
    let fds = usize::try_from(u64::from_ne_bytes(*fds))?;
    let len = usize::try_from(u64::from_ne_bytes(*len))?;
    if fds > descriptors.len() || len > data.len() {
        return Err(lost());
    }
    let (sender, receiver) = data.split_at(len);
    let rest = descriptors.split_off(fds);
    Ok([
        Parts {
            descriptors,
            data: sender.into(),
        },
        Parts {
            descriptors: rest,
            data: receiver.into(),
        },
    ])
}

/// What one process holds.
pub(crate) struct Ends<C: Channel, const BATCH: bool> {
    sender: C::Sender,
    receiver: C::Receiver,
    size: usize,
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
            return self.stream_batches(message, messages);
        }
        for number in 0..messages {
            workload::stamp(message, number);
            self.send(message)?;
        }
        Ok(())
    }

    fn depth(&self) -> Option<u64> {
        let limits = self.sender.limits();
        let by_bytes = limits.depth_bytes.map(|bytes| bytes / self.size);
        let depth = match (limits.depth_messages, by_bytes) {
            (Some(messages), Some(bytes)) => messages.min(bytes),
            (messages, bytes) => messages.or(bytes)?,
        };
        u64::try_from(depth).ok()
    }
}

impl<C: Channel, const BATCH: bool> Ends<C, BATCH> {
    fn stream_batches(&mut self, message: &[u8], messages: u64) -> Outcome<()> {
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
            let sent = self
                .sender
                .send_batch_with(&slices[..offered], Wait::Forever);
            next += sent.map_err(sending)? as u64;
        }
        Ok(())
    }
}

#[cold]
fn sending(error: SendError) -> Failure {
    match error {
        SendError::TooLong { max, .. } => Failure::limit(max),
        error => error.into(),
    }
}

#[cold]
fn receiving(error: RecvError) -> Failure {
    error.into()
}
