// Included twice, with `METHOD` the one and the other.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use crate::common::{Fd, eventually, forever, need_descriptors, zombies};
use ipc_process::{JoinError, Process, StartError, StartMethod, Stdio, Target, Unstarted};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn process<F: Target<A>, A: Serialize + DeserializeOwned>(
    function: F,
    arguments: A,
) -> Unstarted<F, A> {
    Process::new(function, arguments).start_method(METHOD)
}

fn mul(a: i32, b: i32) -> i32 {
    a * b
}

fn largest<T: Ord>(values: Vec<T>) -> Option<T> {
    values.into_iter().max()
}

#[test]
fn a_function_runs_elsewhere_and_its_result_comes_back() {
    let process = process(mul, (6, 7)).start().unwrap();
    assert_ne!(process.pid(), std::process::id());
    assert_eq!(process.name(), "mul");
    assert_eq!(process.join().unwrap(), 42);
}

#[test]
fn closures_that_capture_nothing_and_generic_instances_run_too() {
    let closure = process(
        |a: String, b: char| format!("{a}{b}"),
        ("ab".to_owned(), 'c'),
    );
    assert_eq!(closure.start().unwrap().join().unwrap(), "abc");

    let words = vec!["pear".to_owned(), "quince".to_owned(), "apple".to_owned()];
    let generic = process(largest::<String>, (words,)).start().unwrap();
    assert_eq!(generic.name(), "largest");
    assert_eq!(generic.join().unwrap().as_deref(), Some("quince"));
    assert_eq!(
        process(largest::<u8>, (vec![3, 9, 4],))
            .start()
            .unwrap()
            .join()
            .unwrap(),
        Some(9)
    );

    let pid = process(std::process::id, ()).start().unwrap();
    let seen = pid.pid();
    assert_eq!(pid.join().unwrap(), seen);

    let eight = |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8| [a, b, c, d, e, f, g, h];
    let eight = process(eight, (1, 2, 3, 4, 5, 6, 7, 8)).start().unwrap();
    assert_eq!(eight.join().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn large_arguments_and_results_block_neither_side() {
    let bytes: Vec<u8> = (0..10_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ 0x5a)
        .collect();
    let process = process(|bytes: Vec<u8>| bytes, (bytes.clone(),))
        .start()
        .unwrap();
    // It ends although nobody has taken its result yet.
    assert!(process.wait().unwrap().success());
    assert_eq!(process.join().unwrap(), bytes);
}

#[test]
fn a_frame_of_every_length_around_the_inline_limit_arrives() {
    for len in [
        0, 1, 65_400, 65_500, 65_530, 65_535, 65_536, 65_537, 65_600, 200_000,
    ] {
        let process = process(|text: String| text, ("x".repeat(len),))
            .start()
            .unwrap();
        assert_eq!(process.join().unwrap().len(), len);
    }
}

#[test]
fn descriptors_travel_in_arguments_and_results() {
    need_descriptors(2000);
    fn echo(mut from: Vec<Fd>) -> Vec<Fd> {
        let first = from[0].0.try_clone().unwrap();
        File::from(first)
            .write_all(b"through the other process")
            .unwrap();
        from.reverse();
        from
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut descriptors = vec![Fd(writer.into())];
    // More than one message can carry (253).
    descriptors.extend((0..600).map(|_| Fd(File::open("/dev/null").unwrap().into())));

    let back = process(echo, (descriptors,))
        .start()
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(back.len(), 601);
    let mut last = File::from(back.into_iter().last().unwrap().0);
    last.write_all(b" and back").unwrap();
    drop(last);
    let mut text = String::new();
    // The end of the pipe is also the proof that no copy of the writer is left anywhere.
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through the other process and back");
}

#[test]
fn only_declared_descriptors_are_inherited() {
    fn open_descriptors(declared: Fd) -> (Vec<String>, bool) {
        let mut open: Vec<String> = fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|path| Some(fs::read_link(path).ok()?.to_str()?.to_owned()))
            .collect();
        open.sort();
        let flags = rustix::io::fcntl_getfd(&declared.0).unwrap();
        (open, flags.contains(rustix::io::FdFlags::CLOEXEC))
    }
    let leaky = File::open("/proc/self/status").unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    let declared = Fd(File::open("/proc/self/limits").unwrap().into());

    let process = process(open_descriptors, (declared,))
        .stdin(Stdio::Null)
        .stdout(Stdio::Null)
        .stderr(Stdio::Null)
        .start()
        .unwrap();
    let (open, close_on_exec) = process.join().unwrap();
    let count = |what: &str| open.iter().filter(|path| path.contains(what)).count();
    assert!(close_on_exec, "a descriptor that arrives is close-on-exec");
    assert_eq!(count("/status"), 0, "{open:?}");
    assert_eq!(count("/limits"), 1, "{open:?}");
    assert_eq!(count("socket:"), 1, "the control socket: {open:?}");
    assert_eq!(count("/dev/null"), 3, "{open:?}");
    // And the directory that was being read.
    assert_eq!(open.len(), 6, "{open:?}");
    assert!(leaky.as_raw_fd() > 2);
}

#[test]
fn name_environment_and_standard_streams_are_as_asked() {
    fn report(variable: String) -> (Option<String>, String, Option<String>) {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        println!("answer to {line}");
        eprintln!("aside");
        let name = std::thread::current().name().map(str::to_owned);
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        (name, comm.trim().to_owned(), std::env::var(variable).ok())
    }
    let (stdin, mut question) = std::io::pipe().unwrap();
    let (mut answer, stdout) = std::io::pipe().unwrap();
    let (mut aside, stderr) = std::io::pipe().unwrap();
    let process = process(report, ("IPC_TEST_GREETING".to_owned(),))
        .name("reporter")
        .env("IPC_TEST_GREETING", "no")
        .env("IPC_TEST_GREETING", "hello")
        .stdin(OwnedFd::from(stdin))
        .stdout(OwnedFd::from(stdout))
        .stderr(OwnedFd::from(stderr))
        .start()
        .unwrap();
    question.write_all(b"why").unwrap();
    drop(question);
    let mut text = String::new();
    answer.read_to_string(&mut text).unwrap();
    aside.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer to why\naside\n");
    assert_eq!(process.name(), "reporter");
    let (name, comm, variable) = process.join().unwrap();
    if METHOD == StartMethod::Spawn {
        // Else it runs in the thread that there is, whose name Rust has settled.
        assert_eq!(name.as_deref(), Some("reporter"));
    }
    assert_eq!(comm, "reporter");
    assert_eq!(variable.as_deref(), Some("hello"));
}

#[test]
fn signals_are_as_in_any_program() {
    fn status() -> BTreeMap<String, u64> {
        fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .filter_map(|line| line.split_once(":\t"))
            .filter_map(|(key, mask)| Some((key.to_owned(), u64::from_str_radix(mask, 16).ok()?)))
            .collect()
    }
    let bit = |number: i32| 1_u64 << (number - 1);
    let status = process(status, ()).start().unwrap().join().unwrap();
    assert_eq!(status["SigBlk"], 0);
    assert_eq!(status["SigIgn"] & bit(libc::SIGCHLD), 0);
    assert_ne!(
        status["SigIgn"] & bit(libc::SIGPIPE),
        0,
        "a closed pipe is an error, not the end"
    );
}

/// A value that can be sent and not received.
struct OneWay;

impl Serialize for OneWay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("not this one"))
    }
}

