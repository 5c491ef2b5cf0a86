//! The other side: how a process that was started to run a function finds that out.

mod run;
mod settle;

use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::StartError;
use crate::control::Control;
use crate::spawn::{MARKER, signals, sys};
pub(crate) use run::{EXIT_UNTOLD, Thread, obey, rehearsal, rehearse, serve};

/// Deeper than any sensible tree of processes, shallow enough for any machine.
const MAX_DEPTH: u32 = 32;

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

fn enter(before_main: bool) {
    if let Some(marker) = std::env::var_os(MARKER) {
        // Not for the programs that this process may start.
        sys::set_variable(MARKER.as_ref(), None);
        if let Some((control, depth)) = marker.to_str().and_then(claim) {
            DEPTH.store(depth, Ordering::Relaxed);
            INITIALISED.store(true, Ordering::Relaxed);
            if before_main {
                signals::ignore_broken_pipes();
                serve(control, Thread::New)
            }
            serve(control, Thread::This)
        }
    }
    INITIALISED.store(true, Ordering::Relaxed);
}

/// The control socket, if the marker is meant for this process and not left over from one that
/// started this program without having called `init`.
fn claim(marker: &str) -> Option<(Control, u32)> {
    let mut fields = marker.split('.');
    let control = fields.next()?.parse().ok()?;
    let depth = fields.next()?.parse().ok()?;
    let meant: u32 = fields.next()?.parse().ok()?;
    let control = sys::adopt_control(control)?;
    if meant == std::process::id() {
        return Some((Control::from_fd(control), depth));
    }
    // Not meant for us, nor is the descriptor.
    let _ = OwnedFd::into_raw_fd(control);
    None
}
