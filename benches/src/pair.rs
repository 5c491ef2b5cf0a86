use std::env;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipc_core::Wait;
use ipc_core::wait::{Interest, Polled, poll};

use crate::control::{self, Bundle, Control, Reply};
use crate::failure::{Failure, Outcome};
use crate::implementation::Implementation;
use crate::peer::ROLE;
use crate::spec::{Side, Spec, Workload};
use crate::workload::{Run, SideReport};

/// The processes of one row, alive and waiting for runs.
pub(crate) struct Pair {
    sides: Vec<Process>,
    workload: Workload,
}

struct Process {
    side: Side,
    child: Child,
    control: Control,
}

/// A run as the whole pair saw it.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) messages: u64,
    pub(crate) elapsed: Duration,
    /// Of both processes.
    pub(crate) cpu_ns: u64,
    pub(crate) histogram: Vec<(u64, u64)>,
}

/// How long a pair may take to come into being, and to answer under `ptrace`.
const START: Duration = Duration::from_secs(3);

/// How long a side may take to end when it is asked to.
const END: Duration = Duration::from_millis(500);

impl Pair {
    /// Starts the processes of a row and connects them.
    pub(crate) fn start(implementation: &Implementation, spec: &Spec) -> Outcome<Self> {
        let sides: &[Side] = if implementation.is_alone() {
            &[Side::Solo]
        } else {
            // The responder first: it is what the initiator's first message meets.
            &[Side::Responder, Side::Initiator]
        };
        for &side in sides {
            spec.placement.processor(side)?;
        }
        let sides = sides
            .iter()
            .map(|&side| Process::start(side, implementation.foreign_command(spec)))
            .collect::<Outcome<Vec<_>>>()?;
        let pair = Self {
            sides,
            workload: spec.workload,
        };
        pair.open(implementation, spec)?;
        Ok(pair)
    }

    fn open(&self, implementation: &Implementation, spec: &Spec) -> Outcome<()> {
        let id = |side| {
            self.sides
                .iter()
                .find(|p| p.side == side)
                .map_or(0, |p| p.child.id())
        };
        let peers = [id(Side::Initiator), id(Side::Responder)];
        let [initiator, responder] = implementation.open(spec, peers)?;
        let mut bundles = [Some(initiator), Some(responder)];
        for process in &self.sides {
            let which = usize::from(process.side == Side::Responder);
            let Bundle { descriptors, data } = bundles[which].take().unwrap_or_default();
            let side = process.side;
            let processor = spec.placement.processor(side)?;
            let command = control::Command::Open {
                spec: spec.clone(),
                side,
                processor,
                data,
            };
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            process.control.send(&command, &borrowed)?;
        }
        for reply in self.replies(START)? {
            match reply {
                Reply::Ready => {}
                _ => return Err(Failure::Failed("an answer out of turn".into())),
            }
        }
        Ok(())
    }

    /// Moves messages and waits until they have arrived.
    pub(crate) fn run(&mut self, run: Run, limit: Duration) -> Outcome<Slice> {
        self.ask(run)?;
        let mut reports = Vec::new();
        for reply in self.replies(limit)? {
            match reply {
                Reply::Done(report) => reports.push(report),
                _ => return Err(Failure::Failed("an answer out of turn".into())),
            }
        }
        self.slice(run, &reports)
    }

    /// The stream ends with the responder, everything else with the initiator; all processes share
    /// one monotonic clock.
    fn slice(&self, run: Run, reports: &[SideReport]) -> Outcome<Slice> {
        let of = |side| {
            let at = self
                .sides
                .iter()
                .position(|process| process.side == side)
                .unwrap_or(0);
            &reports[at]
        };
        let (initiator, responder) = (of(Side::Initiator), of(Side::Responder));
        let end_ns = match self.workload {
            Workload::Throughput => responder.end_ns,
            _ => initiator.end_ns,
        };
        let elapsed = end_ns
            .checked_sub(initiator.start_ns)
            .ok_or_else(|| Failure::Failed("the message came before it was sent".into()))?;
        Ok(Slice {
            messages: run.messages,
            elapsed: Duration::from_nanos(elapsed),
            cpu_ns: reports.iter().map(|report| report.cpu_ns).sum(),
            histogram: initiator.histogram.clone(),
        })
    }

