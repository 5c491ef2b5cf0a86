//! On kernels that lack what came later: a filter of system calls (seccomp(2)) stands for them, in
//! a process of its own.
#![expect(unsafe_code, reason = "seccomp and dispositions have no safe form")]

mod common;
mod watchdog;

use common::{BOTH, ends_of_all_kinds, forever, lacks_own_proc, method_of, number_of, zombies};
use ipc_process::pool::{BuildError, TaskError};
use ipc_process::zombie::Reaper;
use ipc_process::{Pool, Process, parent_process};
use watchdog::watch;

ipc_process::test_support!();

/// A call that fails: its number, what its second argument has to be, and how it fails.
struct Refused {
    call: libc::c_long,
    request: Option<u32>,
    errno: i32,
}

/// Has these calls fail from now on in this thread, those it starts, and their children.
fn refuse(calls: &[Refused]) {
    let load = |offset: usize| {
        let code = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        statement(code, 0, u32::try_from(offset).unwrap())
    };
    let skip_unless = |value: u32, skip: u8| {
        let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        statement(code, skip, value)
    };
    let give = |action: u32| statement(libc::BPF_RET | libc::BPF_K, 0, action);
    let mut filter = Vec::new();
    for call in calls {
        let number = u32::try_from(call.call).unwrap();
        let errno = libc::SECCOMP_RET_ERRNO | call.errno.unsigned_abs();
        filter.push(load(std::mem::offset_of!(libc::seccomp_data, nr)));
        match call.request {
            None => filter.push(skip_unless(number, 1)),
            Some(request) => {
                let second = std::mem::offset_of!(libc::seccomp_data, args) + size_of::<u64>();
                let low = if cfg!(target_endian = "big") { 4 } else { 0 };
                filter.push(skip_unless(number, 3));
                filter.push(load(second + low));
                filter.push(skip_unless(request, 1));
            }
        }
        filter.push(give(errno));
    }
    filter.push(give(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len().try_into().unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: sets an attribute of this thread.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is a list of instructions of this length.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn statement(code: u32, skip: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code.try_into().unwrap(),
        jt: 0,
        jf: skip,
        k,
    }
}

/// Before 6.13 the request is unknown to pidfds, and before 6.15 nothing is known of the dead.
fn keep_no_statuses(errno: i32) {
    refuse(&[Refused {
        call: libc::SYS_ioctl,
        request: Some(libc::PIDFD_GET_INFO as u32),
        errno,
    }]);
}

fn ignore_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// In a process of its own, as is each of the programs below.
fn run<A, R>(program: impl ipc_process::Target<A, Output = R>, arguments: A) -> R
where
    A: serde::Serialize + serde::de::DeserializeOwned + 'static,
    R: serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    let process = Process::new(program, arguments).daemon(true).start();
    process.unwrap().join().unwrap()
}

/// `ENOTTY` and `EINVAL` where there is no such request, `ESRCH` where there is none for the dead.
const NO_STATUS: [i32; 3] = [libc::ENOTTY, libc::EINVAL, libc::ESRCH];

#[test]
fn a_status_that_the_kernel_does_not_keep_is_an_error_and_never_made_up() {
    fn program(method: u8, errno: i32, ignore: bool) -> (Vec<Result<i32, String>>, usize) {
        keep_no_statuses(errno);
        if ignore {
            ignore_children();
        }
        (ends_of_all_kinds(method_of(method)), zombies().len())
    }
    let _watchdog = watch();
    for (method, errno) in BOTH.into_iter().flat_map(|m| NO_STATUS.map(|e| (m, e))) {
        let (ends, zombies) = run(program, (number_of(method), errno, false));
        assert_eq!((ends, zombies), (vec![Ok(5), Ok(42), Ok(9)], 0));
        let (ends, zombies) = run(program, (number_of(method), errno, true));
        assert_eq!(zombies, 0);
        let [returned, others @ ..] = &ends[..] else {
            panic!("{ends:?}")
        };
        assert_eq!(returned, &Ok(5), "a result does not depend on the status");
        for other in others {
            let told = other.as_ref().unwrap_err();
            assert!(told.contains("before Linux 6.15"), "{told}");
        }
    }
}

#[test]
fn a_pool_goes_on_without_the_statuses_of_its_workers() {
    fn program() {
        keep_no_statuses(libc::ENOTTY);
        ignore_children();
        let pool = Pool::new(1).unwrap();
        for _ in 0..3 {
            let error = pool.apply(|| -> u8 { std::process::exit(3) }, ());
            let error = error.unwrap_err();
            assert!(
                matches!(error, TaskError::Lost { status: None, .. }),
                "{error:?}"
            );
            assert_eq!(pool.apply(|n: u32| 2 * n, (4,)).unwrap(), 8);
        }
        let exits = || -> () { std::process::exit(3) };
        let error = Pool::builder().initializer(exits, ()).build().unwrap_err();
        assert!(
            matches!(error, BuildError::Died { status: None }),
            "{error:?}"
        );
        pool.close().join();
    }
    let _watchdog = watch();
    run(program, ());
}

#[test]
fn without_pidfd_open_what_needs_it_says_so() {
    fn program() -> bool {
        refuse(&[Refused {
            call: libc::SYS_pidfd_open,
            request: None,
            errno: libc::ENOSYS,
        }]);
        let is_missing = |error: std::io::Error| error.raw_os_error() == Some(libc::ENOSYS);
        let reaper = Reaper::start().unwrap();
        let child = reaper
            .run(Process::new(|| -> () { forever() }, ()))
            .unwrap();
        let cannot = is_missing(reaper.kill_tree().unwrap_err());
        child.kill().unwrap();
        cannot && is_missing(parent_process().unwrap_err())
    }
    if lacks_own_proc() {
        return;
    }
    let _watchdog = watch();
    assert!(run(program, ()));
}

/// Processes of both kinds end in every way, and are told apart, where a call is refused.
fn ends_are_told_without(call: libc::c_long, errno: i32) {
    fn program(method: u8, call: libc::c_long, errno: i32) -> (Vec<Result<i32, String>>, usize) {
        refuse(&[Refused {
            call,
            request: None,
            errno,
        }]);
        (ends_of_all_kinds(method_of(method)), zombies().len())
    }
    let _watchdog = watch();
    for method in BOTH {
        let (ends, zombies) = run(program, (number_of(method), call, errno));
        assert_eq!((ends, zombies), (vec![Ok(5), Ok(42), Ok(9)], 0));
    }
}

#[test]
fn without_pidfd_send_signal_signals_go_by_pid() {
    ends_are_told_without(libc::SYS_pidfd_send_signal, libc::ENOSYS);
}

/// As under the filter of containers, which lets nobody unshare anything.
#[test]
fn a_fork_server_serves_where_its_threads_cannot_be_asked_for() {
    ends_are_told_without(libc::SYS_unshare, libc::EPERM);
}
