//! In sandboxes and on kernels that refuse the calls with flags: a filter of system calls stands for
//! them, in a process of its own.

use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::{
    Channel, Listener as _, Receiver as _, RecvError, SendError, Sender as _, Tunable, Wait,
    WaitStrategy,
};
use ipc_pipe::{Options, Pipe, Receiver, Sender};
use ipc_process::Process;

ipc_process::test_support!();

/// Linux before 6.4, sandboxes of old and of today.
const ERRORS: [i32; 3] = [libc::EOPNOTSUPP, libc::EPERM, libc::ENOSYS];
const FLAGGED: [libc::c_long; 2] = [libc::SYS_preadv2, libc::SYS_pwritev2];
const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(5);

fn patience() -> Wait {
    Wait::at_most(PATIENCE)
}

/// One without a name, and one with.
fn pipes(options: &Options) -> [(Sender, Receiver); 2] {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    let name = path.to_str().unwrap().parse().unwrap();
    let mut listener = Pipe::listen(&name, options).unwrap();
    let sender = Pipe::connect(&name, options, patience()).unwrap();
    let receiver = listener.accept(patience()).unwrap();
    [Pipe::pair(options).unwrap(), (sender, receiver)]
}

/// Whether each wait is what it is, and a stream with sleeps on both sides arrives.
fn use_pipes(errno: i32) {
    ipc_conformance::refuse(&FLAGGED, errno);
    for strategy in [WaitStrategy::Block, WaitStrategy::Adaptive] {
        let options = Options::default().wait_strategy(strategy).capacity(4096);
        for (mut sender, mut receiver) in pipes(&options) {
            let mut buffer = vec![0; 20_000];
            let none = receiver.try_recv(&mut buffer);
            assert!(matches!(none, Err(RecvError::Empty)), "{none:?}");
            let none = receiver.recv_timeout(&mut buffer, SOON);
            assert!(matches!(none, Err(RecvError::TimedOut)), "{none:?}");
            let mut sent = 0;
            let full = loop {
                match sender.try_send(&[7; 1000]) {
                    Ok(()) => sent += 1,
                    Err(full) => break full,
                }
            };
            assert!(sent > 0 && matches!(full, SendError::Full), "{full:?}");
            let full = sender.send_timeout(&[7; 1000], SOON);
            assert!(matches!(full, Err(SendError::TimedOut)), "{full:?}");
            let sending = std::thread::spawn(move || {
                for len in (0..200).map(|number| number * 100) {
                    sender.send(&vec![len as u8; len]).unwrap();
                }
            });
            for _ in 0..sent {
                assert_eq!(receiver.recv(&mut buffer).unwrap(), 1000);
            }
            for len in (0..200).map(|number| number * 100) {
                assert_eq!(receiver.recv(&mut buffer).unwrap(), len);
                assert!(buffer[..len].iter().all(|&byte| byte == len as u8));
            }
            let end = receiver.recv(&mut buffer);
            assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
            sending.join().unwrap();
        }
    }
}

#[test]
fn a_pipe_does_without_the_calls_that_a_sandbox_refuses() {
    for errno in ERRORS {
        let process = Process::new(use_pipes, (errno,))
            .daemon(true)
            .start()
            .unwrap();
        let ended = process.wait_timeout(PATIENCE).unwrap();
        assert!(ended.is_some(), "the program hangs, errno {errno}");
        process.join().unwrap();
    }
}
