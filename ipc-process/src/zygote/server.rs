//! The server's own side.

use ipc_core::Wait;
use rustix::io::Errno;

use crate::child::{self, Thread};
use crate::control::{Control, Frame, Kind};
use crate::orders::Refusal;
use crate::spawn::trampoline;
use crate::spawn::{Forker, sys};

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
    while let Ok(Some(frame)) = control.recv(Wait::Forever) {
        let own_end = frame.descriptors.into_iter().next();
        let Some(own_end) = own_end.filter(|_| frame.kind == Kind::Fork) else {
            break;
        };
        control = fork(control, Control::from_fd(own_end), &forker);
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
    trampoline::look_up_image();
    Forker::new().map_err(|e| ("mmap", e))
}

/// Forks a process that waits for orders at `theirs`; gives back the server's own socket.
fn fork(control: Control, theirs: Control, forker: &Forker) -> Control {
    let run = if forker.renews_thread() {
        in_this_thread
    } else {
        in_a_new_thread
    };
    let ((control, theirs), forked) = forker.fork((control, theirs), run);
    drop(theirs);
    match forked {
        Ok((pid, pidfd)) => {
            let forked = Frame {
                kind: Kind::Forked,
                body: pid.to_ne_bytes().to_vec(),
                descriptors: vec![pidfd],
            };
            // Without a program that listens the process sees its control socket close, and ends.
            let _ = send(&control, forked);
        }
        Err(error) => refuse(&control, "clone", error),
    }
    control
}

/// What a fork keeps open is what its process has: not the server's socket.
fn in_this_thread((server, own): (Control, Control)) {
    drop(server);
    child::serve(own, Thread::This)
}

fn in_a_new_thread((server, own): (Control, Control)) {
    drop(server);
    child::serve(own, Thread::New)
}

fn refuse(control: &Control, call: &'static str, error: Errno) {
    let refusal = Refusal::new(call, error).to_bytes();
    let _ = send(control, Frame::new(Kind::Refused, refusal));
}

fn send(control: &Control, frame: Frame) -> std::io::Result<()> {
    control.send(frame, || Err(std::io::ErrorKind::WouldBlock.into()))
}
