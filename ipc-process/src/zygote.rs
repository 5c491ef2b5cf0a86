//! The fork server of a program: a process of its own image that entered `init` and stayed there,
//! with one thread. It keeps a few forks of itself ready, children of the program as any other,
//! each waiting at its control socket for orders. So a start costs one message; the server makes
//! the next fork while the process runs.

mod alike;
mod server;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc_core::Wait;
use rustix::process::{Pid, Signal};

use crate::control::{Control, Frame, Kind};
use crate::orders::Refusal;
use crate::reap::{Child, Role};
use crate::spawn::{Spawn, executable, sys};
use crate::start::made_none;
use crate::stdio::Stdio;
use crate::{StartError, child, handshake, supervisor};
use alike::Alike;
pub(crate) use server::serve;

/// How many wait at most, and from how few on the server is woken to make more: several at a
/// time, since waking it costs about as much as a fork, and mostly not while a start is waited for.
const READY: usize = 4;
const FEW: usize = 1;

/// A fork takes a fraction of a millisecond. A server that has not made one by now is stopped, or
/// the machine is not to be worked with.
const PATIENCE: Duration = Duration::from_secs(20);

/// The death of a server, which nothing can delay but the kernel.
const ENDING: Duration = Duration::from_secs(1);

/// A process that waits for orders.
pub(crate) struct Spare {
    pub(crate) child: Arc<Child>,
    pub(crate) control: Control,
    /// The program's environment, if it is another one than that of the process.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
}

struct Zygote {
    process: Arc<Child>,
    control: Control,
    alike: Alike,
    environment: Vec<(OsString, OsString)>,
    ready: VecDeque<(Arc<Child>, Control)>,
    /// Our ends of those that are asked for and not ready yet.
    asked: VecDeque<Control>,
}

static ZYGOTE: Mutex<Option<Zygote>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Zygote>> {
    ZYGOTE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that waits for orders. Starts the server if there is none, if it died, or if the
/// program has become another one since.
pub(crate) fn take() -> Result<Spare, StartError> {
    take_within(PATIENCE)
}

fn take_within(patience: Duration) -> Result<Spare, StartError> {
    let mut slot = lock();
    let mut again = true;
    loop {
        let mut zygote = match slot.take() {
            Some(running) if running.is_of_use()? => running,
            other => {
                if let Some(old) = other {
                    old.end();
                }
                Zygote::launch()?
            }
        };
        let taken = zygote.take_ready(patience);
        if taken.is_ok() || zygote.lives() {
            *slot = Some(zygote);
            return taken;
        }
        zygote.end();
        // It died after it was looked at. One that dies twice has a reason.
        if !std::mem::take(&mut again) {
            return taken;
        }
    }
}

/// Asks for the successor of a process that was taken, once that has its orders: whichever is
/// woken first gets the processor that is free.
pub(crate) fn refill() {
    if let Some(zygote) = &mut *lock() {
        // The next start finds out.
        let _ = zygote.ask();
    }
}

/// Moves a process that waited into the group that this one belongs to: setpgid(2). Into one of
/// another PID namespace it cannot be moved, and need not be: see the server's start.
pub(crate) fn join_group(child: &Child) -> rustix::io::Result<()> {
    match sys::own_group() {
        Some(group) => {
            rustix::process::setpgid(Pid::from_raw(child.pid.cast_signed()), Some(group))
        }
        None => Ok(()),
    }
}

fn no_room() -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}

impl Zygote {
    fn launch() -> Result<Self, StartError> {
        let depth = child::depth_of_children()?;
        let executable = executable().map_err(|e| StartError::io("stat", e))?;
        let (control, theirs) = Control::pair().map_err(|e| StartError::io("socketpair", e))?;
        let null = || Stdio::Null.open().map_err(|e| StartError::io("open", e));
        let environment: Vec<_> = std::env::vars_os().collect();
        let alike = Alike::now().map_err(|e| StartError::io("read", e))?;
        let spawn = Spawn::new(
            theirs.into(),
            environment.iter().cloned(),
            depth,
            [null()?, null()?, null()?],
            true,
        )
        .map_err(|e| StartError::io("fcntl", e))?;
        let process = supervisor::start(spawn, Role::Internal).map_err(made_none)?;
        let serve = Frame::new(Kind::Serve, executable.identity.clone());
        if let Err(error) = handshake::run(&process, &control, serve, true) {
            handshake::end(&process);
            return Err(error);
        }
        let mut zygote = Self {
            process,
            control,
            alike,
            environment,
            ready: VecDeque::new(),
            asked: VecDeque::new(),
        };
        if let Err(error) = zygote.ask() {
            // It may have made one already.
            zygote.end();
            return Err(StartError::io("sendmsg", error));
        }
        Ok(zygote)
    }

    fn lives(&self) -> bool {
        !self.process.has_ended()
    }

    /// Whether it lives, is ours and not that of a program that we are a fork(2) of, and its forks
    /// are what children of this program would be.
    fn is_of_use(&self) -> Result<bool, StartError> {
        if self.alike.owner() != std::process::id() || !self.lives() {
            return Ok(false);
        }
        self.alike
            .still()
            .map_err(|error| StartError::io("read", error))
    }

