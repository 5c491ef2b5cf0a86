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
    Capabilities, Channel, Handoff, Limits, Listener, OpenError, Parts, Pollable, Receiver,
    RecvError, SendError, Sender, TryClone, Wait,
};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;

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
    LeaksDescriptors SurvivesExec TruncatesSilently Allocates Steals NeverReady);

/// The channel `C` with the flaw `F`; it declares what `C` declares.
#[derive(Debug)]
pub struct Broken<C, F>(PhantomData<(C, F)>);

impl<C: Channel, F: Flawed> Channel for Broken<C, F> {
    const NAME: &'static str = "broken";
    const CAPABILITIES: Capabilities = C::CAPABILITIES;
    type Options = C::Options;
    type Address = C::Address;
    type Sender = BrokenEnd<C::Sender, F>;
    type Receiver = BrokenEnd<C::Receiver, F>;
    type Listener = BrokenListener<C::Listener, F>;

    fn pair(options: &C::Options) -> Result<(Self::Sender, Self::Receiver), OpenError> {
        let (tx, rx) = C::pair(options)?;
        if F::FLAW == Flaw::LeaksDescriptors {
            std::mem::forget(fs::File::open("/dev/null"));
        }
        Ok((BrokenEnd::new(tx), BrokenEnd::new(rx)))
    }

    fn listen(address: &C::Address, options: &C::Options) -> Result<Self::Listener, OpenError> {
        if F::FLAW == Flaw::Steals {
            let _ = fs::remove_file(address.to_string());
        }
        C::listen(address, options).map(|listener| BrokenListener(listener, PhantomData))
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
pub struct BrokenListener<L, F>(L, PhantomData<F>);

impl<L: Listener, F: Flawed> Listener for BrokenListener<L, F> {
    type Receiver = BrokenEnd<L::Receiver, F>;

    fn accept(&mut self, wait: Wait) -> Result<Self::Receiver, OpenError> {
        self.0.accept(wait).map(BrokenEnd::new)
    }
}

/// Either end of a [`Broken`] channel.
#[derive(Debug)]
pub struct BrokenEnd<E, F> {
    end: E,
    /// How many messages this end has sent.
    sent: u64,
    /// Only of the flaw that reorders: the message that waits for the next.
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
            _ => self.end.send_with(message, wait)?,
        }
        if !unlucky && let Some(held) = self.held.take() {
            self.end.send_with(&held, wait)?;
        }
        self.sent += 1;
        Ok(())
    }

    fn limits(&self) -> Limits {
        self.end.limits()
    }
}

impl<R: Receiver, F: Flawed> Receiver for BrokenEnd<R, F> {
    fn recv_with(&mut self, buffer: &mut [u8], wait: Wait) -> Result<usize, RecvError> {
        match self.end.recv_with(buffer, Self::shift(wait)) {
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
        self.end.limits()
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
