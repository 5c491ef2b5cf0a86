//! The one thread of a pool that sleeps until something happens to its workers. Callers hand
//! tasks to idle workers themselves; the manager takes the answers, hands out what waits, keeps
//! deadlines, and has workers that ended replaced.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd as _;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ipc_core::Wait;
use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::TaskError;
use super::core::{Core, Rest};
use super::events::Token;
use super::link::Link;
use super::shared::Shared;
use crate::StartError;
use crate::spawn::sys::{Event, epoll_wait};

/// How long answers gather while every worker has many tasks ahead. Nobody waits for one of them
/// meanwhile, and no worker has to wake anybody when it answers, which would cost it more than
/// the answer.
const NAP: Duration = Duration::from_micros(20);

thread_local! {
    /// The pool that this thread is the manager of.
    static MANAGED: Cell<*const Shared> = const { Cell::new(ptr::null()) };
}

/// Whether this thread is that pool's manager.
pub(super) fn is_this_thread(shared: &Shared) -> bool {
    ptr::eq(MANAGED.get(), shared)
}

pub(super) fn start(shared: &Arc<Shared>) -> io::Result<thread::JoinHandle<()>> {
    let own = Arc::clone(shared);
    thread::Builder::new()
        .name(format!("{}-manager", shared.options.name))
        .spawn(move || {
            crate::spawn::signals::block_all();
            MANAGED.set(Arc::as_ptr(&own));
            manage(&own);
        })
}

/// Without a manager nobody would answer for the tasks: should it panic, which would be an error
/// here, they end with it.
struct EndsWithPool<'a>(&'a Shared);

impl Drop for EndsWithPool<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = "its manager panicked; that is an error of ipc-process".to_owned();
            self.0.with(|core| core.end(&TaskError::Broken { reason }));
        }
    }
}

fn manage(shared: &Arc<Shared>) {
    let _guard = EndsWithPool(shared);
    let mut events = Vec::new();
    while turn(shared, &mut events, Wait::Forever) {}
}

/// Goes on with the manager's work on its own thread until this holds, or the wait is over; whether
/// it holds. For wakers, code of others that the manager calls and that may wait for the pool.
pub(super) fn work_until(
    shared: &Arc<Shared>,
    wait: Wait,
    mut holds: impl FnMut() -> bool,
) -> bool {
    let mut events = Vec::new();
    while !holds() {
        if wait.is_over() || !turn(shared, &mut events, wait) {
            return holds();
        }
    }
    true
}

/// Sleeps until something happens, at most as long as the wait, and deals with it; false once there
/// is nothing left to be done. `events` comes and goes empty.
fn turn(shared: &Arc<Shared>, events: &mut Vec<Event>, wait: Wait) -> bool {
    let rest = shared.with(Core::rest);
    let until = match rest {
        Rest::Quit => return false,
        Rest::Nap => {
            rest_for(NAP);
            None
        }
        Rest::Until(time) => time,
    };
    let left = until.map(|time| time.saturating_duration_since(Instant::now()));
    let timeout = left.into_iter().chain(wait.remaining()).min();
    match epoll_wait(shared.epoll.as_fd(), events, timeout) {
        Ok(()) | Err(Errno::INTR) => {}
        // No memory for the moment: look again.
        Err(_) => rest_for(NAP),
    }
    let now = Instant::now();
    let (due, effects) = shared.change(|core| {
        for (about, flags) in events.drain(..) {
            match about {
                Token::WAKE => {
                    // The count is of no interest.
                    let _ = rustix::io::read(&shared.wake, &mut [0_u8; 8]);
                }
                token => {
                    let flags = EventFlags::from_bits_retain(flags);
                    core.on_event(Token::from_u64(token), flags);
                }
            }
        }
        core.on_time(now);
        core.dispatch();
        core.due(now)
    });
    // First: a waker among the effects may wait for what a new worker is to do.
    for slot in due {
        launch(shared, slot);
    }
    shared.carry_out(effects);
    true
}

/// Starts a worker from a thread of its own: it takes milliseconds, or longer on a busy machine,
/// during which the other workers want to be served.
fn launch(shared: &Arc<Shared>, slot: usize) {
    let own = Arc::clone(shared);
    let started = move || {
        let started = Link::pair()
            .map_err(|error| StartError::io("socketpair", error))
            .and_then(|(link, end)| (own.launch)(&own.options, end).map(|process| (process, link)));
        own.with(|core| core.started(slot, started));
    };
    let thread = thread::Builder::new()
        .name(format!("{}-start", shared.options.name))
        .spawn(started);
    if let Err(error) = thread {
        let error = StartError::io("pthread_create", error);
        shared.with(|core| core.started(slot, Err(error)));
    }
}

fn rest_for(time: Duration) {
    let time = Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    };
    let _ = poll(&mut [], Some(&time));
}
