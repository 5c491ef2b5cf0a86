//! Where the host or its user has less than usual: no room for pipes, or SIGPIPE in force. Both belong
//! to a whole process or user, so each test runs in a process of its own.
#![expect(unsafe_code, reason = "signal dispositions have no safe API")]

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ipc_conformance::Scratch;
use ipc_core::{
    Channel, Listener as _, OpenError, Receiver as _, RecvError, SendError, Sender as _, Tunable,
    Wait,
};
use ipc_pipe::{Options, Pipe, Receiver};
use ipc_process::Process;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

ipc_process::test_support!();

const PATIENCE: Duration = Duration::from_secs(20);
const PAGE: usize = 4096;

/// Uses up what `fs.pipe-user-pages-soft` grants this user. `None` where it grants everything, or
/// privilege does.
fn use_up_pages() -> Option<Vec<(OwnedFd, OwnedFd)>> {
    let soft = std::fs::read_to_string("/proc/sys/fs/pipe-user-pages-soft").ok()?;
    let soft: usize = soft.trim().parse().ok()?;
    let largest = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").ok()?;
    let largest: usize = largest.trim().parse().ok()?;
    let mut pipes = Vec::new();
    for _ in 0..soft * PAGE / largest + soft {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        if fcntl_getpipe_size(&writer).ok()? < 16 * PAGE {
            // Less than a usual pipe is left: small ones use that up, too.
            pipes.extend((0..16).map_while(|_| pipe_with(PipeFlags::CLOEXEC).ok()));
            return Some(pipes);
        }
        let _ = fcntl_setpipe_size(&writer, largest);
        pipes.push((reader, writer));
    }
    None
}

/// Gives the size that the pipe had, if there was a limit to meet.
fn exchange_through_a_small_pipe() -> Option<usize> {
    let nobody = rustix::thread::Uid::from_raw(65534);
    let _ = rustix::thread::set_thread_res_uid(nobody, nobody, nobody);
    let _pages = use_up_pages()?;
    let (mut sender, mut receiver) = Pipe::pair(&Options::default()).unwrap();
    let size = sender.limits().depth_bytes;
    let lengths = || (0..2000usize).map(|number| number * 7919 % 50_000);
    let sending = std::thread::spawn(move || {
        for len in lengths() {
            sender
                .send_timeout(&vec![len as u8; len], PATIENCE)
                .unwrap();
        }
        // Several small ones in one write, into a pipe of two pages.
        let batch = [IoSlice::new(b"small"); 1000];
        let mut sent = 0;
        while sent < batch.len() {
            sent += sender
                .send_batch_with(&batch[sent..], Wait::at_most(PATIENCE))
                .unwrap();
        }
    });
    let mut message = Vec::new();
    for len in lengths() {
        receiver
            .recv_vec(&mut message, Wait::at_most(PATIENCE))
            .unwrap();
        assert!(message.len() == len && message.iter().all(|&byte| byte == len as u8));
    }
    for _ in 0..1000 {
        receiver
            .recv_vec(&mut message, Wait::at_most(PATIENCE))
            .unwrap();
        assert_eq!(message, b"small");
    }
    sending.join().unwrap();
    assert!(matches!(receiver.recv(&mut []), Err(RecvError::Closed)));
    size
}

#[test]
fn beyond_the_users_share_of_pages_a_pipe_is_small_and_carries_everything() {
    let child = Process::new(exchange_through_a_small_pipe, ())
        .start()
        .unwrap();
    match child.join().unwrap() {
        Some(size) => assert!(size <= 2 * PAGE, "{size}"),
        None => eprintln!("skipped: nothing limits the pages of this user's pipes"),
    }
}

/// RWF_NOSIGNAL of `<linux/fs.h>`.
const NOSIGNAL: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x100);

fn knows_nosignal() -> bool {
    let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    pwritev2(&writer, &[IoSlice::new(b"x")], u64::MAX, NOSIGNAL) != Err(Errno::OPNOTSUPP)
}

