use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use ipc_core::wait::{Interest, poll};
use ipc_core::{Parts, Wait};
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes::decode;
use crate::control::{Control, Frame, Kind};
use crate::orders::Refusal;
use crate::reap::{Child, Role};
use crate::spawn::signals;
use crate::{JoinError, RemotePanic, Target, Unstarted, supervisor};

/// How long the drop of a daemon waits for the kernel to carry out SIGKILL.
const KILLED: Duration = Duration::from_millis(100);

/// How long the result of a process is left where it is for the sake of a single wake.
const ENDS_OF_ITSELF: Duration = Duration::from_millis(100);

/// A process that runs, or ran, a function of this program which returns `R`.
///
/// It is held by a process descriptor (pidfd), so that no signal can hit another process that
/// came to own its pid. It is reaped the moment it ends: there is never a zombie, whether the
/// handle is kept or dropped, and also if the program ignores SIGCHLD or waits for children of
/// its own.
///
/// Dropping the handle of a daemon kills it. Dropping another handle leaves the process running,
/// does not block, and loses only the result; the program waits for it when it ends. In a child of
/// `fork(2)`, dropping its copy of a handle does nothing.
#[must_use = "dropping it loses the result, and ends a daemon"]
pub struct Process<R> {
    child: Arc<Child>,
    control: Control,
    /// Nothing but held: a daemon ends when it closes.
    _lifeline: Option<OwnedFd>,
    name: String,
    result: PhantomData<fn() -> R>,
}

impl<R> Process<R> {
    /// Describes a process that runs `function` with these arguments, a tuple; nothing exists
    /// until [`start`](Unstarted::start).
    ///
    /// The arguments are any `serde` values, among them channel ends, which leave this process.
    #[expect(
        clippy::new_ret_no_self,
        reason = "a process exists once it is started"
    )]
    pub fn new<F, A>(function: F, arguments: A) -> Unstarted<F, A>
    where
        F: Target<A, Output = R>,
        A: Serialize + DeserializeOwned,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a process function must not capture anything"
            );
        }
        Unstarted::describe(function, arguments)
    }

    pub(crate) fn from_started(
        child: Arc<Child>,
        control: Control,
        lifeline: Option<OwnedFd>,
        name: String,
    ) -> Self {
        Self {
            child,
            control,
            _lifeline: lifeline,
            name,
            result: PhantomData,
        }
    }

    pub(crate) fn into_child(self) -> Arc<Child> {
        Arc::clone(&self.child)
    }

    pub(crate) fn become_known_as(&self, role: Role) {
        self.child.become_known_as(role, &self.name);
    }

    pub(crate) fn child(&self) -> &Arc<Child> {
        &self.child
    }

    /// Its process id. For people and logs: once the process has ended, another may get it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// The name that was given to it, or that of its function.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it ends with this program.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.child.is_daemon()
    }

    /// Whether it has not ended yet. A stopped process is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.child.has_ended()
    }

    /// Waits until it has ended; again and from any thread.
    ///
    /// # Errors
    /// What `poll(2)` or `waitid(2)` reports; also when the status was lost because SIGCHLD is
    /// ignored or somebody else waited for it, which needs Linux 6.15 to be made good.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.wait(Wait::Forever)? {
                return Ok(status);
            }
        }
    }

    /// Waits at most this long; `None` if it is alive then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        self.child.wait(Wait::at_most(timeout))
    }

    /// Ends it at once: SIGKILL. `Ok` also if it has ended already.
    ///
    /// # Errors
    /// EPERM if it has changed its user.
    pub fn kill(&self) -> io::Result<()> {
        self.child.signal(Signal::KILL)
    }

    /// Asks it to end: SIGTERM. `Ok` also if it has ended already.
    ///
    /// # Errors
    /// EPERM if it has changed its user.
    pub fn terminate(&self) -> io::Result<()> {
        self.child.signal(Signal::TERM)
    }

    /// Interrupts it as Ctrl-C does: SIGINT. `Ok` also if it has ended already.
    ///
    /// # Errors
    /// EPERM if it has changed its user.
    pub fn interrupt(&self) -> io::Result<()> {
        self.child.signal(Signal::INT)
    }

    /// Sends the signal of this number, such as 19 for SIGSTOP. `Ok` also if it has ended already.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal; EPERM if it has changed its user.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let signal = signals::of_number(number).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{number} is not a signal"),
            )
        })?;
        self.child.signal(signal)
    }

    /// Next frame that the process left or leaves; `None` once it can send no more.
    fn outcome(&self) -> io::Result<Option<Frame>> {
        let mut pending: Vec<OwnedFd> = Vec::new();
        // The frame lies in the socket when the process has ended, and one wake is enough for both.
        // Only a process that finds no room for its frame does not end before we read.
        poll(
            [(self.as_fd(), Interest::Read)],
            Wait::at_most(ENDS_OF_ITSELF),
        )?;
        loop {
            // Asked before the socket is read: what it sent before its end is there by then.
            let ended = self.child.has_ended();
            match self.control.try_recv(&mut pending) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if ended {
                return Ok(None);
            }
            let both = [
                (self.control.as_fd(), Interest::Read),
                (self.as_fd(), Interest::Read),
            ];
            poll(both, Wait::Forever)?;
        }
    }
}

