//! The least channel of all: a queue that both ends reach through a lock.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ipc_core::{
    Arity, BackPressure, Boundaries, Capabilities, Channel, Consumers, DeathNotice, Empty, Handoff,
    Limits, Listener, Name, OpenError, Order, Parts, Readiness, Receiver, RecvError, Retention,
    SendError, Sender, TryClone, Tunable, Wait, WaitStrategy,
};

/// The reference channel between threads: what the contract means where no kernel object and no
/// second process can be blamed.
#[derive(Debug)]
pub struct InProcess;

/// How many bytes wait before a sender does; it always blocks.
#[derive(Clone, Debug)]
pub struct InProcessOptions {
    capacity: usize,
}

impl Default for InProcessOptions {
    fn default() -> Self {
        Self { capacity: 64 << 10 }
    }
}

impl Tunable for InProcessOptions {
    fn wait_strategy(self, _: WaitStrategy) -> Self {
        self
    }

    fn capacity(self, bytes: usize) -> Self {
        Self { capacity: bytes }
    }
}

impl Channel for InProcess {
    const NAME: &'static str = "in-process";
    const CAPABILITIES: Capabilities = Capabilities {
        boundaries: Boundaries::Framed,
        empty: Empty::Carried,
        // Whoever has the lock sends or receives one whole message.
        producers: Arity::Many,
        consumers: Consumers::Competing,
        order: Order::Fifo,
        back_pressure: BackPressure::Waits,
        death: DeathNotice::SameProcess,
        retention: Retention::Object,
        // A condition variable is no descriptor.
        readiness: Readiness::None,
    };
    type Options = InProcessOptions;
    type Address = Name;
    type Sender = InProcessSender;
    type Receiver = InProcessReceiver;
    type Listener = Nowhere;

    fn pair(options: &InProcessOptions) -> Result<(Self::Sender, Self::Receiver), OpenError> {
        let capacity = options.capacity.max(1 << 10);
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                // Never grown: so no message allocates.
                frames: VecDeque::with_capacity(capacity),
                senders: 1,
                receivers: 1,
            }),
            changed: Condvar::new(),
            capacity,
        });
        Ok((
            InProcessSender(Arc::clone(&queue)),
            InProcessReceiver(queue),
        ))
    }

    fn listen(_: &Name, _: &InProcessOptions) -> Result<Nowhere, OpenError> {
        Err(STAYS)
    }

    fn connect(_: &Name, _: &InProcessOptions, _: Wait) -> Result<InProcessSender, OpenError> {
        Err(STAYS)
    }
}

const STAYS: OpenError = OpenError::Invalid {
    what: "this channel does not leave its process; choose another mechanism",
};

/// No name, hence no listener.
#[derive(Debug)]
pub struct Nowhere(Infallible);

impl Listener for Nowhere {
    type Receiver = InProcessReceiver;

    fn accept(&mut self, _: Wait) -> Result<InProcessReceiver, OpenError> {
        match self.0 {}
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    /// A message came, room came, or an end went.
    changed: Condvar,
    /// Bytes, the lengths in front of the messages included.
    capacity: usize,
}

#[derive(Debug)]
struct State {
    /// Each message behind its length.
    frames: VecDeque<u8>,
    senders: usize,
    receivers: usize,
}

const HEADER: usize = size_of::<u32>();

impl Queue {
    /// A thread that panics with the lock held leaves the queue as it found it: all that can
    /// panic under the lock comes before the first change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until something changes or the wait is over, which is `None`.
    fn sleep<'q>(&self, state: MutexGuard<'q, State>, wait: Wait) -> Option<MutexGuard<'q, State>> {
        match wait.remaining() {
            None => Some(
                self.changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            ),
            Some(left) if left.is_zero() => None,
            Some(left) => {
                let woken = self.changed.wait_timeout(state, left);
                Some(woken.unwrap_or_else(PoisonError::into_inner).0)
            }
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            max_message: self.capacity - HEADER,
            depth_messages: None,
            depth_bytes: Some(self.capacity),
        }
    }
}

/// The sending end of an [`InProcess`] channel.
#[derive(Debug)]
pub struct InProcessSender(Arc<Queue>);

/// The receiving end of an [`InProcess`] channel.
#[derive(Debug)]
pub struct InProcessReceiver(Arc<Queue>);

impl Sender for InProcessSender {
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let queue = &self.0;
        let Limits { max_message, .. } = queue.limits();
        let too_long = SendError::TooLong {
            len: message.len(),
            max: max_message,
        };
        let Ok(length) = u32::try_from(message.len()) else {
            return Err(too_long);
        };
        if message.len() > max_message {
            return Err(too_long);
        }
        let mut state = queue.lock();
        loop {
            if state.receivers == 0 {
                return Err(SendError::Closed);
            }
            if state.frames.len() + HEADER + message.len() <= queue.capacity {
                state.frames.extend(length.to_ne_bytes());
                state.frames.extend(message);
                queue.changed.notify_all();
                return Ok(());
            }
            state = match queue.sleep(state, wait) {
                Some(state) => state,
                None if wait == Wait::Never => return Err(SendError::Full),
                None => return Err(SendError::TimedOut),
            };
        }
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

impl Receiver for InProcessReceiver {
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let queue = &self.0;
        let mut state = queue.lock();
        loop {
            if !state.frames.is_empty() {
                let mut header = [0; HEADER];
                for (byte, there) in header.iter_mut().zip(&state.frames) {
                    *byte = *there;
                }
                let needed = u32::from_ne_bytes(header) as usize;
                let Some(message) = buffer.get_mut(..needed) else {
                    return Err(RecvError::BufferTooSmall { needed });
                };
                let frame = state.frames.drain(..HEADER + needed);
                for (byte, there) in message.iter_mut().zip(frame.skip(HEADER)) {
                    *byte = there;
                }
                queue.changed.notify_all();
                return Ok(needed);
            }
            if state.senders == 0 {
                return Err(RecvError::Closed);
            }
            state = match queue.sleep(state, wait) {
                Some(state) => state,
                None if wait == Wait::Never => return Err(RecvError::Empty),
                None => return Err(RecvError::TimedOut),
            };
        }
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

macro_rules! common {
    ($end:ident, $count:ident) => {
        impl TryClone for $end {
            fn try_clone(&mut self) -> Result<Self, OpenError> {
                self.0.lock().$count += 1;
                Ok(Self(Arc::clone(&self.0)))
            }
        }

        impl Drop for $end {
            fn drop(&mut self) {
                self.0.lock().$count -= 1;
                self.0.changed.notify_all();
            }
        }

        impl Handoff for $end {
            fn to_parts(&self) -> io::Result<Parts> {
                Err(io::Error::new(io::ErrorKind::Unsupported, STAYS))
            }

            fn release(&self) {}

            fn from_parts(_: Parts) -> Result<Self, OpenError> {
                Err(STAYS)
            }
        }
    };
}

common!(InProcessSender, senders);
common!(InProcessReceiver, receivers);
