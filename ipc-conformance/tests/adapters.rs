//! The adapters of `ipc-core` over the reference channels: values, tasks, requests.

use std::time::Duration;

use ipc_conformance::ipc_process::Process;
use ipc_conformance::{InProcess, Reference, ReferenceReceiver, ReferenceSender, allocations_of};
use ipc_core::tokio::Async;
use ipc_core::{
    Channel, End, Limit, Receiver as _, RecvError, RequestError, SendError, Sender as _,
    TypedError, TypedReceiver, TypedSender, Wait, duplex,
};
use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

ipc_conformance::support!();

const MESSAGES: u32 = 20_000;

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
enum Order {
    Buy { symbol: String, cents: u64 },
    Cancel(u32),
}

fn pair<C: Channel>() -> (C::Sender, C::Receiver) {
    C::pair(&C::Options::default()).unwrap()
}

#[test]
fn a_message_that_is_no_value_is_an_error_and_the_next_is_read() {
    let (mut tx, rx) = pair::<InProcess>();
    let good = postcard_of(&Order::Cancel(7));
    tx.send(&[9, 9, 9]).unwrap();
    tx.send(&good[..good.len() - 1]).unwrap();
    tx.send(&[&good[..], b"more"].concat()).unwrap();
    tx.send(&[]).unwrap();
    tx.send(&good).unwrap();
    drop(tx);
    let mut rx = TypedReceiver::<Order, _>::new(rx);
    for _ in ["another variant", "cut short"] {
        assert!(matches!(rx.recv(), Err(TypedError::Codec(_))));
    }
    assert!(matches!(rx.recv(), Err(TypedError::Trailing { len: 4 })));
    assert!(
        matches!(rx.recv(), Err(TypedError::Codec(_))),
        "no bytes at all"
    );
    assert_eq!(rx.recv().unwrap(), Order::Cancel(7));
    assert!(matches!(
        rx.recv(),
        Err(TypedError::Channel(RecvError::Closed))
    ));
}

fn postcard_of(order: &Order) -> Vec<u8> {
    let (tx, mut rx) = pair::<InProcess>();
    TypedSender::new(tx).send(order).unwrap();
    let mut bytes = Vec::new();
    rx.recv_vec(&mut bytes, Wait::Never).unwrap();
    bytes
}

#[test]
fn a_value_longer_than_a_message_is_refused_and_the_sender_goes_on() {
    let (tx, rx) = pair::<InProcess>();
    let max = tx.limits().max_message;
    let mut tx = TypedSender::<Vec<u8>, _>::new(tx);
    let mut rx = TypedReceiver::<Vec<u8>, _>::new(rx);
    let refused = tx.send(&vec![0; max]);
    // The value's length takes three bytes in front of it.
    assert!(
        matches!(refused, Err(TypedError::Channel(SendError::TooLong { len, max: m }))
            if len == max + 3 && m == max),
        "{refused:?}"
    );
    tx.send(&vec![1; max - 3]).unwrap();
    assert_eq!(rx.recv().unwrap(), vec![1; max - 3]);
}

#[test]
fn values_in_the_steady_state_allocate_nothing() {
    let (tx, rx) = pair::<Reference>();
    let mut tx = TypedSender::<(u64, [u8; 16]), _>::new(tx);
    let mut rx = TypedReceiver::<(u64, [u8; 16]), _>::new(rx);
    let mut exchange = |number| {
        tx.send(&(number, [7; 16])).unwrap();
        assert_eq!(rx.recv().unwrap(), (number, [7; 16]));
    };
    exchange(u64::MAX);
    assert_eq!(allocations_of(|| (0..1000).for_each(&mut exchange)), 0);
}

fn answer((rx, tx): (End<ReferenceReceiver>, End<ReferenceSender>)) {
    let (mut rx, mut tx) = (rx.into_inner(), tx.into_inner());
    let mut request = [0; 64];
    while let Ok(len) = rx.recv(&mut request) {
        request[..len].reverse();
        tx.send(&request[..len]).unwrap();
    }
}

