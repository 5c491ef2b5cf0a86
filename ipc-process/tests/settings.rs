//! What a process can be asked to be, who it says its relatives are, and processes with a type of
//! their own.
#![expect(unsafe_code, reason = "signal has no safe form")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{BOTH, eventually, forever, lacks_own_proc, own_group};
use ipc_process::{
    Context, JoinError, Limits, Process, Run, StartError, Stdio, active_children, parent_process,
};
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

ipc_process::test_support!();

#[test]
fn directory_limits_and_group_are_as_asked() {
    if lacks_own_proc() {
        return;
    }
    fn report() -> (PathBuf, Option<u64>, Option<u64>, Option<u64>, i32) {
        (
            std::env::current_dir().unwrap(),
            getrlimit(Resource::As).current,
            getrlimit(Resource::Cpu).current,
            getrlimit(Resource::Nofile).current,
            own_group(),
        )
    }
    for method in BOTH {
        let limits = Limits::new()
            .memory(3 << 30)
            .cpu(Duration::from_millis(1500))
            .descriptors(33);
        let process = Process::new(report, ())
            .start_method(method)
            .directory("/proc/self")
            .limits(limits)
            .own_group(true)
            .start()
            .unwrap();
        let pid = process.pid();
        let (directory, memory, cpu, descriptors, group) = process.join().unwrap();
        assert_eq!(
            directory,
            PathBuf::from(format!("/proc/{pid}")),
            "{method:?}"
        );
        assert_eq!((memory, cpu), (Some(3 << 30), Some(2)), "{method:?}");
        assert_eq!(descriptors, Some(33), "{method:?}");
        assert_eq!(group.unsigned_abs(), pid, "{method:?}");

        let plain = Process::new(report, ())
            .start_method(method)
            .start()
            .unwrap();
        let (directory, memory, _, _, group) = plain.join().unwrap();
        assert_eq!(directory, std::env::current_dir().unwrap(), "{method:?}");
        assert_eq!(memory, getrlimit(Resource::As).current, "{method:?}");
        assert_eq!(group, own_group(), "{method:?}");
    }
}

#[test]
fn a_directory_that_does_not_exist_is_an_error_of_start() {
    for method in BOTH {
        let start = Process::new(|| (), ())
            .start_method(method)
            .directory("/proc/no/such")
            .start();
        let Err(StartError::Io { call, source }) = start else {
            panic!("{method:?}: {start:?}")
        };
        assert_eq!(call, "chdir");
        assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    }
}

#[test]
fn a_process_beyond_its_limits_is_ended_by_the_kernel() {
    fn allocates(bytes: usize) -> usize {
        std::hint::black_box(vec![1_u8; bytes]).len()
    }
    fn spins() {
        loop {
            std::hint::spin_loop();
        }
    }
    for method in BOTH {
        let greedy = Process::new(allocates, (1 << 30,))
            .start_method(method)
            .limits(Limits::new().memory(512 << 20).core(0))
            .stderr(Stdio::Null)
            .start()
            .unwrap()
            .join();
        assert!(
            matches!(
                greedy,
                Err(JoinError::Killed {
                    signal: libc::SIGABRT,
                    ..
                })
            ),
            "{method:?}: {greedy:?}"
        );
    }
    let endless = Process::new(spins, ())
        .daemon(true)
        .limits(Limits::new().cpu(Duration::from_secs(1)).core(0))
        .start()
        .unwrap();
    let join = endless.join();
    assert!(
        matches!(
            join,
            Err(JoinError::Killed {
                signal: libc::SIGXCPU,
                ..
            })
        ),
        "{join:?}"
    );
}

#[test]
fn relatives_are_known() {
    fn parent() -> Option<(u32, bool)> {
        let parent = parent_process().unwrap()?;
        Some((parent.pid(), parent.is_alive()))
    }
    /// Its own children, by name, while one lives and after that ended.
    fn parent_of_two() -> (Vec<String>, Vec<String>) {
        let names = || active_children().into_iter().map(|c| c.name).collect();
        let lives = Process::new(|| -> () { forever() }, ())
            .name("lives")
            .daemon(true);
        let lives = lives.start().unwrap();
        Process::new(|| (), ()).start().unwrap().join().unwrap();
        let while_it_lives = names();
        drop(lives);
        (while_it_lives, names())
    }
    assert!(parent_process().unwrap().is_none(), "libtest started none");
    for method in BOTH {
        let seen = Process::new(parent, ())
            .start_method(method)
            .start()
            .unwrap();
        assert_eq!(seen.join().unwrap(), Some((std::process::id(), true)));
        let seen = Process::new(parent_of_two, ()).start_method(method);
        let (before, after) = seen.start().unwrap().join().unwrap();
        assert_eq!((before, after), (vec!["lives".to_owned()], vec![]));
    }
}

#[derive(Serialize, Deserialize)]
struct Counter {
    from: u64,
}

impl Run for Counter {
    type Output = (u64, bool);

    fn run(mut self, context: &Context) -> (u64, bool) {
        let asked_before = context.is_asked_to_stop();
        while !context.wait(Duration::from_millis(1)) {
            self.from += 1;
        }
        (self.from, !asked_before || context.is_asked_to_stop())
    }
}

#[test]
fn a_process_of_an_own_type_stops_when_asked() {
    for method in BOTH {
        let process = Process::of(Counter { from: 1000 }).start_method(method);
        let process = process.start().unwrap();
        assert_eq!(process.name(), "Counter");
        // However early, the question is not the end.
        process.terminate().unwrap();
        let (count, consistent) = process.join().unwrap();
        assert!((1000..10_000).contains(&count), "{method:?}: {count}");
        assert!(consistent);
    }
}

fn signals_of_all_kinds() {
    // A shell starts what runs in the background with SIGINT ignored, and that is inherited.
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    for method in BOTH {
        for signal in ["interrupt", "terminate", "kill"] {
            let process = Process::new(|| -> () { forever() }, ())
                .daemon(true)
                .start_method(method)
                .start()
                .unwrap();
            let number = match signal {
                "interrupt" => process.interrupt().map(|()| libc::SIGINT),
                "terminate" => process.terminate().map(|()| libc::SIGTERM),
                _ => process.kill().map(|()| libc::SIGKILL),
            };
            let number = number.unwrap();
            assert!(eventually(|| !process.is_alive()), "{method:?}: {signal}");
            let join = process.join();
            assert!(
                matches!(join, Err(JoinError::Killed { signal: s, .. }) if s == number),
                "{method:?}: {signal}: {join:?}"
            );
        }
    }
}

#[test]
fn a_handle_tells_of_both_kinds_of_signals() {
    let process = Process::new(signals_of_all_kinds, ()).start().unwrap();
    process.join().unwrap();
}

/// Arguments by name.
#[derive(Serialize, Deserialize)]
struct Area {
    width: u32,
    height: u32,
}

#[test]
fn named_arguments_are_a_struct() {
    let area = |Area { width, height }: Area| width * height;
    let process = Process::new(
        area,
        (Area {
            width: 6,
            height: 7,
        },),
    );
    assert_eq!(process.start().unwrap().join().unwrap(), 42);
}

#[test]
fn variables_that_cannot_be_are_errors_of_start() {
    for method in BOTH {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0B", "x"), ("A", "x\0y")] {
            let process = Process::new(|| 1, ()).start_method(method).env(name, value);
            let error = process.start().unwrap_err().to_string();
            assert!(error.starts_with("setenv failed"), "{error}");
        }
    }
}
