//! Channels that break the contract in one way each, to prove that the suite notices.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use ipc_core::wait::{Interest, poll};
use ipc_core::{
    Capabilities, Channel, Empty, Handoff, Limits, Listener, OpenError, Parts, Pollable, Receiver,
    RecvError, SendError, Sender, TryClone, Wait,
};
use rustix::fs::Mode;
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;
use rustix::process::{Signal, getpid, kill_process};

/// Which message of a sender suffers from its flaw.
const VICTIM: u64 = 200;
/// By how much a flawed end overruns its deadlines.
const OVERRUN: Duration = Duration::from_millis(200);
/// By how much a flawed end falls short of them.
const HASTE: Duration = Duration::from_millis(10);

/// One way to break the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// One message of a sender is committed and never arrives.
    LosesOne,
    /// One message of a sender arrives twice.
    DuplicatesOne,
    /// One message of a sender changes places with the next.
    Reorders,
    /// Messages arrive in two pieces.
    Tears,
    /// A deadline is overrun by a fifth of a second.
    IgnoresDeadlines,
    /// A deadline comes ten milliseconds early.
    ComesEarly,
    /// The receiver waits for ever once its sender has died.
    HangsOnDeath,
    /// Every channel leaves a descriptor behind.
    LeaksDescriptors,
    /// Every channel has a descriptor that other programs inherit.
    SurvivesExec,
    /// A message is cut to the buffer.
    TruncatesSilently,
    /// Every message allocates.
    Allocates,
    /// A listener takes a name from whoever has it.
    Steals,
    /// The descriptor of an end is never ready.
    NeverReady,
    /// A message goes off with the next one.
    Buffers,
    /// The end is told in place of the last message.
    EndsEarly,
    /// What a send that timed out was to send arrives all the same.
    SendsLate,
    /// A message that does not fit the buffer is gone.
    Forgets,
    /// The buffer that a message needs is said to be a byte longer.
    MisstatesNeed,
    /// The longest message is said to be a byte longer than it is.
    OverstatesLongest,
    /// The longest message is said to be a byte shorter than it is.
    UnderstatesLongest,
    /// The channel is said to hold one message.
    MisstatesDepth,
    /// A wait with a deadline looks again only then.
    SleepsIn,
    /// A listener that is dropped keeps its name.
    KeepsName,
    /// A send to nobody raises SIGPIPE.
    RaisesSignal,
    /// Making a channel changes the umask.
    ChangesUmask,
    /// Messages of no bytes are declared, and refused.
    DeclaresEmpty,
}

/// Chooses a flaw by a type, as each channel family is one.
pub trait Flawed: Send + Debug + 'static {
    /// The flaw.
    const FLAW: Flaw;
}

macro_rules! flaws {
    ($($flaw:ident)*) => {$(
        #[doc = concat!("See [`Flaw::", stringify!($flaw), "`].")]
        #[derive(Debug)]
        pub struct $flaw;

        impl Flawed for $flaw {
            const FLAW: Flaw = Flaw::$flaw;
        }
    )*};
}

flaws!(LosesOne DuplicatesOne Reorders Tears IgnoresDeadlines ComesEarly HangsOnDeath
    LeaksDescriptors SurvivesExec TruncatesSilently Allocates Steals NeverReady Buffers EndsEarly
    SendsLate Forgets MisstatesNeed OverstatesLongest UnderstatesLongest MisstatesDepth SleepsIn
    KeepsName RaisesSignal ChangesUmask DeclaresEmpty);

/// The channel `C` with the flaw `F`; it declares what `C` declares, unless that is the flaw.
#[derive(Debug)]
pub struct Broken<C, F>(PhantomData<(C, F)>);

impl<C: Channel, F: Flawed> Channel for Broken<C, F> {
    const NAME: &'static str = "broken";
    const CAPABILITIES: Capabilities = match F::FLAW {
        Flaw::DeclaresEmpty => Capabilities {
            empty: Empty::Carried,
            ..C::CAPABILITIES
        },
        _ => C::CAPABILITIES,
    };
    type Options = C::Options;
    type Address = C::Address;
    type Sender = BrokenEnd<C::Sender, F>;
    type Receiver = BrokenEnd<C::Receiver, F>;
    type Listener = BrokenListener<C::Listener, F>;

