//! What becomes of panics, checked by itself. Cargo builds tests with unwinding whatever a profile
//! says, so for `panic = "abort"`, where a panic is the end of its process, it is an example:
//! `cargo run --config 'profile.dev.panic="abort"' -p ipc-process --example panics abort`.

use std::sync::mpsc;

use ipc_process::pool::TaskError;
use ipc_process::{JoinError, Pool, Process, RemotePanic, StartMethod};

fn refuse(n: u32) -> u32 {
    assert!(n != 7, "{n} is refused");
    n
}

fn check(panic: &RemotePanic) {
    assert_eq!(panic.message, "7 is refused");
    assert!(panic.location.contains("panics.rs:11"), "{panic}");
    assert!(!panic.backtrace.is_empty());
}

fn main() {
    // They are told here; what they say of themselves there is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    ipc_process::init();
    drop(std::panic::take_hook());
    let abort = std::env::args()
        .nth(1)
        .is_some_and(|argument| argument == "abort");
    assert_eq!(cfg!(panic = "abort"), abort, "the profile's `panic`");
    for method in [StartMethod::Spawn, StartMethod::Zygote] {
        let process = Process::new(refuse, (7,)).start_method(method).daemon(true);
        match process.start().unwrap().join() {
            Err(JoinError::Panicked(panic)) => check(&panic),
            other => panic!("{other:?}"),
        }

        let pool = Pool::builder().processes(2).start_method(method);
        let pool = pool.build().unwrap();
        let (tell, told) = mpsc::channel();
        let job = pool.apply_async(refuse, (7,));
        job.then(move |result| tell.send(result).unwrap());
        let direct = pool.apply(refuse, (7,));
        for result in told.iter().chain([direct]) {
            match result {
                Err(TaskError::Panicked(panic)) => check(&panic),
                other => panic!("{other:?}"),
            }
        }
        // Those behind it go to other workers, and each is run once.
        let batch = pool.batch().chunk_size(1);
        let mut refused = 0;
        for (n, result) in (0..20).zip(batch.imap(refuse, 0..20)) {
            match result {
                Ok(value) => assert_eq!(value, n),
                Err(TaskError::Panicked(panic)) => {
                    check(&panic);
                    refused += 1;
                    assert_eq!(n, 7);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(refused, 1);
        let progress = pool.progress();
        assert_eq!((progress.completed, progress.total), (22, 22));
        pool.close().join();
    }
    assert!(ipc_process::zombie::zombies().unwrap().is_empty());
    println!("each was told once, with message, place and backtrace");
}
