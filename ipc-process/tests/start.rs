//! Functions, arguments, results and ways to end.

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

use ipc_process::{JoinError, Process, Stdio};

ipc_process::test_support!();

fn mul(a: i32, b: i32) -> i32 {
    a * b
}

#[test]
fn a_function_runs_elsewhere_and_its_result_comes_back() {
    let process = Process::new(mul, (6, 7)).start().unwrap();
    assert_ne!(process.pid(), std::process::id());
    assert_eq!(process.name(), "mul");
    assert_eq!(process.join().unwrap(), 42);
}