/// Gives what became of sends to nobody, in a process that SIGPIPE would end unless it is deaf.
fn send_to_nobody(deaf: bool) -> bool {
    if !deaf {
        // SAFETY: a valid signal and disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    let options = Options::default();
    let scratch = Scratch::new();
    let fifo = scratch.path().join("fifo");
    let name = fifo.to_str().unwrap().parse().unwrap();
    let mut listener = Pipe::listen(&name, &options).unwrap();
    let (nameless, receiver) = Pipe::pair(&options).unwrap();
    let named = Pipe::connect(&name, &options, Wait::at_most(PATIENCE)).unwrap();
    drop(receiver);
    drop(listener.accept(Wait::at_most(PATIENCE)).unwrap());
    let waits = [Wait::Never, Wait::Forever, Wait::at_most(PATIENCE)];
    [nameless, named].into_iter().all(|mut sender| {
        waits
            .iter()
            .all(|&wait| matches!(sender.send_with(b"x", wait), Err(SendError::Closed)))
    })
}

#[test]
fn sigpipe_ends_no_host_whether_it_ignores_it_or_not() {
    assert!(
        Process::new(send_to_nobody, (true,))
            .start()
            .unwrap()
            .join()
            .unwrap()
    );
    if !knows_nosignal() {
        eprintln!("skipped for a host that does not: RWF_NOSIGNAL needs Linux 6.18");
        return;
    }
    assert!(
        Process::new(send_to_nobody, (false,))
            .start()
            .unwrap()
            .join()
            .unwrap()
    );
}

fn receive_all(mut receiver: Receiver) -> u32 {
    let mut buffer = [0; 8];
    (0..).find(|_| receiver.recv(&mut buffer).is_err()).unwrap()
}

#[test]
fn a_pipe_of_one_page_streams_like_any_other() {
    let (mut sender, receiver) = Pipe::pair(&Options::default().capacity(PAGE)).unwrap();
    let child = Process::new(receive_all, (receiver,)).start().unwrap();
    for _ in 0..100_000 {
        sender.send_timeout(b"12345678", PATIENCE).unwrap();
    }
    drop(sender);
    assert_eq!(child.join().unwrap(), 100_000);
}

/// The notes of a pipe count as a file: writing beyond the limit would be a SIGXFSZ.
fn pair_beyond_the_limit_of_files() {
    let set = |current| {
        let (current, maximum) = (Some(current), Some(1));
        let limit = Rlimit { current, maximum };
        setrlimit(Resource::Fsize, limit).unwrap();
    };
    // Room for the sender's coming, not for its going.
    set(1);
    let (mut sender, mut receiver) = Pipe::pair(&Options::default()).unwrap();
    sender.send(b"x").unwrap();
    drop(sender);
    assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1);
    let end = receiver.recv(&mut [0; 8]);
    assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");
    set(0);
    let refused = Pipe::pair(&Options::default());
    let Err(OpenError::Limit(limit)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((limit.name, limit.value), ("RLIMIT_FSIZE", Some(0)));
}

#[test]
fn a_limit_of_file_sizes_is_an_error_and_no_signal() {
    let child = Process::new(pair_beyond_the_limit_of_files, ())
        .start()
        .unwrap();
    child.join().expect("no SIGXFSZ");
}

#[test]
fn a_capacity_beyond_the_largest_pipe_gets_the_largest() {
    let largest = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap();
    let largest: usize = largest.trim().parse().unwrap();
    let (_reader, bare) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let Ok(granted) = fcntl_setpipe_size(&bare, largest) else {
        eprintln!("skipped: this user's share of pages is used up");
        return;
    };
    let (sender, _receiver) = Pipe::pair(&Options::default().capacity(4 * largest)).unwrap();
    let capacity = sender.limits().depth_bytes.unwrap();
    assert!(capacity >= granted, "{capacity} of {granted}");
}

/// Gives how often `accept` failed for want of a descriptor, each time with one more.
fn accept_with_few_descriptors() -> usize {
    let scratch = Scratch::new();
    let path = scratch.path().join("fifo");
    let name = path.to_str().unwrap().parse().unwrap();
    let options = Options::default();
    let mut listener = Pipe::listen(&name, &options).unwrap();
    let mut sender = Pipe::connect(&name, &options, Wait::at_most(PATIENCE)).unwrap();
    sender.send(b"hello").unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64 - 1;
    let limit = getrlimit(Resource::Nofile);
    for more in 0..20 {
        let current = Some(open + more);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let accepted = listener.accept(Wait::at_most(PATIENCE));
        setrlimit(Resource::Nofile, limit).unwrap();
        match accepted {
            Err(OpenError::Limit(limit)) => assert_eq!(limit.name, "RLIMIT_NOFILE"),
            accepted => {
                let mut receiver = accepted.unwrap();
                assert_eq!(receiver.recv_timeout(&mut [0; 8], PATIENCE).unwrap(), 5);
                return more as usize;
            }
        }
    }
    panic!("never accepted")
}

#[test]
fn an_accept_without_descriptors_leaves_the_sender_to_the_next() {
    let process = Process::new(accept_with_few_descriptors, ()).start();
    // The lock of the name, and what a FIFO is made of.
    assert!(process.unwrap().join().unwrap() > 1);
}
