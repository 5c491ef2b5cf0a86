//! Beside an async runtime that has children and SIGCHLD to itself.

mod common;

use std::time::Duration;

use common::{BOTH, method_of, number_of, zombies};
use ipc_process::Process;

ipc_process::test_support!();

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn a_runtime_and_this_crate_leave_each_other_their_children() {
    fn program(method: u8) -> (u64, usize) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let sum = runtime.block_on(async move {
            let mut sum = 0;
            for n in 0..20 {
                let command = tokio::process::Command::new("sh")
                    .args(["-c", &format!("exit {n}")])
                    .status();
                let ours = tokio::task::spawn_blocking(move || {
                    let process = Process::new(square, (n,)).start_method(method_of(method));
                    process.start().unwrap().join().unwrap()
                });
                let both = async { (command.await.unwrap(), ours.await.unwrap()) };
                let limit = Duration::from_secs(20);
                let (status, square) = tokio::time::timeout(limit, both).await.unwrap();
                assert_eq!(status.code(), Some(i32::try_from(n).unwrap()));
                sum += square;
            }
            sum
        });
        (sum, zombies().len())
    }
    for method in BOTH {
        let own = Process::new(program, (number_of(method),))
            .daemon(true)
            .start()
            .unwrap();
        assert_eq!(
            own.join().unwrap(),
            ((0..20).map(|n| n * n).sum(), 0),
            "{method:?}"
        );
    }
}
