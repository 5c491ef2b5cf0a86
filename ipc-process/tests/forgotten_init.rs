//! What happens to a program that does not call `init`, or too late. A target with a `main` of
//! its own, which is that program.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ipc_process::{Process, StartError, Stdio};

const FORGETS: &str = "IPC_TEST_FORGETS";

fn answer() -> i32 {
    42
}

fn main() {
    match std::env::var(FORGETS).as_deref() {
        Err(_) => {
            ipc_process::init();
            remembers();
        }
        // What follows is a process that forgot.
        Ok("wait") => loop {
            std::thread::park();
        },
        Ok("spin") => loop {
            std::hint::spin_loop();
        },
        Ok("exit") => {}
        Ok("start") => {
            let start = Process::new(answer, ()).start();
            println!("{start:?}");
        }
        Ok("late") => {
            let start = Process::new(answer, ()).start();
            assert!(matches!(
                start,
                Err(StartError::BeforeInit | StartError::InitMissing)
            ));
            ipc_process::init();
            println!(
                "back in main: {}",
                Process::new(answer, ()).start().unwrap().join().unwrap()
            );
        }
        Ok(other) => panic!("{other}?"),
    }
}

fn remembers() {
    #[expect(unsafe_code, reason = "dispositions have no safe form")]
    // SAFETY: SIG_DFL is a valid disposition. Ignored, it would leave `Command` without a status.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL)
    };
    assert_eq!(
        Process::new(answer, ()).start().unwrap().join().unwrap(),
        42
    );

    // The function is called by `main`, through `init`: it has the main thread and no other.
    let thread = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
        (rustix::thread::gettid().as_raw_pid(), threads)
    };
    let process = Process::new(thread, ()).start().unwrap();
    let pid = process.pid().cast_signed();
    assert_eq!(process.join().unwrap(), (pid, 1));

    for forgets in ["wait", "spin", "exit"] {
        let begin = Instant::now();
        let start = Process::new(answer, ())
            .daemon(true)
            .env(FORGETS, forgets)
            .start();
        assert!(
            matches!(start, Err(StartError::InitMissing)),
            "{forgets}: {start:?}"
        );
        // A second of its own; more is what other work takes from a busy machine.
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(3), "{forgets} took {took:?}");
        println!("{forgets}: refused after {took:?}");
    }

    // The process that forgot does not multiply: its own start is refused.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let start = Process::new(answer, ())
        .env(FORGETS, "start")
        .stdout(OwnedFd::from(writer))
        .stderr(Stdio::Null)
        .start();
    assert!(matches!(start, Err(StartError::InitMissing)), "{start:?}");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "Err(BeforeInit)\n");

    // A program that never calls it is told before anything is started.
    let program = std::env::current_exe().unwrap();
    let output = Command::new(&program)
        .env(FORGETS, "start")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Err(InitMissing)\n"
    );

    // One that calls it late is told until then.
    let output = Command::new(&program)
        .env(FORGETS, "late")
        .output()
        .unwrap();
    println!("late: {}", String::from_utf8_lossy(&output.stdout));
}