impl<R: DeserializeOwned + 'static> Process<R> {
    /// Waits until the process has ended and gives what its function returned.
    ///
    /// # Errors
    /// How it ended instead, as [`JoinError`] says. It is reaped in every case but `Io`.
    pub fn join(self) -> Result<R, JoinError> {
        let _here = supervisor::leave_to_caller(&self.child);
        let frame = self
            .outcome()
            .map_err(|error| JoinError::io("recvmsg", error))?;
        let status = self.wait();
        match frame {
            Some(frame) => Self::result(frame),
            None => {
                let status = status.map_err(|error| JoinError::io("waitid", error))?;
                Err(JoinError::from_status(status))
            }
        }
    }

    /// What is left of a process that has ended: what it said at last, and how it ended as far as
    /// that can be told without a wait, which a debugger that holds the process could make endless.
    pub(crate) fn remains(self) -> (Option<Result<R, JoinError>>, Option<ExitStatus>) {
        let said = self.control.try_recv(&mut Vec::new()).ok().flatten();
        let status = self.child.try_reap().ok().flatten();
        (said.map(Self::result), status)
    }

    fn result(frame: Frame) -> Result<R, JoinError> {
        let Frame {
            kind,
            body,
            descriptors,
        } = frame;
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        match kind {
            Kind::Returned => decode(Parts {
                descriptors,
                data: body,
            })
            .map_err(|reason| JoinError::Result { reason }),
            Kind::Panicked => {
                let panic = postcard::from_bytes(&body).unwrap_or_else(|_| RemotePanic::unknown());
                Err(JoinError::Panicked(Box::new(panic)))
            }
            Kind::BadArguments => Err(JoinError::Arguments {
                reason: text(&body),
            }),
            Kind::BadResult => Err(JoinError::Result {
                reason: text(&body),
            }),
            Kind::Refused => {
                let (call, error) = Refusal::read(&body);
                Err(JoinError::io(call, error))
            }
            _ => Err(JoinError::Result {
                reason: "a frame out of turn".to_owned(),
            }),
        }
    }
}

/// The process descriptor: readable once the process has ended, see `pidfd_open(2)`.
impl<R> AsFd for Process<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("pid", &self.pid())
            .field("daemon", &self.is_daemon())
            .finish_non_exhaustive()
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        if self.is_daemon() && self.child.is_own() && self.is_alive() {
            // A refusal leaves the daemon to its lifeline, which closes now.
            let _ = self.child.signal(Signal::KILL);
            let _ = self.child.wait(Wait::at_most(KILLED));
        }
    }
}
