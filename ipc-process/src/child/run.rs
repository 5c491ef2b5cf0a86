//! The life of a process that was started to run a function: orders, function, result, exit.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ipc_core::wait::{Interest, poll};
use ipc_core::{Parts, Wait};

use rustix::process::Signal;

use super::settle::settle;
use crate::control::{Control, Frame, Kind};
use crate::orders::{Settings, Start};
use crate::spawn::trampoline::{self, Called, Trampoline};
use crate::spawn::{executable, signals, sys};
use crate::zygote;
use crate::{family, panic};

/// As after a panic in `main`.
const EXIT_PANICKED: i32 = 101;
/// The starter is gone, or did not keep to the protocol.
pub(super) const EXIT_UNUSED: i32 = 102;
/// The function has returned and the starter cannot be told: the function closed the control socket.
pub(crate) const EXIT_UNTOLD: i32 = 103;

/// Same stack as a main thread has by default.
const STACK: usize = 8 << 20;

/// Where the function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    /// In a thread of its own, because before `main` there is neither a name nor a guarded stack.
    New,
    /// In the one that there is.
    This,
}

/// Waits for orders and carries them out.
pub(crate) fn serve(control: Control, thread: Thread) -> ! {
    // Threads of ours take no signals: those go to the function's thread, with the mask and the
    // dispositions that it makes, as they would in its own program.
    signals::block_all();
    obey(control, thread)
}

/// As [`serve`], where all signals are blocked.
pub(crate) fn obey(control: Control, thread: Thread) -> ! {
    loop {
        let frame = match control.recv(Wait::Forever) {
            Ok(Some(frame)) => frame,
            Ok(None) => std::process::exit(EXIT_UNUSED),
            Err(error) => {
                let reason = error.to_string().into_bytes();
                send(&control, Frame::new(Kind::BadArguments, reason));
                std::process::exit(EXIT_UNUSED)
            }
        };
        match frame.kind {
            Kind::Rehearse => rehearse(&frame.body),
            Kind::Start => carry_out(control, frame, thread),
            Kind::Serve if same_image(&frame.body) => zygote::serve(control),
            _ => std::process::exit(EXIT_UNUSED),
        }
    }
}

/// Orders to a process that is to have others soon: [`rehearse`].
pub(crate) fn rehearsal() -> Frame {
    let start = Start {
        identity: None,
        place: 0,
        parent: 0,
        daemon: false,
        stoppable: false,
        name: "",
        inherit: None,
        settings: Settings::default(),
        arguments: &[],
    };
    let body = postcard::to_stdvec(&start).unwrap_or_default();
    Frame::new(Kind::Rehearse, body)
}

fn nothing() {}

/// Does what a process does between its orders and its end, with a function that does nothing. The
/// pages of memory that this touches are then at hand, and the loader has found what it looks for
/// at the first call.
pub(crate) fn rehearse(orders: &[u8]) {
    let Ok(start) = postcard::from_bytes::<Start<'_>>(orders) else {
        return;
    };
    // Its own place, and not one that was sent: nobody has compared the images yet.
    let place = trampoline::place_of::<_, ()>(nothing);
    if let Some(function) = place.and_then(trampoline::at_place) {
        let parts = Parts {
            descriptors: Vec::new(),
            data: start.arguments.to_vec(),
        };
        call(function, parts);
    }
    panic::rehearse();
    flush();
}

fn same_image(identity: &[u8]) -> bool {
    executable().is_ok_and(|own| own.identity == identity)
}

