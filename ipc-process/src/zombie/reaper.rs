use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, set_child_subreaper};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::list::{reap, zombies};
use super::tree::{Descendant, descendants, kill_descendants};
use crate::control::{Control, Frame, Kind};
use crate::descriptor::Descriptor;
use crate::orders::Refusal;
use crate::proc::check_pids;
use crate::reap::Role;
use crate::spawn::signals;
use crate::start::{spawn_for_another, start_elsewhere};
use crate::{Process, StartError, Target, Unstarted, supervisor};

/// A process that adopts the orphans among its descendants, reaps them, and can list or end all
/// that descends from it.
///
/// Processes that are started in it are its children, so that nothing they start can escape: when
/// a parent in between ends, its children become the reaper's and not `init`'s
/// (`PR_SET_CHILD_SUBREAPER`). The attribute is not set in this process, which would then get
/// orphans that it does not know of and would have to wait for.
///
/// All descendants are ended when the reaper is dropped, and when this program ends, however it
/// does. A reaper that is itself killed by SIGKILL leaves them to `init`.
///
/// ```no_run
/// use ipc_process::Process;
/// use ipc_process::zombie::Reaper;
///
/// fn build() { /* runs compilers that run others that may be left behind */ }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # ipc_process::init();
/// let reaper = Reaper::start()?;
/// let build = reaper.run(Process::new(build, ()))?;
/// build.wait()?;
/// println!("left behind: {:?}", reaper.list()?);
/// reaper.kill_tree()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends all that was started in it"]
pub struct Reaper {
    process: Process<()>,
    line: Mutex<Line>,
}

/// To the reaper's process, for one question at a time.
#[derive(Debug)]
struct Line {
    control: Control,
    /// Answers that nobody waits for any more, which will come before the next.
    overdue: usize,
}

/// A start takes milliseconds. A reaper that has not made one by now is stopped, or the machine is
/// not to be worked with.
const PATIENCE: Duration = Duration::from_secs(20);

impl Reaper {
    /// Starts the process.
    ///
    /// # Errors
    /// As [`Unstarted::start`]; when `/proc` is not there, or is that of another PID namespace.
    pub fn start() -> Result<Self, StartError> {
        check_pids().map_err(|e| StartError::io("readlink", e))?;
        let (control, theirs) = Control::pair().map_err(|e| StartError::io("socketpair", e))?;
        let mut description = Process::new(serve, (Descriptor(theirs.into()),)).name("ipc-reaper");
        description.stoppable = true;
        let process = description.start()?;
        // No daemon to the kernel: it has to survive us for as long as it takes to end its tree.
        process.become_known_as(Role::Daemon);
        Ok(Self {
            process,
            line: Mutex::new(Line {
                control,
                overdue: 0,
            }),
        })
    }

    /// The reaper's process id, which is that of the orphans' parent.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Starts a process as a child of the reaper, with the reaper's environment and, where not
    /// redirected, standard streams. Always by [`StartMethod::Spawn`](crate::StartMethod::Spawn).
    ///
    /// # Errors
    /// As [`Unstarted::start`]; also if the reaper does not answer within 20 s, as when somebody
    /// stopped it (SIGSTOP): there is no process then, and once it goes on it can be used again. How
    /// such a process ended is known from Linux 6.15 on; its result always is.
    pub fn run<F, A>(&self, description: Unstarted<F, A>) -> Result<Process<F::Output>, StartError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned + 'static,
    {
        self.run_within(PATIENCE, description)
    }

    fn run_within<F, A>(
        &self,
        patience: Duration,
        description: Unstarted<F, A>,
    ) -> Result<Process<F::Output>, StartError>
    where
        F: Target<A>,
        A: Serialize + DeserializeOwned + 'static,
    {
        start_elsewhere(description, self.pid(), |request, descriptors| {
            let body = postcard::to_stdvec(&request).map_err(|error| StartError::Arguments {
                reason: error.to_string(),
            })?;
            let made = self.ask(body, descriptors, Wait::at_most(patience));
            made.map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => {
                    let told = format!("no answer within {patience:?}; is the reaper stopped?");
                    StartError::io("clone", io::Error::new(io::ErrorKind::TimedOut, told))
                }
                _ => StartError::io("clone", error),
            })
        })
    }

    fn ask(
        &self,
        body: Vec<u8>,
        descriptors: Vec<OwnedFd>,
        wait: Wait,
    ) -> io::Result<(i32, OwnedFd)> {
        let request = Frame {
            kind: Kind::Fork,
            body,
            descriptors,
        };
        // Held until the answer has come: one question at a time.
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Line { control, overdue } = &mut *line;
        control.send(request, || {
            match poll([(control.as_fd(), Interest::Write)], wait)? {
                Polled::Ready => Ok(()),
                Polled::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            }
        })?;
        *overdue += 1;
        let frame = loop {
            let frame = control.recv(wait)?.ok_or(io::ErrorKind::BrokenPipe)?;
            *overdue -= 1;
            // What was made for a question that is over finds its socket closed, and ends.
            if *overdue == 0 {
                break frame;
            }
        };
        if frame.kind == Kind::Refused {
            return Err(Refusal::read(&frame.body).1);
        }
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let pid: [u8; 4] = frame.body.try_into().map_err(|_| malformed())?;
        let [pidfd] = <[OwnedFd; 1]>::try_from(frame.descriptors).map_err(|_| malformed())?;
        Ok((i32::from_ne_bytes(pid), pidfd))
    }

    /// Everything that descends from the reaper.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn list(&self) -> io::Result<Vec<Descendant>> {
        let found = descendants(self.pid(), || self.process.is_alive())?.into_iter();
        Ok(found
            .map(|stat| Descendant {
                pid: stat.pid,
                parent: stat.parent,
                name: stat.name,
                is_zombie: stat.state == 'Z',
            })
            .collect())
    }

    /// Ends everything that descends from the reaper, by SIGKILL, and tells how many that were.
    /// Nothing escapes by forking meanwhile.
    ///
    /// # Errors
    /// When `/proc` cannot be read; EPERM for a descendant that changed its user.
    pub fn kill_tree(&self) -> io::Result<usize> {
        kill_descendants(self.pid(), || self.process.is_alive())
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // What is refused here the reaper tries itself, at the end of its socket.
        if self.process.child().is_own() {
            let _ = self.kill_tree();
        }
    }
}