/// Stops a process that has this end of a request, and waits until it has stopped.
fn stop(process: &Process<()>) {
    process.signal(libc::SIGSTOP).unwrap();
    let patience = Wait::at_most(Duration::from_secs(20));
    let stat = format!("/proc/{}/stat", process.pid());
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert!(!patience.is_over(), "the server did not stop");
        std::thread::yield_now();
    }
}

#[test]
fn a_request_to_another_process_has_its_reply_and_a_dead_one_has_none() {
    let (mut client, server) = duplex::<Reference>(&Default::default()).unwrap();
    let ends = (End::new(server.receiver), End::new(server.sender));
    let server = Process::new(answer, (ends,)).daemon(true).start().unwrap();
    let mut reply = [0; 64];
    for _ in 0..100 {
        let len = client
            .request_timeout(b"stressed", &mut reply, Duration::from_secs(20))
            .unwrap();
        assert_eq!(&reply[..len], b"desserts");
    }
    stop(&server);
    let stopped = client.request_timeout(b"?", &mut reply, Duration::from_millis(50));
    assert!(
        matches!(stopped, Err(RequestError::Recv(RecvError::TimedOut))),
        "{stopped:?}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
    let dead = client.request(b"?", &mut reply, Wait::Forever);
    assert!(
        matches!(dead, Err(RequestError::Send(SendError::PeerDied))),
        "{dead:?}"
    );
}

fn send_all((tx,): (End<ReferenceSender>,)) {
    let mut tx = tx.into_inner();
    for number in 0..MESSAGES {
        tx.send(&number.to_le_bytes()).unwrap();
    }
}

/// The next number, however often the call is cancelled before it comes.
async fn next(rx: &mut Async<ReferenceReceiver>) -> (Result<u32, RecvError>, u32) {
    let mut cancelled = 0;
    let mut buffer = [0; 4];
    loop {
        tokio::select! {
            biased;
            got = rx.recv(&mut buffer) => {
                return (got.map(|_| u32::from_le_bytes(buffer)), cancelled);
            }
            () = yield_now() => cancelled += 1,
        }
    }
}

#[tokio::test]
async fn a_cancelled_receive_takes_no_message() {
    let (tx, rx) = pair::<Reference>();
    let sender = Process::new(send_all, ((End::new(tx),),))
        .daemon(true)
        .start()
        .unwrap();
    let mut rx = Async::new(rx).unwrap();
    let mut cancellations = 0;
    for number in 0..MESSAGES {
        let (got, cancelled) = next(&mut rx).await;
        assert_eq!(got.unwrap(), number);
        cancellations += cancelled;
    }
    assert!(matches!(next(&mut rx).await.0, Err(RecvError::Closed)));
    assert!(cancellations > 0, "nothing was cancelled");
    sender.join().unwrap();
}

fn receive_all((rx,): (End<ReferenceReceiver>,)) {
    let mut rx = rx.into_inner();
    let mut buffer = [0; 4];
    for number in 0..MESSAGES {
        assert_eq!(rx.recv(&mut buffer).unwrap(), 4);
        assert_eq!(u32::from_le_bytes(buffer), number);
    }
    assert!(matches!(rx.recv(&mut buffer), Err(RecvError::Closed)));
}

#[tokio::test]
async fn a_cancelled_send_sends_nothing() {
    let (mut tx, rx) = pair::<Reference>();
    let mut filled = 0u32;
    while tx.try_send(&filled.to_le_bytes()).is_ok() {
        filled += 1;
    }
    let mut tx = Async::new(tx).unwrap();
    // Full: these are cancelled for certain.
    let first = filled.to_le_bytes();
    for _ in 0..3 {
        tokio::select! {
            biased;
            sent = tx.send(&first) => panic!("{sent:?} into a full channel"),
            () = yield_now() => {}
        }
    }
    let receiver = Process::new(receive_all, ((End::new(rx),),))
        .daemon(true)
        .start()
        .unwrap();
    for number in filled..MESSAGES {
        let message = number.to_le_bytes();
        loop {
            tokio::select! {
                biased;
                sent = tx.send(&message) => break sent.unwrap(),
                () = yield_now() => {}
            }
        }
    }
    drop(tx);
    receiver.join().unwrap();
}

#[tokio::test]
async fn tasks_on_one_thread_wake_each_other() {
    let (ask, request) = pair::<Reference>();
    let (reply, hear) = pair::<Reference>();
    let [mut ask, mut reply] = [ask, reply].map(|end| Async::new(end).unwrap());
    let [mut request, mut hear] = [request, hear].map(|end| Async::new(end).unwrap());
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 4];
        while request.recv(&mut buffer).await.is_ok() {
            reply.send(&buffer).await.unwrap();
        }
    });
    let mut buffer = [0; 4];
    for number in 0..MESSAGES {
        ask.send(&number.to_le_bytes()).await.unwrap();
        hear.recv(&mut buffer).await.unwrap();
        assert_eq!(u32::from_le_bytes(buffer), number);
    }
    drop(ask);
    answering.await.unwrap();
    assert!(matches!(
        hear.recv(&mut buffer).await,
        Err(RecvError::Closed)
    ));
}