fn carry_out(control: Control, frame: Frame, thread: Thread) -> ! {
    let Frame {
        body,
        mut descriptors,
        ..
    } = frame;
    let Ok(start) = postcard::from_bytes::<Start<'_>>(&body) else {
        std::process::exit(EXIT_UNUSED)
    };
    if !start.identity.is_none_or(same_image) {
        // Without hello the starter knows.
        std::process::exit(EXIT_UNUSED)
    }
    let Some(function) = trampoline::at_place(start.place) else {
        std::process::exit(EXIT_UNUSED)
    };
    if let Err(refusal) = settle(&start, &mut descriptors) {
        send(&control, Frame::new(Kind::Refused, refusal.to_bytes()));
        std::process::exit(EXIT_UNUSED)
    }
    if start.wants_hello() {
        send(&control, Frame::new(Kind::Hello, Vec::new()));
    }
    family::set_parent(start.parent);
    sys::set_thread_name(start.name);
    let control = Arc::new(control);
    let parts = Parts {
        descriptors,
        data: start.arguments.to_vec(),
    };
    let name: String = start.name.chars().filter(|&c| c != '\0').collect();
    let stoppable = start.stoppable;
    let run = move || {
        if stoppable {
            signals::allow_all_but(Signal::TERM);
        } else {
            signals::allow_all();
        }
        run(&control, function, parts)
    };
    let code = match thread {
        Thread::This => run(),
        Thread::New => std::thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn(run)
            .map_or(EXIT_UNUSED, |thread| thread.join().unwrap_or(EXIT_PANICKED)),
    };
    if start.inherit.is_some() && thread == Thread::This && sys::has_one_thread() {
        end_as_fork(code)
    }
    std::process::exit(code)
}

/// What the process wrote is written out; handlers of exit(3) and destructors of libraries, which
/// take about as long as all else that a fork does, are left out. Not for a process with further
/// threads: they may hold the locks of the streams for ever. One that has started processes of its
/// own, which a handler ends or waits for, has a supervisor's.
fn end_as_fork(code: i32) -> ! {
    flush();
    sys::end_without_handlers(code)
}

fn flush() {
    let _ = io::stdout().flush();
    sys::flush_c_streams();
}

/// Runs the function and sends what came of it; gives the exit code.
fn run(control: &Arc<Control>, function: Trampoline, parts: Parts) -> i32 {
    let abort = Arc::clone(control);
    panic::watch_this_thread(move |panic| {
        send(&abort, panicked(&panic));
    });
    let (frame, code) = call(function, parts);
    match send(control, frame) {
        Told::No if code == 0 => EXIT_UNTOLD,
        _ => code,
    }
}

/// What came of the function, and the exit code for that.
fn call(function: Trampoline, parts: Parts) -> (Frame, i32) {
    match catch_unwind(AssertUnwindSafe(|| function(parts))) {
        Ok(Called::Returned(Parts { descriptors, data })) => (
            Frame {
                kind: Kind::Returned,
                body: data,
                descriptors,
            },
            0,
        ),
        Ok(Called::BadArguments(reason)) => (
            Frame::new(Kind::BadArguments, reason.into_bytes()),
            EXIT_UNUSED,
        ),
        Ok(Called::BadResult(reason)) => (
            Frame::new(Kind::BadResult, reason.into_bytes()),
            EXIT_UNUSED,
        ),
        Err(payload) => (panicked(&panic::of_payload(payload)), EXIT_PANICKED),
    }
}

fn panicked(panic: &crate::RemotePanic) -> Frame {
    Frame::new(
        Kind::Panicked,
        postcard::to_stdvec(panic).unwrap_or_default(),
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Or nobody wants to know.
    Yes,
    No,
}

fn send(control: &Control, frame: Frame) -> Told {
    let kind = frame.kind;
    match control.send(frame, || room(control)) {
        Ok(()) => Told::Yes,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Told::Yes,
        Err(error) if kind == Kind::Returned => {
            let reason = Frame::new(Kind::BadResult, error.to_string().into_bytes());
            let sent = control.send(reason, || room(control));
            if sent.is_ok() { Told::Yes } else { Told::No }
        }
        Err(_) => Told::No,
    }
}

fn room(control: &Control) -> io::Result<()> {
    poll([(control.as_fd(), Interest::Write)], Wait::Forever)?;
    Ok(())
}
