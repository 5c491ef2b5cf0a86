//! The one thread of a pool that sleeps until something happens to its workers. Callers hand
//! tasks to idle workers themselves; the manager takes the answers, hands out what waits, keeps
//! deadlines, and has workers that ended replaced.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::TaskError;
use super::core::Rest;
use super::events::Token;
use super::link::Link;
use super::shared::Shared;
use crate::StartError;
use crate::spawn::sys::{Event, epoll_wait};

/// How long answers gather while every worker has many tasks ahead. Nobody waits for one of them
/// meanwhile, and no worker has to wake anybody when it answers, which would cost it more than
/// the answer.
const NAP: Duration = Duration::from_micros(20);

pub(super) fn start(shared: &Arc<Shared>) -> io::Result<thread::JoinHandle<()>> {
    let own = Arc::clone(shared);
    let thread = thread::Builder::new()
        .name(format!("{}-manager", shared.options.name))
        .spawn(move || {
            crate::spawn::signals::block_all();
            manage(&own);
        })?;
    shared.set_manager(thread.thread().id());
    Ok(thread)
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
    let mut events: Vec<Event> = Vec::new();
    loop {
        let now = Instant::now();
        let (rest, due) = shared.with(|core| {
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
            let due = core.due(now);
            (core.rest(), due)
        });
        for slot in due {
            launch(shared, slot);
        }
        match rest {
            Rest::Quit => return,
            Rest::Nap => rest_for(NAP),
            Rest::Until(_) => {}
        }
        let timeout = match rest {
            Rest::Until(Some(time)) => Some(time.saturating_duration_since(now)),
            _ => None,
        };
        match epoll_wait(shared.epoll.as_fd(), &mut events, timeout) {
            Ok(()) | Err(Errno::INTR) => {}
            // No memory for the moment: look again.
            Err(_) => rest_for(NAP),
        }
    }
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
