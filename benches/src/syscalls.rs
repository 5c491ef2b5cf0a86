#![expect(unsafe_code, reason = "rustix has no ptrace")]

use std::collections::HashMap;
use std::io;
use std::ptr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::channel::BATCH_MESSAGES;
use crate::failure::{Failure, Outcome};
use crate::pair::Pair;
use crate::workload::Run;

/// System calls of both sides per message: each side runs under `PTRACE_SYSCALL`, once for N and
/// once for 2 N messages, and the difference leaves out what every run costs. Tracing slows calls
/// down, so the count of a polling loop is that of slow polls; of blocking code it is exact.
///
/// The pair is used up.
pub(crate) fn per_message(pair: Pair) -> Outcome<f64> {
    let processes = pair.processes();
    let (finished, guard) = mpsc::channel::<()>();
    let watched = processes.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            if guard.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                // The tracer sits in waitpid: the death of what it traces wakes it.
                for process in watched {
                    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
                    let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
                }
            }
        });
        let counted = count_twice(&pair, &processes);
        drop(finished);
        pair.kill();
        counted
    })
}

/// Messages of the shorter run: whole batches, where they are sent in batches.
const MESSAGES: u64 = 2 * BATCH_MESSAGES as u64;
const LIMIT: Duration = Duration::from_secs(2);

fn count_twice(pair: &Pair, processes: &[u32]) -> Outcome<f64> {
    let mut tracer = Tracer::seize(processes)?;
    let run = |messages| Run {
        messages,
        sample: false,
    };
    // The first run warms up what is done once, such as reading a limit.
    tracer.count(pair, run(MESSAGES))?;
    let short = tracer.count(pair, run(MESSAGES))?;
    let long = tracer.count(pair, run(2 * MESSAGES))?;
    Ok(long.saturating_sub(short) as f64 / MESSAGES as f64)
}

struct Tracer {
    /// By process: whether it is inside a call.
    inside: HashMap<libc::pid_t, bool>,
}

impl Tracer {
    /// Attaches to processes that wait for a command.
    fn seize(processes: &[u32]) -> Outcome<Self> {
        let mut inside = HashMap::new();
        for &process in processes {
            let pid = libc::pid_t::try_from(process)?;
            let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
            ptrace(libc::PTRACE_SEIZE, pid, options.cast_unsigned() as usize)?;
            ptrace(libc::PTRACE_INTERRUPT, pid, 0)?;
            wait_for(pid)?;
            // It was stopped inside the receipt of its next command, which is restarted: the next
            // stop is the entry to it.
            ptrace(libc::PTRACE_SYSCALL, pid, 0)?;
            inside.insert(pid, false);
        }
        Ok(Self { inside })
    }

    /// Runs and counts the entries to system calls until both sides wait for the next command.
    fn count(&mut self, pair: &Pair, run: Run) -> Outcome<u64> {
        pair.ask(run)?;
        let mut entries = 0;
        let mut running: Vec<_> = self.inside.keys().copied().collect();
        while !running.is_empty() {
            let (pid, status) = wait_for(-1)?;
            let Some(inside) = self.inside.get_mut(&pid) else {
                continue;
            };
            if !libc::WIFSTOPPED(status) {
                return Err(Failure::Failed(
                    "a side ended or hung while it was traced".into(),
                ));
            }
            let mut deliver = 0;
            let signal = libc::WSTOPSIG(status);
            if signal == libc::SIGTRAP | SYSCALL_STOP {
                *inside = !*inside;
                if *inside {
                    entries += 1;
                    // The first call after the answer is the wait for the next command.
                    if pair.has_answered(pid.unsigned_abs())? {
                        running.retain(|&other| other != pid);
                    }
                }
            } else if status >> 16 == 0 {
                deliver = signal.unsigned_abs() as usize;
            }
            ptrace(libc::PTRACE_SYSCALL, pid, deliver)?;
        }
        pair.take_answers()?;
        Ok(entries)
    }
}

/// `PTRACE_O_TRACESYSGOOD` sets this bit in the stops of system calls.
const SYSCALL_STOP: i32 = 0x80;

fn ptrace(request: libc::c_uint, pid: libc::pid_t, data: usize) -> io::Result<()> {
    // SAFETY: the requests used here take no pointer into this process's memory.
    let done = unsafe { libc::ptrace(request, pid, ptr::null_mut::<libc::c_void>(), data) };
    if done == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn wait_for(pid: libc::pid_t) -> io::Result<(libc::pid_t, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a live integer.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        if waited > 0 {
            return Ok((waited, status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
