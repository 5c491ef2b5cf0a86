//! The exchanges whose calls are counted, over the ends of any channel. Each gives the calls of the
//! side that is named; what it sends and receives in the meantime must succeed.

use std::io::IoSlice;

use ipc_core::{End, Handoff, Receiver, Sender};
use ipc_process::Process;
use serde::{Deserialize, Serialize};

use super::{Probe, count};

/// How much is exchanged.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Messages that are counted.
    pub messages: u64,
    /// Bytes of each.
    pub size: usize,
    /// Messages before those: what a mechanism does once only is not counted then.
    pub before: u64,
}

impl Load {
    fn message(self) -> Vec<u8> {
        vec![7; self.size]
    }

    /// Runs `exchange` of one message over and over, and counts.
    fn run(self, probe: Probe, mut exchange: impl FnMut()) {
        (0..self.before).for_each(|_| exchange());
        let counted = probe.start();
        (0..self.messages).for_each(|_| exchange());
        counted.stop();
    }
}

/// The sender's calls while nobody receives; all of the messages must fit.
pub fn sends<S, R>((sender, receiver): (S, R), load: Load) -> u64
where
    S: Sender + Handoff + 'static,
{
    let calls = count(send_each::<S>, (load, End::new(sender)));
    drop(receiver);
    calls
}

fn send_each<S: Sender + Handoff>(probe: Probe, (load, sender): (Load, End<S>)) {
    let (mut sender, message) = (sender.into_inner(), load.message());
    load.run(probe, || sender.send(&message).unwrap());
}

/// The sender's calls while another process receives.
///
/// # Panics
/// When not all messages arrive.
pub fn streams<S, R>((sender, receiver): (S, R), load: Load) -> u64
where
    S: Sender + Handoff + 'static,
    R: Receiver + Handoff + 'static,
{
    let process = Process::new(drain::<R>, (load, End::new(receiver)))
        .start()
        .expect("the receiving process");
    let calls = count(send_each::<S>, (load, End::new(sender)));
    let received = process.join().expect("the receiving process");
    assert_eq!(received, load.before + load.messages);
    calls
}

fn drain<R: Receiver + Handoff>(load: Load, receiver: End<R>) -> u64 {
    let (mut receiver, mut buffer) = (receiver.into_inner(), load.message());
    (0..)
        .find(|_| receiver.recv(&mut buffer).is_err())
        .unwrap_or(0)
}

/// The sender's calls for a batch of all messages at once, which must fit.
pub fn sends_batch<S, R>((sender, receiver): (S, R), load: Load) -> u64
where
    S: Sender + Handoff + 'static,
{
    let calls = count(send_batch::<S>, (load, End::new(sender)));
    drop(receiver);
    calls
}

fn send_batch<S: Sender + Handoff>(probe: Probe, (load, sender): (Load, End<S>)) {
    let (mut sender, message) = (sender.into_inner(), load.message());
    let batch: Vec<_> = (0..load.messages).map(|_| IoSlice::new(&message)).collect();
    let counted = probe.start();
    let sent = sender.send_batch(&batch).unwrap();
    counted.stop();
    assert_eq!(sent, batch.len());
}

/// The receiver's calls for messages that are all there.
///
/// # Panics
/// When they do not fit.
pub fn receives<S, R>((mut sender, receiver): (S, R), load: Load) -> u64
where
    S: Sender,
    R: Receiver + Handoff + 'static,
{
    for _ in 0..load.before + load.messages {
        sender.send(&load.message()).expect("room");
    }
    count(receive_each::<R>, (load, End::new(receiver)))
}

fn receive_each<R: Receiver + Handoff>(probe: Probe, (load, receiver): (Load, End<R>)) {
    let (mut receiver, mut buffer) = (receiver.into_inner(), load.message());
    load.run(probe, || receive(&mut receiver, &mut buffer));
}

fn receive(receiver: &mut impl Receiver, buffer: &mut [u8]) {
    let len = receiver.recv(buffer).unwrap();
    assert_eq!(len, buffer.len());
}

/// The calls of both sides in one thread, which receives each message after it was sent.
pub fn to_itself<S, R>(ends: (S, R), load: Load) -> u64
where
    S: Sender + Handoff + 'static,
    R: Receiver + Handoff + 'static,
{
    count_exchange(ends, load, 1)
}

/// The calls of both sides in one thread, where two messages are there whenever the receiver comes, as
/// in a stream. The messages of `load` are those of one side: it makes half as many pairs.
pub fn in_pairs<S, R>(ends: (S, R), load: Load) -> u64
where
    S: Sender + Handoff + 'static,
    R: Receiver + Handoff + 'static,
{
    let messages = load.messages / 2;
    count_exchange(ends, Load { messages, ..load }, 2)
}

fn count_exchange<S, R>((sender, receiver): (S, R), load: Load, at_once: u64) -> u64
where
    S: Sender + Handoff + 'static,
    R: Receiver + Handoff + 'static,
{
    let ends = (End::new(sender), End::new(receiver));
    count(send_and_receive::<S, R>, (load, at_once, ends))
}

/// Sends so many at once and receives as many, over and over.
fn send_and_receive<S: Sender + Handoff, R: Receiver + Handoff>(
    probe: Probe,
    (load, at_once, (sender, receiver)): (Load, u64, (End<S>, End<R>)),
) {
    let (mut sender, message) = (sender.into_inner(), load.message());
    let (mut receiver, mut buffer) = (receiver.into_inner(), load.message());
    load.run(probe, || {
        (0..at_once).for_each(|_| sender.send(&message).unwrap());
        (0..at_once).for_each(|_| receive(&mut receiver, &mut buffer));
    });
}

/// The calls of the side that asks, while another process answers each message by the same.
///
/// # Panics
/// When the process cannot be started or ends otherwise than by the end of the questions.
pub fn round_trips<S, R>(questions: (S, R), answers: (S, R), load: Load) -> u64
where
    S: Sender + Handoff + 'static,
    R: Receiver + Handoff + 'static,
{
    let (ask, asked) = questions;
    let (answer, answered) = answers;
    let process = Process::new(echo::<S, R>, (load, End::new(asked), End::new(answer)))
        .start()
        .expect("the answering process");
    let calls = count_exchange((ask, answered), load, 1);
    process.join().expect("the answering process");
    calls
}

fn echo<S: Sender + Handoff, R: Receiver + Handoff>(load: Load, asked: End<R>, answer: End<S>) {
    let (mut asked, mut answer) = (asked.into_inner(), answer.into_inner());
    let mut buffer = load.message();
    while let Ok(len) = asked.recv(&mut buffer) {
        answer.send(&buffer[..len]).unwrap();
    }
}
