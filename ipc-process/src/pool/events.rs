//! What epoll tells: that a worker has sent something, has room, or has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::TaskError;
use super::core::{Core, FAREWELL};
use super::link::{Frame, Kind, Received};
use super::slot::{InFlight, Slot, Worker};
use super::task::Task;
use crate::RemotePanic;

/// Whom an event is about, as epoll carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) slot: usize,
    pub(super) generation: u32,
    /// The process descriptor and not the socket.
    pub(super) of_process: bool,
}

impl Token {
    /// The eventfd's; no worker has it.
    pub(super) const WAKE: u64 = u64::MAX;

    pub(super) fn to_data(self) -> EventData {
        let slot = (self.slot as u64) << 33;
        EventData::new_u64(slot | u64::from(self.of_process) << 32 | u64::from(self.generation))
    }

    pub(super) fn from_u64(data: u64) -> Self {
        Self {
            slot: usize::try_from(data >> 33).unwrap_or(usize::MAX),
            generation: data as u32,
            of_process: data >> 32 & 1 == 1,
        }
    }
}

impl Core {
    pub(super) fn on_event(&mut self, token: Token, flags: EventFlags) {
        let Some(worker) = self.worker(token.slot) else {
            return;
        };
        if worker.generation != token.generation {
            return;
        }
        if token.of_process {
            worker.ended = true;
            // The caller that talks to it learns it too, and gives it back.
            if worker.link.is_some() {
                self.died(token.slot);
            }
            return;
        }
        if flags.contains(EventFlags::OUT) {
            self.flush(token.slot);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(token.slot);
        }
    }

    /// Sends what is laid ready for a worker.
    pub(super) fn flush(&mut self, slot: usize) {
        if let Some(worker) = self.worker(slot)
            && let Some(link) = &mut worker.link
        {
            // An error is its end, of which its process descriptor tells.
            let all = link.flush().unwrap_or(true);
            self.watch(slot, !all);
        }
    }

    /// Has the manager told of what the worker sends and, if wanted, of room for what we send.
    pub(super) fn watch(&mut self, slot: usize, for_room: bool) {
        let epoll = Arc::clone(&self.epoll);
        let Some(worker) = self.worker(slot) else {
            return;
        };
        let Some(link) = &worker.link else {
            return;
        };
        if worker.watched == Some(for_room) || link.has_ended() {
            return;
        }
        let mut events = EventFlags::IN;
        events.set(EventFlags::OUT, for_room);
        let token = Token {
            slot,
            generation: worker.generation,
            of_process: false,
        };
        let done = match worker.watched {
            None => epoll::add(&*epoll, link, token.to_data(), events),
            Some(_) => epoll::modify(&*epoll, link, token.to_data(), events),
        };
        match done {
            Ok(()) => worker.watched = Some(for_room),
            // No memory, or too many watches of this user: nobody would hear the worker.
            Err(_) => worker.kill(),
        }
    }

    pub(super) fn unwatch(&mut self, slot: usize) {
        let epoll = Arc::clone(&self.epoll);
        if let Some(worker) = self.worker(slot)
            && let Some(link) = &worker.link
            && worker.watched.take().is_some()
        {
            // It is there, or it would not be watched.
            let _ = epoll::delete(&*epoll, link);
        }
    }

    /// Takes what a worker has sent, by one read: the event comes again while there is more.
    pub(super) fn read(&mut self, slot: usize) -> Received {
        let Some(worker) = self.worker(slot) else {
            return Received::Nothing;
        };
        let Some(link) = &mut worker.link else {
            return Received::Nothing;
        };
        let received = match link.receive() {
            Ok(received) => received,
            Err(_) => {
                worker.kill();
                Received::Nothing
            }
        };
        if matches!(received, Received::End { .. }) {
            // Its process descriptor will tell. If it has merely closed its socket it is of no
            // use either.
            worker.expect_end(Instant::now() + FAREWELL, false);
            // It would report the end for ever.
            self.unwatch(slot);
        }
        while let Some(worker) = self.worker(slot)
            && let Some(link) = &mut worker.link
        {
            match link.next() {
                Ok(Some(frame)) => self.on_frame(slot, frame),
                Ok(None) => break,
                Err(_) => {
                    worker.kill();
                    break;
                }
            }
        }
        received
    }

