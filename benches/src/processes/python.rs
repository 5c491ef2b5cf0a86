use std::process::Command;

use crate::processes::tasks::{WORKERS, tasks_in_a_call};
use crate::spec::Spec;

const PROGRAM: &str = include_str!("processes.py");

/// The command that runs one row: `multiprocessing.Process`, `multiprocessing.Pool` or
/// `concurrent.futures.ProcessPoolExecutor`.
pub(crate) fn command(spec: &Spec) -> Command {
    let kind = spec.implementation.trim_start_matches("rival:python-");
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAM, kind, &WORKERS.to_string()]);
    command.arg(tasks_in_a_call(spec.size).to_string());
    command
}
