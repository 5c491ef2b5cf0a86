//! The one thread of a pool that sleeps until something happens to its workers. Callers hand
//! tasks to idle workers themselves; the manager takes the answers, hands out what waits, keeps
//! deadlines, and has workers that ended replaced.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, Event};
use rustix::event::{Timespec, poll};
use rustix::io::Errno;

use super::core::Rest;
use super::events::Token;
use super::link::Link;
use super::shared::Shared;
use crate::StartError;

/// How long answers gather while every worker has many tasks ahead. Nobody waits for one of them
/// meanwhile, and no worker has to wake anybody when it answers, which would cost it more than
/// the answer.
const NAP: Duration = Duration::from_micros(20);

const EVENTS: usize = 64;

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

fn manage(shared: &Arc<Shared>) {
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        let now = Instant::now();
        let (rest, due) = shared.with(|core| {
            for event in events.drain(..) {
                match event.data.u64() {
                    Token::WAKE => {
                        // The count is of no interest.
                        let _ = rustix::io::read(&shared.wake, &mut [0_u8; 8]);
                    }
                    token => core.on_event(Token::from_u64(token), event.flags),
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
            Rest::Until(Some(time)) => Some(timespec(time.saturating_duration_since(now))),
            _ => None,
        };
        match epoll::wait(
            &*shared.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
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

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

fn rest_for(time: Duration) {
    let _ = poll(&mut [], Some(&timespec(time)));
}