    fn pair(options: &C::Options) -> Result<(Self::Sender, Self::Receiver), OpenError> {
        let (tx, rx) = C::pair(options)?;
        match F::FLAW {
            Flaw::LeaksDescriptors => std::mem::forget(fs::File::open("/dev/null")),
            Flaw::ChangesUmask => drop(rustix::process::umask(Mode::RWXU)),
            _ => {}
        }
        Ok((BrokenEnd::new(tx), BrokenEnd::new(rx)))
    }

    fn listen(address: &C::Address, options: &C::Options) -> Result<Self::Listener, OpenError> {
        if F::FLAW == Flaw::Steals {
            let _ = fs::remove_file(address.to_string());
        }
        C::listen(address, options).map(|listener| BrokenListener(Some(listener), PhantomData))
    }

    fn connect(
        address: &C::Address,
        options: &C::Options,
        wait: Wait,
    ) -> Result<Self::Sender, OpenError> {
        C::connect(address, options, wait).map(BrokenEnd::new)
    }
}

/// A listener of a [`Broken`] channel.
#[derive(Debug)]
pub struct BrokenListener<L, F: Flawed>(Option<L>, PhantomData<F>);

impl<L, F: Flawed> Drop for BrokenListener<L, F> {
    fn drop(&mut self) {
        if F::FLAW == Flaw::KeepsName {
            std::mem::forget(self.0.take());
        }
    }
}

impl<L: Listener, F: Flawed> Listener for BrokenListener<L, F> {
    type Receiver = BrokenEnd<L::Receiver, F>;

    fn accept(&mut self, wait: Wait) -> Result<Self::Receiver, OpenError> {
        let listener = self.0.as_mut().expect("there until the drop");
        listener.accept(wait).map(BrokenEnd::new)
    }
}

/// Either end of a [`Broken`] channel.
#[derive(Debug)]
pub struct BrokenEnd<E, F> {
    end: E,
    /// How many messages this end has sent.
    sent: u64,
    /// A message that waits for the next, or for the flawed moment.
    held: Option<Vec<u8>>,
    /// Only of the flaw that survives exec.
    _stray: Option<OwnedFd>,
    flaw: PhantomData<F>,
}

impl<E, F: Flawed> BrokenEnd<E, F> {
    fn new(end: E) -> Self {
        let stray = (F::FLAW == Flaw::SurvivesExec).then(null);
        if let Some(stray) = &stray {
            rustix::io::fcntl_setfd(stray, FdFlags::empty()).expect("fcntl");
        }
        Self {
            end,
            sent: 0,
            held: None,
            _stray: stray,
            flaw: PhantomData,
        }
    }

    fn misstate(limits: Limits) -> Limits {
        let longest = limits.max_message;
        match F::FLAW {
            Flaw::OverstatesLongest => Limits {
                max_message: longest + 1,
                ..limits
            },
            Flaw::UnderstatesLongest => Limits {
                max_message: longest - 1,
                ..limits
            },
            Flaw::MisstatesDepth => Limits {
                depth_messages: Some(1),
                ..limits
            },
            _ => limits,
        }
    }

    fn shift(wait: Wait) -> Wait {
        match (wait, F::FLAW) {
            (Wait::Until(deadline), Flaw::IgnoresDeadlines) => Wait::Until(deadline + OVERRUN),
            (Wait::Until(deadline), Flaw::ComesEarly) => {
                Wait::Until(deadline.checked_sub(HASTE).unwrap_or(deadline))
            }
            (wait, _) => wait,
        }
    }
}

impl<S: Sender, F: Flawed> Sender for BrokenEnd<S, F> {
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        let wait = Self::shift(wait);
        let unlucky = self.sent == VICTIM;
        match F::FLAW {
            Flaw::LosesOne if unlucky => {}
            Flaw::DuplicatesOne if unlucky => {
                self.end.send_with(message, wait)?;
                self.end.send_with(message, wait)?;
            }
            Flaw::Reorders if unlucky => self.held = Some(message.to_vec()),
            Flaw::Tears if self.sent >= VICTIM && message.len() > 1 => {
                let (head, tail) = message.split_at(message.len() / 2);
                self.end.send_with(head, wait)?;
                self.end.send_with(tail, wait)?;
            }
            Flaw::Allocates => {
                let copy = std::hint::black_box(message.to_vec());
                self.end.send_with(&copy, wait)?;
            }
            Flaw::Buffers => {
                if let Some(held) = self.held.replace(message.to_vec()) {
                    self.end.send_with(&held, wait)?;
                }
                return Ok(());
            }
            Flaw::SendsLate => {
                if wait == Wait::Forever
                    && let Some(held) = self.held.take()
                {
                    self.end.send_with(&held, wait)?;
                }
                let sent = self.end.send_with(message, wait);
                if matches!(sent, Err(SendError::TimedOut)) {
                    self.held = Some(message.to_vec());
                }
                return sent;
            }
            Flaw::RaisesSignal => {
                let sent = self.end.send_with(message, wait);
                if matches!(sent, Err(SendError::Closed | SendError::PeerDied)) {
                    kill_process(getpid(), Signal::PIPE).expect("kill");
                }
                return sent;
            }
            _ => self.end.send_with(message, wait)?,
        }
        if !unlucky && let Some(held) = self.held.take() {
            self.end.send_with(&held, wait)?;
        }
        self.sent += 1;
        Ok(())
    }

    fn limits(&self) -> Limits {
        Self::misstate(self.end.limits())
    }
}