    /// One reply of each side, in the order of the sides; the first failure ends the waiting,
    /// since the other side may then wait for ever.
    fn replies(&self, limit: Duration) -> Outcome<Vec<Reply>> {
        let deadline = Wait::Until(Instant::now() + limit);
        let mut replies: Vec<Option<Reply>> = self.sides.iter().map(|_| None).collect();
        loop {
            let waiting: Vec<usize> = (0..replies.len())
                .filter(|&side| replies[side].is_none())
                .collect();
            match waiting[..] {
                [] => return Ok(replies.into_iter().flatten().collect()),
                [side] => self.await_any([side], limit, deadline)?,
                [a, b, ..] => self.await_any([a, b], limit, deadline)?,
            }
            for side in waiting {
                if self.is_readable(side)? {
                    replies[side] = Some(self.reply(side)?);
                }
            }
        }
    }

    fn await_any<const N: usize>(
        &self,
        sides: [usize; N],
        limit: Duration,
        wait: Wait,
    ) -> Outcome<()> {
        let watched = sides.map(|side| (self.sides[side].control.as_fd(), Interest::Read));
        if poll(watched, wait)? == Polled::Ready {
            return Ok(());
        }
        let silent: Vec<_> = sides
            .iter()
            .map(|&side| self.sides[side].side.to_string())
            .collect();
        let silent = silent.join(" and ");
        Err(Failure::Failed(format!(
            "{silent}: no answer within {} s",
            limit.as_secs_f32()
        )))
    }

    fn is_readable(&self, side: usize) -> Outcome<bool> {
        let watched = [(self.sides[side].control.as_fd(), Interest::Read)];
        Ok(poll(watched, Wait::Until(Instant::now()))? == Polled::Ready)
    }

    fn reply(&self, side: usize) -> Outcome<Reply> {
        let side = &self.sides[side];
        match side.control.recv() {
            Ok((Reply::Unsupported { reason }, _)) => Err(Failure::Unsupported(reason)),
            Ok((Reply::Failed { reason }, _)) => {
                Err(Failure::Failed(format!("{}: {reason}", side.side)))
            }
            Ok((reply, _)) => Ok(reply),
            Err(error) => Err(Failure::Failed(format!("{} died: {error}", side.side))),
        }
    }

    /// Process ids, for the count of system calls.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.sides
            .iter()
            .map(|process| process.child.id())
            .collect()
    }

    /// Asks for a run without waiting for it.
    pub(crate) fn ask(&self, run: Run) -> Outcome<()> {
        for process in &self.sides {
            process.control.send(&control::Command::Run(run), &[])?;
        }
        Ok(())
    }

    /// Whether this process has answered what was asked.
    pub(crate) fn has_answered(&self, process: u32) -> Outcome<bool> {
        match self
            .sides
            .iter()
            .position(|side| side.child.id() == process)
        {
            Some(side) => self.is_readable(side),
            None => Ok(false),
        }
    }

    /// Ends the processes without asking them: stopped by a tracer, they would not hear it.
    pub(crate) fn kill(mut self) {
        for process in &mut self.sides {
            let _ = process.child.kill();
        }
    }

    /// The answers to what was asked.
    pub(crate) fn take_answers(&self) -> Outcome<Vec<Reply>> {
        self.replies(START)
    }
}

impl Process {
    fn start(side: Side, foreign: Option<Command>) -> Outcome<Self> {
        let (control, theirs) = Control::pair()?;
        let mut command = match foreign {
            Some(command) => command,
            None => Command::new(env::current_exe()?),
        };
        let child = command
            .env(ROLE, side.to_string())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self {
            side,
            child,
            control,
        })
    }
}

impl Drop for Process {
    /// It is asked to end, since some rivals leave names behind if they are killed; what does not
    /// hear that is killed.
    fn drop(&mut self) {
        if self.control.hang_up().is_ok() {
            let ended = [(self.control.as_fd(), Interest::Read)];
            let _ = poll(ended, Wait::at_most(END));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
