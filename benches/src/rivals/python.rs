use std::process::Command;

use crate::placement::Placement;
use crate::spec::{Side, Spec};

/// The program, which speaks the supervisor's own language on standard input.
const PROGRAM: &str = include_str!("peer.py");

/// Whether there is a Python to compare with.
pub(crate) fn is_installed() -> bool {
    Command::new("python3")
        .args(["-c", "import multiprocessing"])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command that runs one row: `multiprocessing.Pipe` or `Queue` between two processes.
pub(crate) fn command(spec: &Spec) -> Command {
    let object = if spec.implementation.ends_with("Queue") {
        "queue"
    } else {
        "pipe"
    };
    let cpu = |side| spec.placement.processor(side).ok().flatten();
    let cpus = match (cpu(Side::Initiator), cpu(Side::Responder)) {
        (Some(first), Some(second)) if spec.placement != Placement::Unpinned => {
            format!("[{first},{second}]")
        }
        _ => "null".into(),
    };
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAM, object, &cpus]);
    command
}
