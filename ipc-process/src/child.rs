//! The other side: a process that was started to run a function.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ipc_core::wait::{Interest, poll};
use ipc_core::{Parts, Wait};
use rustix::process::{Signal, getpid, getppid, kill_process};
use serde::{Deserialize, Serialize};

use crate::control::{Control, Frame, Kind};
use crate::spawn::trampoline::{self, Called};
use crate::spawn::{MARKER, sys};
use crate::{StartError, panic};

/// What the starter sends after hello.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start<'a> {
    /// Where the function's trampoline lies in the image.
    pub(crate) place: u64,
    pub(crate) daemon: bool,
    pub(crate) name: &'a str,
    pub(crate) arguments: &'a [u8],
}

/// Deeper than any sensible tree of processes, shallow enough for any machine.
const MAX_DEPTH: u32 = 32;

/// As after a panic in `main`.
const EXIT_PANICKED: i32 = 101;
/// The starter is gone, or did not keep to the protocol.
const EXIT_UNUSED: i32 = 102;

/// Same stack as a main thread has by default.
const STACK: usize = 8 << 20;

// Ordering of both: set before the program has a second thread.
static INITIALISED: AtomicBool = AtomicBool::new(false);
static DEPTH: AtomicU32 = AtomicU32::new(0);

/// In a process that was started to run a function: runs it and exits. In any other: returns at
/// once.
///
/// Call it first thing in `main`, before any thread exists: what stands before it runs again in
/// every process that this program starts. Test targets that have no `main` use
/// [`test_support!`](crate::test_support) instead.
pub fn init() {
    enter(false);
}

/// [`init`] for an `.init_array`, see [`test_support!`](crate::test_support).
pub extern "C" fn before_main() {
    enter(true);
}

/// Lets the processes of a target without a `main` of its own, such as a test target, run their
/// functions. At the root of the target, once:
///
/// ```
/// ipc_process::test_support!();
/// # fn main() {}
/// ```
///
/// It places one function pointer in `.init_array`, so that it is called before `main` (glibc).
/// There it does nothing except in a process that was started to run a function.
#[macro_export]
macro_rules! test_support {
    () => {
        const _: () = {
            #[used]
            #[unsafe(link_section = ".init_array")]
            static BEFORE_MAIN: extern "C" fn() = $crate::__private::before_main;
        };
    };
}

/// The depth that a process started now has.
pub(crate) fn depth_of_children() -> Result<u32, StartError> {
    if !INITIALISED.load(Ordering::Relaxed) {
        return Err(StartError::InitMissing);
    }
    let depth = DEPTH.load(Ordering::Relaxed) + 1;
    if depth > MAX_DEPTH {
        Err(StartError::TooDeep { max: MAX_DEPTH })
    } else {
        Ok(depth)
    }
}

/// What the two sides must have in common: protocol and executable file.
pub(crate) fn identity() -> io::Result<Vec<u8>> {
    let file = fs::metadata("/proc/self/exe")?;
    let text = format!(
        "ipc-process {} {} {}",
        env!("CARGO_PKG_VERSION"),
        file.dev(),
        file.ino()
    );
    Ok(text.into_bytes())
}

fn enter(before_main: bool) {
    if let Some(marker) = std::env::var_os(MARKER) {
        // Not for the programs that this process may start.
        sys::remove_variable(MARKER);
        if let Some((control, depth)) = marker.to_str().and_then(claim) {
            DEPTH.store(depth, Ordering::Relaxed);
            INITIALISED.store(true, Ordering::Relaxed);
            if before_main {
                sys::ignore_broken_pipes();
            }
            serve(&Arc::new(control));
        }
    }
    INITIALISED.store(true, Ordering::Relaxed);
}

