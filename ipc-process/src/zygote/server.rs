//! The server's own side.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::child::{self, Thread, receive};
use crate::control::{Control, Frame, Kind};
use crate::orders::Refusal;
use crate::spawn::trampoline;
use crate::spawn::{Forker, Parentage, sys};

/// Forks as often as it is asked to, until the program is gone.
pub(crate) fn serve(mut control: Control) -> ! {
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
    while let Ok(Some(frame)) = receive(&control) {
        if frame.kind != Kind::Fork {
            break;
        }
        match Control::pair() {
            Ok(pair) => control = fork(control, pair, &forker),
            Err(error) => refuse(&control, "socketpair", error),
        }
    }
    std::process::exit(0)
}

fn prepare() -> Result<Forker, (&'static str, Errno)> {
    // Not to hear the terminal's signals before there is a function to run.
    rustix::process::setpgid(None, None).map_err(|e| ("setpgid", e))?;
    sys::set_thread_name("ipc-zygote");
    trampoline::look_up_image();
    Forker::new().map_err(|e| ("mmap", e))
}

/// Gives back the server's own control socket.
fn fork(control: Control, (ours, theirs): (Control, Control), forker: &Forker) -> Control {
    let run = if forker.renews_thread() {
        in_this_thread
    } else {
        in_a_new_thread
    };
    let ((control, ours, theirs), forked) =
        forker.fork(Parentage::Sibling, (control, ours, theirs), run);
    drop(theirs);
    match forked {
        Ok((pid, pidfd)) => {
            let forked = Frame {
                kind: Kind::Forked,
                body: pid.to_ne_bytes().to_vec(),
                descriptors: vec![OwnedFd::from(ours), pidfd],
            };
            // Without a program that listens the process sees its control socket close, and ends.
            let _ = send(&control, forked);
        }
        Err(error) => refuse(&control, "clone", error),
    }
    control
}

fn in_this_thread(sockets: (Control, Control, Control)) {
    child::serve(own_end(sockets), Thread::This)
}

fn in_a_new_thread(sockets: (Control, Control, Control)) {
    child::serve(own_end(sockets), Thread::New)
}

/// Closes what only the server and the program need.
fn own_end((server, program, own): (Control, Control, Control)) -> Control {
    drop((server, program));
    own
}

fn refuse(control: &Control, call: &'static str, error: Errno) {
    let refusal = Refusal::new(call, error).to_bytes();
    let _ = send(control, Frame::new(Kind::Refused, refusal));
}

fn send(control: &Control, frame: Frame) -> std::io::Result<()> {
    control.send(frame, || Err(std::io::ErrorKind::WouldBlock.into()))
}
