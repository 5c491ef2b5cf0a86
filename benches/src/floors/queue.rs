use std::hint::spin_loop;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use posixmq::{OpenOptions, PosixMq};

use crate::control::Bundle;
use crate::failure::{Failure, Outcome};
use crate::floors::bytes::{bundle, ends};
use crate::floors::sys;
use crate::peer::Link;
use crate::spec::{Side, Spec};
use crate::workload::Port;

/// Messages a queue holds: `fs.mqueue.msg_max` of a machine that nobody has tuned.
pub(crate) const DEPTH: usize = 10;

/// Two queues that lost their names as soon as they existed.
pub(crate) fn open_queues(spec: &Spec) -> Outcome<[Bundle; 2]> {
    let max = message_limit();
    if spec.size > max {
        return Err(Failure::limit(max));
    }
    let there = nameless(spec.size)?;
    let back = nameless(spec.size)?;
    let descriptor = sys::queue_descriptor;
    Ok([
        bundle([descriptor(&back)?, descriptor(&there)?]),
        bundle([descriptor(&there)?, descriptor(&back)?]),
    ])
}

/// The name is the same for all benches of a user, so that the next one removes what one leaves that
/// is killed between the two calls.
fn nameless(size: usize) -> Outcome<PosixMq> {
    const ATTEMPTS: u32 = 100;
    let name = format!("/ipc-bench-{}", rustix::process::geteuid().as_raw());
    for _ in 0..ATTEMPTS {
        let queue = OpenOptions::readwrite()
            .create_new()
            .mode(0o600)
            .max_msg_len(size)
            .capacity(DEPTH)
            .open(&name);
        // Another bench may have removed it already; only the removal counts.
        let _ = posixmq::remove_queue(&name);
        match queue {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            queue => return Ok(queue?),
        }
    }
    Err(Failure::Failed(format!(
        "the name {name} is another user's queue"
    )))
}

/// `fs.mqueue.msgsize_max`, or its default where `/proc` does not say.
fn message_limit() -> usize {
    const DEFAULT: usize = 8192;
    std::fs::read_to_string("/proc/sys/fs/mqueue/msgsize_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT)
}

/// `mq_send(3)` and `mq_receive(3)`; with `SPIN` without sleeping.
#[derive(Debug)]
pub(crate) struct Queues<const SPIN: bool> {
    input: OwnedFd,
    output: OwnedFd,
}

impl<const SPIN: bool> Port for Queues<SPIN> {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        loop {
            match sys::mq_send(self.output.as_fd(), message) {
                Err(error) if SPIN && error.kind() == io::ErrorKind::WouldBlock => spin_loop(),
                sent => return Ok(sent?),
            }
        }
    }

    #[inline]
    fn recv(&mut self, buffer: &mut [u8]) -> Outcome<usize> {
        loop {
            match sys::mq_receive(self.input.as_fd(), buffer) {
                Err(error) if SPIN && error.kind() == io::ErrorKind::WouldBlock => spin_loop(),
                received => return Ok(received?),
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct QueueLink<const SPIN: bool>;

impl<const SPIN: bool> Link for QueueLink<SPIN> {
    type Port = Queues<SPIN>;

    fn open(spec: &Spec, _peers: [u32; 2]) -> Outcome<[Bundle; 2]> {
        open_queues(spec)
    }

    fn port(_spec: &Spec, _side: Side, bundle: Bundle) -> Outcome<Self::Port> {
        let [input, output] = ends(bundle)?;
        for fd in [&input, &output] {
            // Not fcntl: only mq_setattr may change the flags of a queue (mq_setattr(3)).
            let queue = sys::adopt_queue(fd.try_clone()?);
            queue.set_nonblocking(SPIN)?;
        }
        Ok(Queues { input, output })
    }

    fn depth(_spec: &Spec) -> Option<u64> {
        Some(DEPTH as u64)
    }
}