/// The control socket, if the marker is meant for this process and not left over from one that
/// executed this program without having called `init`.
fn claim(marker: &str) -> Option<(Control, u32)> {
    let mut fields = marker.split('.');
    let control = fields.next()?.parse().ok()?;
    let starter: i32 = fields.next()?.parse().ok()?;
    let depth = fields.next()?.parse().ok()?;
    let ours = getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == starter);
    let control = Control::from_fd(sys::adopt_control(control)?);
    if ours {
        return Some((control, depth));
    }
    if matches!(control.try_recv(&mut Vec::new()), Ok(None)) {
        // Meant for us, and the starter died meanwhile: there is nothing to run.
        std::process::exit(EXIT_UNUSED);
    }
    // Not meant for us, nor is the descriptor.
    let _ = OwnedFd::from(control).into_raw_fd();
    None
}

fn serve(control: &Arc<Control>) -> ! {
    // Threads of ours take no signals: those go to the function's thread, with the mask and the
    // dispositions that it makes, as they would in its own program.
    sys::block_signals();
    let Frame {
        body, descriptors, ..
    } = match greet(control) {
        Ok(Some(frame)) if frame.kind == Kind::Start => frame,
        Ok(_) => std::process::exit(EXIT_UNUSED),
        Err(error) => {
            send(
                control,
                Frame::new(Kind::BadArguments, error.to_string().into_bytes()),
            );
            std::process::exit(EXIT_UNUSED)
        }
    };
    let Ok(start) = postcard::from_bytes::<Start<'_>>(&body) else {
        std::process::exit(EXIT_UNUSED)
    };
    let Some(function) = trampoline::at_place(start.place) else {
        std::process::exit(EXIT_UNUSED)
    };
    sys::set_thread_name(start.name);
    if start.daemon {
        end_with(control);
    }
    let parts = Parts {
        descriptors,
        data: start.arguments.to_vec(),
    };
    let outcome = Arc::clone(control);
    let name: String = start.name.chars().filter(|&c| c != '\0').collect();
    // A thread, because before `main` there is neither a name nor a guarded stack.
    let thread = std::thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(move || {
            sys::allow_signals();
            let abort = Arc::clone(&outcome);
            panic::watch_this_thread(move |panic| send(&abort, panicked(&panic)));
            let (frame, code) = match catch_unwind(AssertUnwindSafe(|| function(parts))) {
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
                Err(_) => (panicked(&panic::take_last()), EXIT_PANICKED),
            };
            send(&outcome, frame);
            code
        });
    let code = thread.map_or(EXIT_UNUSED, |thread| thread.join().unwrap_or(EXIT_PANICKED));
    std::process::exit(code)
}

fn greet(control: &Control) -> io::Result<Option<Frame>> {
    control.send(Frame::new(Kind::Hello, identity()?), || room(control))?;
    let mut pending = Vec::new();
    loop {
        match control.try_recv(&mut pending) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll([(control.as_fd(), Interest::Read)], Wait::Forever)?;
            }
            other => return other,
        }
    }
}

fn panicked(panic: &crate::RemotePanic) -> Frame {
    Frame::new(
        Kind::Panicked,
        postcard::to_stdvec(panic).unwrap_or_default(),
    )
}

fn send(control: &Control, frame: Frame) {
    let kind = frame.kind;
    match control.send(frame, || room(control)) {
        Ok(()) => {}
        // Nobody wants to know.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) if kind == Kind::Returned => {
            let reason = Frame::new(Kind::BadResult, error.to_string().into_bytes());
            let _ = control.send(reason, || room(control));
        }
        Err(_) => {}
    }
}

fn room(control: &Control) -> io::Result<()> {
    poll([(control.as_fd(), Interest::Write)], Wait::Forever)?;
    Ok(())
}

/// Ends this process with its starter, also where `PR_SET_PDEATHSIG` was lost, as it is when a
/// program with more privileges is executed.
fn end_with(control: &Arc<Control>) {
    let control = Arc::clone(control);
    let watch = move || {
        if poll([(control.as_fd(), Interest::HangUp)], Wait::Forever).is_ok() {
            let _ = kill_process(getpid(), Signal::KILL);
        }
    };
    // Without a thread for it there is still the kernel's signal.
    let _ = std::thread::Builder::new()
        .name("ipc-lifeline".to_owned())
        .spawn(watch);
}