    /// Leaves nothing of it, nor of the processes that waited.
    fn end(mut self) {
        if self.alike.owner() != std::process::id() {
            return;
        }
        let _ = self.process.signal(Signal::KILL);
        // Those that it told of before it died.
        while !self.asked.is_empty() && self.receive(PATIENCE).is_ok() {}
        for (child, _) in &self.ready {
            let _ = child.signal(Signal::KILL);
        }
        // Whoever we have no right to kill any more ends when its socket closes.
        let process = Arc::clone(&self.process);
        drop(self);
        let _ = process.wait(Wait::at_most(ENDING));
        supervisor::keep_unknown_children();
    }

    /// Asks for as many as are missing. The sockets are made here and go in one message, so that none
    /// is on its way for long: while there are such, the kernel looks for lost ones whenever a socket
    /// is closed (unix(7)).
    fn ask(&mut self) -> io::Result<()> {
        if self.ready.len() + self.asked.len() > FEW {
            return Ok(());
        }
        let missing = READY - self.ready.len() - self.asked.len();
        let mut ours = Vec::with_capacity(missing);
        let mut fork = Frame::new(Kind::Fork, Vec::new());
        for _ in 0..missing {
            let (own_end, theirs) = Control::pair()?;
            own_end.send(child::rehearsal(), no_room)?;
            ours.push(own_end);
            fork.descriptors.push(theirs.into());
        }
        self.control.send(fork, no_room)?;
        self.asked.extend(ours);
        Ok(())
    }

    fn take_ready(&mut self, patience: Duration) -> Result<Spare, StartError> {
        loop {
            match self.ready.pop_front() {
                // One that somebody killed while it waited.
                Some((child, _)) if child.has_ended() => {}
                Some((child, control)) => {
                    let now: Vec<_> = std::env::vars_os().collect();
                    return Ok(Spare {
                        child,
                        control,
                        environment: (now != self.environment).then_some(now),
                    });
                }
                None => {
                    self.ask().map_err(|e| StartError::io("sendmsg", e))?;
                    self.receive(patience)?;
                }
            }
        }
    }

    /// Waits for the server to make one.
    fn receive(&mut self, patience: Duration) -> Result<(), StartError> {
        let frame = self.control.recv(Wait::at_most(patience));
        if let Err(error) = &frame
            && error.kind() == io::ErrorKind::TimedOut
        {
            // Not to come back, nor to fork for nobody. Its end makes room for another.
            let _ = self.process.signal(Signal::KILL);
            let _ = self.process.wait(Wait::at_most(ENDING));
            let told =
                format!("the fork server has not answered within {patience:?}; is it stopped?");
            let error = io::Error::new(io::ErrorKind::TimedOut, told);
            return Err(StartError::io("fork", error));
        }
        let control = self.asked.pop_front();
        match (frame, control) {
            (Ok(Some(frame)), Some(control)) if frame.kind == Kind::Forked => {
                self.admit(frame, control)
            }
            (Ok(Some(frame)), _) if frame.kind == Kind::Refused => {
                let (call, error) = Refusal::read(&frame.body);
                Err(StartError::io(call, error))
            }
            (Ok(_), _) => Err(StartError::io(
                "recvmsg",
                io::Error::other("the fork server ended"),
            )),
            (Err(error), _) => {
                // What came without its descriptor sees our end of its control socket close.
                supervisor::keep_unknown_children();
                Err(StartError::io("recvmsg", error))
            }
        }
    }

    fn admit(&mut self, frame: Frame, control: Control) -> Result<(), StartError> {
        let malformed = || {
            let error = io::Error::new(io::ErrorKind::InvalidData, "a malformed control frame");
            StartError::io("recvmsg", error)
        };
        let pid: [u8; 4] = frame.body.try_into().map_err(|_| malformed())?;
        let [pidfd] = <[OwnedFd; 1]>::try_from(frame.descriptors).map_err(|_| malformed())?;
        let child = Child::new(i32::from_ne_bytes(pid), pidfd, Role::Internal);
        let child = supervisor::keep(child).map_err(|e| StartError::io("epoll_ctl", e))?;
        self.ready.push_back((child, control));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;
    use crate::{Process, StartMethod};

    /// In a process of its own, whose server nobody else uses.
    fn with_a_stopped_server() {
        let start = || {
            let process = Process::new(|n: u32| 2 * n, (21,)).start_method(StartMethod::Zygote);
            process.start().unwrap().join().unwrap()
        };
        assert_eq!(start(), 42);
        let server = lock().as_ref().map(|zygote| Arc::clone(&zygote.process));
        let server = server.unwrap();
        server.signal(Signal::STOP).unwrap();
        waitid(WaitId::PidFd(server.as_fd()), WaitIdOptions::STOPPED).unwrap();
        // Those that are ready serve as ever; for one more there has to be another server.
        for _ in 0..=READY {
            take_within(Duration::from_secs(1)).unwrap();
        }
        assert!(server.has_ended());
        assert_eq!(start(), 42);
    }

    #[test]
    fn a_server_that_is_stopped_is_replaced() {
        let process = Process::new(with_a_stopped_server, ()).daemon(true).start();
        process.unwrap().join().unwrap();
    }
}
