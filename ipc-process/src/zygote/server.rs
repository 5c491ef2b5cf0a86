//! The server's own side.

use ipc_core::Wait;
use rustix::io::Errno;

use crate::child::{self, Thread};
use crate::control::{Control, Frame, Kind};
use crate::orders::Refusal;
use crate::spawn::{Forked, Forker, sys};

/// Forks as often as it is asked to, until the program is gone.
pub(crate) fn serve(control: Control) -> ! {
    let forker = match prepare() {
        Ok(forker) => forker,
        Err((call, error)) => {
            refuse(&control, call, error);
            std::process::exit(1)
        }
    };
    if send(&control, Frame::new(Kind::Hello, Vec::new())).is_err() {
        std::process::exit(1)
    }
    let thread = if forker.renews_thread() {
        Thread::This
    } else {
        Thread::New
    };
    while let Ok(Some(frame)) = control.recv(Wait::Forever) {
        if frame.kind != Kind::Fork {
            break;
        }
        let mut ends = frame.descriptors.into_iter();
        while let Some(own_end) = ends.next() {
            match forker.fork() {
                Ok(Forked::Child) => {
                    // What it keeps open is what its process has.
                    drop((control, ends));
                    child::obey(Control::from_fd(own_end), thread)
                }
                Ok(Forked::Parent(pid, pidfd)) => {
                    drop(own_end);
                    let forked = Frame {
                        kind: Kind::Forked,
                        body: pid.to_ne_bytes().to_vec(),
                        descriptors: vec![pidfd],
                    };
                    // Without a program that listens the process sees its control socket close,
                    // and ends.
                    let _ = send(&control, forked);
                }
                Err(error) => refuse(&control, "clone", error),
            }
        }
    }
    std::process::exit(0)
}

fn prepare() -> Result<Forker, (&'static str, Errno)> {
    // Not to hear the terminal's signals before there is a function to run. From a group of another
    // PID namespace no process could come back.
    if sys::own_group().is_some() {
        rustix::process::setpgid(None, None).map_err(|e| ("setpgid", e))?;
    }
    sys::set_thread_name("ipc-zygote");
    child::rehearse(&child::rehearsal().body);
    Forker::new().map_err(|e| ("clone", e))
}

fn refuse(control: &Control, call: &'static str, error: Errno) {
    let refusal = Refusal::new(call, error).to_bytes();
    let _ = send(control, Frame::new(Kind::Refused, refusal));
}

fn send(control: &Control, frame: Frame) -> std::io::Result<()> {
    control.send(frame, || Err(std::io::ErrorKind::WouldBlock.into()))
}