/// Runs in the reaper's process.
fn serve(socket: Descriptor) {
    let requests = Control::from_fd(socket.0);
    if let Err(error) = adopt_and_reap(&requests) {
        panic!("the reaper failed: {error}");
    }
}

fn adopt_and_reap(requests: &Control) -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let stop = signals::arrival_of(Signal::TERM)?;
    let child_ended = signals::arrival_of(Signal::CHILD)?;
    let mut pending = Vec::new();
    loop {
        let events = [
            (requests.as_fd(), Interest::Read),
            (stop.as_fd(), Interest::Read),
            (child_ended.as_fd(), Interest::Read),
        ];
        poll(events, Wait::Forever)?;
        let asked_to_stop = poll([(stop.as_fd(), Interest::Read)], Wait::Never)?;
        if asked_to_stop == Polled::Ready {
            break;
        }
        // Signals merge: one of them says that there is something to be reaped, not how much.
        while rustix::io::read(&child_ended, &mut [0_u8; 128]).is_ok() {}
        reap_orphans()?;
        match requests.try_recv(&mut pending) {
            Ok(Some(frame)) => answer(requests, frame)?,
            Ok(None) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    kill_descendants(std::process::id(), || true)?;
    Ok(())
}

fn answer(requests: &Control, request: Frame) -> io::Result<()> {
    let made = postcard::from_bytes(&request.body)
        .map_err(io::Error::other)
        .and_then(|order| {
            let child = spawn_for_another(order, request.descriptors, supervisor::start)?;
            Ok((child.pid, child.as_fd().try_clone_to_owned()?))
        });
    let answer = match made {
        Ok((pid, pidfd)) => Frame {
            kind: Kind::Forked,
            body: pid.to_ne_bytes().to_vec(),
            descriptors: vec![pidfd],
        },
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
            Frame::new(Kind::Refused, Refusal::new("clone", errno).to_bytes())
        }
    };
    requests.send(answer, || {
        poll([(requests.as_fd(), Interest::Write)], Wait::Forever)?;
        Ok(())
    })
}

/// Those that this process did not start; its own are reaped by their descriptors.
fn reap_orphans() -> io::Result<()> {
    let own: Vec<u32> = supervisor::children().iter().map(|c| c.pid).collect();
    for zombie in zombies()? {
        if !own.contains(&zombie.pid) {
            // Gone already is as good.
            let _ = reap(zombie.pid);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn a_reaper_that_is_stopped_is_not_waited_for_without_end() {
        if check_pids().is_err() {
            return;
        }
        let reaper = Reaper::start().unwrap();
        reaper.process.child().signal(Signal::STOP).unwrap();
        let pidfd = WaitId::PidFd(reaper.process.as_fd());
        waitid(pidfd, WaitIdOptions::STOPPED).unwrap();
        let soon = Duration::from_millis(20);
        for _ in 0..3 {
            let refused = reaper.run_within(soon, Process::new(|| (), ()));
            let told = refused.unwrap_err().to_string();
            assert!(told.contains("stopped"), "{told}");
        }
        reaper.process.child().signal(Signal::CONT).unwrap();
        // It makes what nobody wants any more, and after that what is asked for.
        let process = reaper.run(Process::new(|n: u32| 2 * n, (21,))).unwrap();
        assert_eq!(process.join().unwrap(), 42);
        let limit = Wait::at_most(Duration::from_secs(5));
        while !reaper.list().unwrap().is_empty() {
            assert!(!limit.is_over(), "{:?}", reaper.list());
            poll::<0>([], Wait::at_most(Duration::from_millis(5))).unwrap();
        }
    }
}
