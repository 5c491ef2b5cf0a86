//! Counting system calls exactly, and dying at each of them: the thread runs under `PTRACE_SYSCALL`
//! (`ptrace(2)`).

#![expect(unsafe_code, reason = "rustix has no ptrace")]

use std::mem;
use std::ops::ControlFlow;
use std::ptr;
use std::time::Duration;

use ipc_core::{Channel, End, Receiver as _, Sender as _};
use ipc_process::{Process, Target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Reference, ReferenceOptions, ReferenceReceiver, ReferenceSender};

mod exchanges;

pub use exchanges::{
    Load, in_pairs, receives, round_trips, sends, sends_batch, streams, to_itself,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// `PTRACE_O_TRACESYSGOOD` sets this bit in the stops of system calls.
const SYSCALL_STOP: i32 = 0x80;

/// In the counted process: where counting begins and ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probe {
    ready: End<ReferenceSender>,
    go: End<ReferenceReceiver>,
}

/// A [`Probe`] whose thread is counted until this is given back to [`Counted::stop`].
#[derive(Debug)]
#[must_use = "counting goes on until `stop`"]
pub struct Counted(());

impl Probe {
    /// Counts this thread's calls from now on.
    ///
    /// # Panics
    /// When the counting process is gone.
    pub fn start(self) -> Counted {
        let thread = rustix::thread::gettid().as_raw_pid();
        let mut ready = self.ready.into_inner();
        ready
            .send_timeout(&thread.to_le_bytes(), PATIENCE)
            .expect("the tracer waits");
        let mut go = self.go.into_inner();
        go.recv_timeout(&mut [0; 1], PATIENCE)
            .expect("the tracer answers");
        mem::forget((ready, go));
        mark();
        Counted(())
    }
}

impl Counted {
    /// Ends the counting.
    pub fn stop(self) {
        mark();
    }
}

/// A call that no channel makes in a send or receive.
fn mark() {
    let _ = rustix::process::getppid();
}

/// Runs `run(probe, arguments)` in a process of its own and gives the number of system calls that
/// its thread made between [`Probe::start`] and [`Counted::stop`], without those that read a
/// clock. Tracing slows each call down by some microseconds.
///
/// # Panics
/// When the process cannot be traced, or dies, or does not come to its end.
pub fn count<F, A>(run: F, arguments: A) -> u64
where
    F: Target<(Probe, A), Output = ()>,
    A: Serialize + DeserializeOwned + 'static,
{
    let counted = step(run, arguments, |_| ControlFlow::Continue(()));
    counted.expect("nobody killed it")
}

/// As [`count`], and stops the thread before each call: `at` gets the number of the calls before it, and
/// `Break` kills the process there by SIGKILL, so that the call is not made. `None` if it was killed.
///
/// # Panics
/// As [`count`].
pub fn step<F, A>(run: F, arguments: A, mut at: impl FnMut(u64) -> ControlFlow<()>) -> Option<u64>
where
    F: Target<(Probe, A), Output = ()>,
    A: Serialize + DeserializeOwned + 'static,
{
    let options = ReferenceOptions::default();
    let (ready, mut is_ready) = Reference::pair(&options).expect("a channel");
    let (mut release, go) = Reference::pair(&options).expect("a channel");
    let probe = Probe {
        ready: End::new(ready),
        go: End::new(go),
    };
    let process = Process::new(run, (probe, arguments))
        .daemon(true)
        .start()
        .expect("the counted process");
    let mut thread = [0; 4];
    is_ready
        .recv_timeout(&mut thread, PATIENCE)
        .expect("the counted thread");
    let thread = i32::from_le_bytes(thread);

    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SEIZE, thread, options.cast_unsigned() as usize);
    ptrace(libc::PTRACE_INTERRUPT, thread, 0);
    wait_for(thread);
    ptrace(libc::PTRACE_SYSCALL, thread, 0);
    // Only now may the thread come to its first mark.
    release
        .send_timeout(&[0], PATIENCE)
        .expect("the counted thread waits");

    let mut stops = None;
    let total = loop {
        let status = wait_for(thread);
        assert!(
            libc::WIFSTOPPED(status),
            "the counted thread ended before its second mark"
        );
        let signal = libc::WSTOPSIG(status);
        let mut deliver = 0;
        if signal == libc::SIGTRAP | SYSCALL_STOP {
            match (entered(thread), stops) {
                (Some(libc::SYS_getppid), None) => stops = Some(0),
                (Some(libc::SYS_getppid), Some(total)) => break total,
                // A reading of the clock is a call where the vDSO cannot serve it, vdso(7).
                (Some(libc::SYS_clock_gettime), _) => {}
                (Some(_), Some(before)) => {
                    if at(before).is_break() {
                        process.kill().expect("SIGKILL");
                        // The process is not reported before its tracer reaped this thread, ptrace(2).
                        while !libc::WIFSIGNALED(wait_for(thread)) {}
                        let _ = process.wait();
                        return None;
                    }
                    stops = Some(before + 1);
                }
                _ => {}
            }
        } else if status >> 16 == 0 {
            deliver = signal.unsigned_abs() as usize;
        }
        ptrace(libc::PTRACE_SYSCALL, thread, deliver);
    };
    ptrace(libc::PTRACE_DETACH, thread, 0);
    process.join().expect("the counted process");
    Some(total)
}

/// The number of the call that the stopped thread is about to make; `None` on the way out of one.
fn entered(thread: libc::pid_t) -> Option<libc::c_long> {
    let mut info = mem::MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of_val(&info);
    // SAFETY: `info` is writable for `size` bytes, and the kernel writes no more.
    let got = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            thread,
            size,
            info.as_mut_ptr(),
        )
    };
    assert!(
        got > 0,
        "PTRACE_GET_SYSCALL_INFO: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: the kernel filled it in; whatever it left out is zero, which every field allows.
    let info = unsafe { info.assume_init() };
    (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(|| {
        // SAFETY: `op` says that the entry variant of the union is the one filled in.
        let entry = unsafe { info.u.entry };
        entry.nr as libc::c_long
    })
}

fn ptrace(request: libc::c_uint, thread: libc::pid_t, data: usize) {
    // SAFETY: the requests used here take no pointer into this process's memory.
    let done = unsafe { libc::ptrace(request, thread, ptr::null_mut::<libc::c_void>(), data) };
    assert!(
        done != -1,
        "ptrace({request:#x}): {}",
        std::io::Error::last_os_error()
    );
}

fn wait_for(thread: libc::pid_t) -> i32 {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live integer.
        let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
        if waited == thread {
            return status;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::Interrupted,
            "waitpid: {error}"
        );
    }
}
