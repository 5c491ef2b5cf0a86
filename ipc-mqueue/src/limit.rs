//! The limits of `mq_overview(7)`: which one a failed `mq_open(3)` ran into.

use std::io;

use ipc_core::{Limit, OpenError};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

pub(crate) const MSG_MAX: &str = "fs.mqueue.msg_max";
pub(crate) const MSGSIZE_MAX: &str = "fs.mqueue.msgsize_max";
const QUEUES_MAX: &str = "fs.mqueue.queues_max";

/// The live value of a kernel setting, where `/proc` is mounted and it can be read.
pub(crate) fn sysctl(name: &str) -> Option<u64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Why no queue of `size` bytes by `depth` messages could be made.
pub(crate) fn of_create(error: io::Error, size: usize, depth: usize) -> OpenError {
    let limit = |name, value, advice| {
        OpenError::Limit(Limit {
            name,
            value,
            advice,
        })
    };
    match Errno::from_io_error(&error) {
        Some(Errno::INVAL) if size == 0 || depth == 0 => OpenError::Invalid {
            what: "a message queue needs a size and a depth of at least 1",
        },
        Some(Errno::INVAL) if exceeds(depth, MSG_MAX) => limit(
            MSG_MAX,
            sysctl(MSG_MAX),
            "ask for a smaller depth, or raise the setting as root",
        ),
        Some(Errno::INVAL | Errno::OVERFLOW) => limit(
            MSGSIZE_MAX,
            sysctl(MSGSIZE_MAX),
            "ask for a smaller message size, or raise the setting as root",
        ),
        Some(Errno::NOSPC) => limit(
            QUEUES_MAX,
            sysctl(QUEUES_MAX),
            "remove queues nobody uses (mq_unlink), or raise the setting as root",
        ),
        Some(Errno::MFILE) => of_emfile(),
        _ => of_descriptors("mq_open", error),
    }
}

/// EMFILE has two meanings for `mq_open(3)`: no descriptor is left, or no byte of queues is.
fn of_emfile() -> OpenError {
    let probe = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    if let Err(error) = probe {
        return of_descriptors("eventfd", error.into());
    }
    OpenError::Limit(Limit {
        name: "RLIMIT_MSGQUEUE",
        value: getrlimit(Resource::Msgqueue).current,
        advice: "make queues of smaller message size or depth, close others of this user, or \
                 raise the limit (ulimit -q)",
    })
}

/// Descriptors run out, of the process or of the system.
pub(crate) fn of_descriptors(call: &'static str, error: io::Error) -> OpenError {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE) => OpenError::Limit(Limit {
            name: "RLIMIT_NOFILE",
            value: getrlimit(Resource::Nofile).current,
            advice: "close descriptors, or raise the limit (ulimit -n)",
        }),
        Some(Errno::NFILE) => OpenError::Limit(Limit {
            name: "fs.file-max",
            value: sysctl("fs.file-max"),
            advice: "close descriptors, or raise the setting as root",
        }),
        _ => OpenError::io(call, error),
    }
}

pub(crate) fn of_lifeline(error: io::Error) -> OpenError {
    of_descriptors("socketpair", error)
}

fn exceeds(asked: usize, setting: &str) -> bool {
    sysctl(setting).is_some_and(|max| asked as u64 > max)
}