#[tokio::test]
async fn an_end_that_is_always_ready_lets_other_tasks_run() {
    const READY: u32 = 250;
    let (mut tx, rx) = pair::<Reference>();
    for number in 0..READY {
        tx.try_send(&number.to_le_bytes()).unwrap();
    }
    let mut rx = Async::new(rx).unwrap();
    let other = tokio::spawn(async {});
    let mut received = 0;
    while !other.is_finished() {
        assert!(received < READY, "nobody else ran");
        rx.recv(&mut [0; 4]).await.unwrap();
        received += 1;
    }
}

fn hold((_tx, rx): (End<ReferenceSender>, End<ReferenceReceiver>)) {
    // Until killed: its own sender is in the process that kills it.
    let _ = rx.into_inner().recv(&mut [0; 1]);
}

#[tokio::test]
async fn a_task_learns_of_a_death() {
    let (tx, rx) = pair::<Reference>();
    let (_lock, forever) = pair::<Reference>();
    let holder = Process::new(hold, ((End::new(tx), End::new(forever)),))
        .daemon(true)
        .start()
        .unwrap();
    let mut rx = Async::new(rx).unwrap();
    let waiting = tokio::spawn(async move { rx.recv(&mut [0; 4]).await });
    yield_now().await;
    holder.kill().unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(RecvError::PeerDied)));
}

/// An end of whose room no event tells above eight bytes.
#[derive(Debug)]
struct Short(ReferenceSender);

impl std::os::fd::AsFd for Short {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl ipc_core::Pollable for Short {
    fn interest(&self) -> ipc_core::wait::Interest {
        self.0.interest()
    }

    fn longest_ready(&self) -> usize {
        8
    }
}

impl ipc_core::Sender for Short {
    fn send_with(&mut self, message: &[u8], wait: Wait) -> Result<(), SendError> {
        self.0.send_with(message, wait)
    }

    fn limits(&self) -> ipc_core::Limits {
        self.0.limits()
    }
}

#[tokio::test]
async fn a_message_of_whose_room_no_event_tells_is_refused() {
    let (tx, mut rx) = pair::<Reference>();
    let mut tx = Async::new(Short(tx)).unwrap();
    let refused = tx.send(&[0; 9]).await;
    assert!(
        matches!(refused, Err(SendError::Limit(Limit { value: Some(8), .. }))),
        "{refused:?}"
    );
    tx.send(&[0; 8]).await.unwrap();
    assert_eq!(rx.try_recv(&mut [0; 9]).unwrap(), 8);
}