impl<R: Receiver, F: Flawed> BrokenEnd<R, F> {
    /// Always one message ahead, and forgets it for the end that comes behind it.
    fn recv_ahead(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        let message = match self.held.take() {
            Some(held) => held,
            None => {
                let mut first = Vec::new();
                self.end.recv_vec(&mut first, wait)?;
                first
            }
        };
        let mut next = Vec::new();
        match self.end.recv_vec(&mut next, Wait::Never) {
            Ok(()) => self.held = Some(next),
            Err(RecvError::Closed) => return Err(RecvError::Closed),
            Err(_) => {}
        }
        buffer[..message.len()].copy_from_slice(&message);
        Ok(message.len())
    }
}

impl<R: Receiver, F: Flawed> Receiver for BrokenEnd<R, F> {
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        match F::FLAW {
            Flaw::EndsEarly => return self.recv_ahead(buffer, wait),
            Flaw::SleepsIn if matches!(wait, Wait::Until(_)) => {
                let _ = poll([], wait);
            }
            _ => {}
        }
        match self.end.recv_with(buffer, Self::shift(wait)) {
            Err(RecvError::BufferTooSmall { needed }) if F::FLAW == Flaw::Forgets => {
                self.end.recv_with(&mut vec![0; needed], wait)?;
                Err(RecvError::BufferTooSmall { needed })
            }
            Err(RecvError::BufferTooSmall { needed }) if F::FLAW == Flaw::MisstatesNeed => {
                Err(RecvError::BufferTooSmall { needed: needed + 1 })
            }
            Err(RecvError::BufferTooSmall { needed }) if F::FLAW == Flaw::TruncatesSilently => {
                let mut whole = vec![0; needed];
                self.end.recv_with(&mut whole, wait)?;
                buffer.copy_from_slice(&whole[..buffer.len()]);
                Ok(buffer.len())
            }
            Err(RecvError::PeerDied) if F::FLAW == Flaw::HangsOnDeath => {
                let _ = poll([], Wait::Forever);
                Err(RecvError::PeerDied)
            }
            outcome => outcome,
        }
    }

    fn limits(&self) -> Limits {
        Self::misstate(self.end.limits())
    }
}

impl<E: Handoff, F: Flawed> Handoff for BrokenEnd<E, F> {
    fn to_parts(&self) -> io::Result<Parts> {
        self.end.to_parts()
    }

    fn release(&self) {
        self.end.release();
    }

    fn from_parts(parts: Parts) -> Result<Self, OpenError> {
        E::from_parts(parts).map(Self::new)
    }
}

impl<E: TryClone, F: Flawed> TryClone for BrokenEnd<E, F> {
    fn try_clone(&mut self) -> Result<Self, OpenError> {
        self.end.try_clone().map(Self::new)
    }
}

/// A pipe into which nothing is ever written.
static SILENT: LazyLock<(OwnedFd, OwnedFd)> =
    LazyLock::new(|| rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("pipe2"));

impl<E: AsFd, F: Flawed> AsFd for BrokenEnd<E, F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if F::FLAW == Flaw::NeverReady {
            SILENT.0.as_fd()
        } else {
            self.end.as_fd()
        }
    }
}

impl<E: Pollable, F: Flawed> Pollable for BrokenEnd<E, F> {
    fn interest(&self) -> Interest {
        self.end.interest()
    }

    fn longest_ready(&self) -> usize {
        self.end.longest_ready()
    }

    fn arm(&mut self) -> bool {
        self.end.arm()
    }
}

fn null() -> OwnedFd {
    fs::File::open("/dev/null").expect("open").into()
}
