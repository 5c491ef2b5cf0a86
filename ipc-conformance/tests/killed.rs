//! The suite itself, killed at a random moment, leaves no file and no process behind.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use ipc_conformance::ipc_process::Process;
use ipc_conformance::{Reference, Scratch, death, handoff, names, order, resources};
use ipc_core::Wait;
use ipc_core::wait::poll;

ipc_conformance::support!();

const KILLS: u32 = 12;
const MARK: &str = "IPC_CONFORMANCE_KILLED";

/// Cases that have names, peers and peers of peers, several at once and again and again.
fn run_cases() {
    let cases: [fn(); 5] = [
        names::a_name_that_was_closed_is_free_again::<Reference>,
        names::a_name_goes_on_after_its_visitor_was_killed::<Reference>,
        handoff::a_sender_moves_to_another_process_and_on_to_a_third::<Reference>,
        order::every_wait_strategy_carries_the_same_messages::<Reference>,
        death::a_stopped_sender_is_not_dead::<Reference>,
    ];
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || {
                loop {
                    case();
                }
            });
        }
        scope.spawn(|| {
            loop {
                resources::a_thousand_names_leave_nothing_behind::<Reference>();
            }
        });
    });
}

/// The processes that have this mark in their environment.
fn marked(mark: &str) -> Vec<String> {
    let variable = format!("{MARK}={mark}");
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .flatten()
        .filter(|entry| {
            // Empty for a zombie, which holds nothing and is its parent's to take away.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment
                .split(|&byte| byte == 0)
                .any(|given| given == variable.as_bytes())
        })
        .map(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("{} {}", entry.file_name().to_string_lossy(), name.trim())
        })
        .collect()
}

#[test]
fn a_suite_that_is_killed_leaves_nothing_behind() {
    let seed = RandomState::new().build_hasher().finish();
    for round in 0..KILLS {
        let mark = format!("{seed}-{round}");
        let directory = Scratch::new();
        let suite = Process::new(run_cases, ())
            .daemon(true)
            .env("TMPDIR", directory.path())
            .env(MARK, &mark)
            .start()
            .expect("a suite");
        // From its first case on, to the midst of all of them.
        let moment = Duration::from_micros((seed >> (round * 4)) % 16 * 20_000 + 1000);
        let _ = poll([], Wait::at_most(moment));
        suite.kill().expect("kill");
        suite.wait().expect("it was killed");

        let patience = Instant::now() + Duration::from_secs(10);
        loop {
            let processes = marked(&mark);
            let files: Vec<_> = fs::read_dir(directory.path())
                .expect("the directory is this test's own")
                .flatten()
                .map(|entry| entry.path())
                .collect();
            if processes.is_empty() && files.is_empty() {
                break;
            }
            assert!(
                Instant::now() < patience,
                "killed after {moment:?} and left processes {processes:?}, files {files:?}"
            );
            let _ = poll([], Wait::at_most(Duration::from_millis(2)));
        }
    }
}