    fn on_frame(&mut self, slot: usize, frame: Frame) {
        self.answers += 1;
        let answers = self.answers;
        let deadline = self.options.deadline.is_some();
        let Some(worker) = self.worker(slot) else {
            return;
        };
        worker.answered = answers;
        if frame.kind == Kind::Ready && !worker.ready {
            worker.ready = true;
            self.restarts.started();
            self.effects.settled = true;
            return;
        }
        let asked = worker.in_flight.front().map(|first| first.id);
        let (took, id) = (frame.word, frame.id);
        match outcome(frame) {
            Some(result) if asked == Some(id) => {
                if deadline {
                    worker.since = Instant::now();
                }
                if let Some(InFlight { task, .. }) = worker.in_flight.pop_front()
                    && let Some(task) = task
                {
                    task.job.took(took);
                    task.resolve(result, &mut self.effects.jobs);
                }
            }
            // No answer to anything: this worker is not in its right mind.
            _ => worker.kill(),
        }
    }

    /// Time has passed: deadlines, and patience with workers that are to end.
    pub(super) fn on_time(&mut self, now: Instant) {
        let (deadline, grace) = (self.options.deadline, self.options.grace);
        let mut overdue = Vec::new();
        for worker in self.workers_mut() {
            if over_at(worker, deadline).is_some_and(|over_at| now >= over_at) {
                let first = worker.in_flight.front_mut();
                overdue.extend(first.and_then(|first| first.task.take()));
                worker.end_softly(now + grace);
            }
            if let Some(ending) = &mut worker.ending
                && now >= ending.kill_at
            {
                // Once; SIGKILL takes effect when the kernel can, whatever we do.
                ending.kill_at = now + FAREWELL;
                worker.kill();
            }
        }
        for task in overdue {
            let limit = deadline.map_or(Duration::MAX, |limit| allowed(limit, &task));
            task.resolve(Err(TaskError::Deadline { limit }), &mut self.effects.jobs);
        }
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let of_slot = |slot: &Slot| match slot {
            Slot::Vacant(at) => Some(*at),
            Slot::Live(worker) => match worker.ending {
                Some(ending) => Some(ending.kill_at),
                None => over_at(worker, self.options.deadline),
            },
            Slot::Starting | Slot::Gone => None,
        };
        self.slots.iter().filter_map(of_slot).min()
    }
}

/// When the running task of a worker has to be over; a caller that talks to it sees to it itself.
fn over_at(worker: &Worker, deadline: Option<Duration>) -> Option<Instant> {
    let first = worker.in_flight.front()?;
    let task = first.task.as_ref().filter(|_| worker.is_working())?;
    worker.since.checked_add(allowed(deadline?, task))
}

/// A task of several items may take several times as long.
pub(super) fn allowed(limit: Duration, task: &Task) -> Duration {
    limit.saturating_mul(u32::try_from(task.count).unwrap_or(u32::MAX))
}

/// What a worker's answer says; `None` if it is no answer.
pub(super) fn outcome(frame: Frame) -> Option<Result<ipc_core::Parts, TaskError>> {
    if !frame.kind.is_answer() {
        return None;
    }
    let parts = match frame.body {
        Ok(parts) => parts,
        Err(reason) => {
            let reason = format!("the result: {reason}");
            return Some(Err(TaskError::Decode { reason }));
        }
    };
    let text = || String::from_utf8_lossy(&parts.data).into_owned();
    Some(match frame.kind {
        Kind::Panicked => {
            let panic =
                postcard::from_bytes(&parts.data).unwrap_or_else(|_| RemotePanic::unknown());
            Err(TaskError::Panicked(Box::new(panic)))
        }
        Kind::BadArguments => Err(TaskError::Decode { reason: text() }),
        Kind::BadResult => Err(TaskError::Encode { reason: text() }),
        _ => Ok(parts),
    })
}
