use std::any::type_name;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::spawn::signals;
use crate::start::short_name;
use crate::{Process, Target, Unstarted};

/// A process type of your own: state that travels there, and what is done with it.
///
/// ```
/// use std::time::Duration;
/// use ipc_process::{Context, Process, Run};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Clock {
///     period: Duration,
/// }
///
/// impl Run for Clock {
///     type Output = u32;
///
///     fn run(self, context: &Context) -> u32 {
///         let mut ticks = 0;
///         while !context.wait(self.period) {
///             ticks += 1;
///         }
///         ticks // once terminate() has been called
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// ipc_process::init();
/// let clock = Process::of(Clock { period: Duration::from_millis(1) }).name("clock").start()?;
/// clock.terminate()?;
/// println!("{} ticks", clock.join()?);
/// # Ok(())
/// # }
/// ```
pub trait Run: Serialize + DeserializeOwned + 'static {
    /// What the process gives back.
    type Output: Serialize + DeserializeOwned + 'static;

    /// What the process does.
    fn run(self, context: &Context) -> Self::Output;
}

impl<R: Serialize + DeserializeOwned + 'static> Process<R> {
    /// Describes a process that [runs](Run) this state; nothing exists until
    /// [`start`](Unstarted::start).
    ///
    /// [`terminate`](Self::terminate) does not end such a process but asks it to stop, which its
    /// [`Context`] tells.
    pub fn of<S: Run<Output = R>>(state: S) -> Unstarted<impl Target<(S,), Output = R>, (S,)> {
        let mut description = Self::new(run_state::<S>, (state,));
        description.stoppable = true;
        description.name(short_name(type_name::<S>()))
    }
}

fn run_state<S: Run>(state: S) -> S::Output {
    state.run(&Context::of_this_process())
}

/// What a process that [runs](Run) its state is told.
#[derive(Debug)]
pub struct Context {
    /// Readable from the first SIGTERM on, which is never taken from it.
    stop: OwnedFd,
}

impl Context {
    fn of_this_process() -> Self {
        let stop = signals::arrival_of(Signal::TERM)
            .unwrap_or_else(|error| panic!("signalfd failed: {error}"));
        Self { stop }
    }

    /// Whether the process was asked to stop, by [`terminate`](Process::terminate) or by the end
    /// of the program that it is a daemon of.
    #[must_use]
    pub fn is_asked_to_stop(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    /// Rests this long, or until the process is asked to stop; whether it was.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let stop = [(self.stop.as_fd(), Interest::Read)];
        poll(stop, Wait::at_most(time)) == Ok(Polled::Ready)
    }
}

/// Readable once the process was asked to stop: to be polled beside a channel. It is not to be
/// read from.
impl AsFd for Context {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }
}