/// A value that cannot even be sent.
#[derive(Deserialize)]
struct Rooted;

impl Serialize for Rooted {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it stays here"))
    }
}

#[test]
fn values_that_do_not_travel_are_errors_and_not_hangs() {
    let start = process(|_: Rooted| (), (Rooted,)).start();
    assert!(
        matches!(start, Err(StartError::Arguments { .. })),
        "{start:?}"
    );

    let join = process(|_: OneWay| (), (OneWay,)).start().unwrap().join();
    assert!(matches!(join, Err(JoinError::Arguments { .. })), "{join:?}");

    let join = process(|| OneWay, ()).start().unwrap().join();
    assert!(
        matches!(join, Err(JoinError::Result { .. })),
        "{:?}",
        join.err()
    );

    let join = process(|| Rooted, ()).start().unwrap().join();
    assert!(
        matches!(join, Err(JoinError::Result { .. })),
        "{:?}",
        join.err()
    );
}

#[test]
fn processes_start_processes() {
    fn sum_of_squares(n: u32) -> u32 {
        let square = |n: u32| n * n;
        let processes: Vec<_> = (1..=n)
            .map(|n| process(square, (n,)).start().unwrap())
            .collect();
        processes
            .into_iter()
            .map(|process| process.join().unwrap())
            .sum()
    }
    let process = process(sum_of_squares, (3,)).start().unwrap();
    assert_eq!(process.join().unwrap(), 14);
}

#[test]
fn endless_recursion_is_refused() {
    fn deeper(levels: u32) -> Result<u32, String> {
        match process(deeper, (levels + 1,)).start() {
            Ok(process) => process.join().map_err(|error| error.to_string())?,
            Err(StartError::TooDeep { .. }) => Ok(levels),
            Err(error) => Err(error.to_string()),
        }
    }
    let process = process(deeper, (1,)).start().unwrap();
    assert_eq!(process.join().unwrap(), Ok(32));
}

#[test]
fn a_hundred_at_a_time_leave_nothing() {
    need_descriptors(2000);
    let processes: Vec<_> = (0..100)
        .map(|n| process(mul, (n, 2)).start().unwrap())
        .collect();
    for (n, process) in (0..).zip(processes) {
        assert_eq!(process.join().unwrap(), n * 2);
    }
    assert!(eventually(|| zombies().is_empty()));
}

#[test]
fn starts_from_many_threads_do_not_mix() {
    std::thread::scope(|scope| {
        for n in 0..8 {
            scope.spawn(move || {
                for m in 0..5 {
                    assert_eq!(process(mul, (n, m)).start().unwrap().join().unwrap(), n * m);
                }
            });
        }
    });
}

#[test]
fn a_handle_tells_whether_its_process_lives() {
    let process = process(|| forever(), ()).daemon(true).start();
    let process: Process<()> = process.unwrap();
    assert!(process.is_alive());
    assert_eq!(
        process.wait_timeout(Duration::from_millis(20)).unwrap(),
        None
    );
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!process.is_alive());
}
