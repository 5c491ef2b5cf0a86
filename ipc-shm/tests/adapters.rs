//! The async adapter of `ipc-core` over the ring: tasks sleep on the doorbells.

use ipc_core::tokio::Async;
use ipc_core::{Channel, Handoff, RecvError, SendError};
use ipc_shm::{Options, Receiver, Sender, SharedMemory};

/// Room for a few messages, so that both sides wait.
fn pair() -> (Sender, Receiver) {
    SharedMemory::pair(&Options::new().capacity(4096)).unwrap()
}

#[tokio::test]
async fn tasks_wait_for_messages_and_for_room() {
    let (sender, receiver) = pair();
    let (mut sender, mut receiver) = (Async::new(sender).unwrap(), Async::new(receiver).unwrap());
    let sending = tokio::spawn(async move {
        for number in 0..20_000u32 {
            let mut message = [0; 900];
            message[..4].copy_from_slice(&number.to_le_bytes());
            let len = 4 + number as usize % 897;
            sender.send(&message[..len]).await.unwrap();
        }
    });
    let mut buffer = [0; 900];
    for number in 0..20_000u32 {
        let len = receiver.recv(&mut buffer).await.unwrap();
        assert_eq!(len, 4 + number as usize % 897);
        assert_eq!(buffer[..4], number.to_le_bytes());
    }
    sending.await.unwrap();
    let end = receiver.recv(&mut buffer).await;
    assert!(matches!(end, Err(RecvError::Closed)), "{end:?}");
}

#[tokio::test]
async fn tasks_that_wait_learn_of_a_death() {
    let (sender, receiver) = pair();
    let mut receiver = Async::new(receiver).unwrap();
    let waiting = tokio::spawn(async move { receiver.recv(&mut [0; 8]).await });
    tokio::task::yield_now().await;
    // Parts that are dropped are a process that ended.
    drop(sender.into_parts().unwrap());
    let end = waiting.await.unwrap();
    assert!(matches!(end, Err(RecvError::PeerDied)), "{end:?}");

    let (sender, receiver) = pair();
    let mut sender = Async::new(sender).unwrap();
    let waiting = tokio::spawn(async move {
        loop {
            if let Err(error) = sender.send(&[0; 2000]).await {
                return error;
            }
        }
    });
    tokio::task::yield_now().await;
    drop(receiver.into_parts().unwrap());
    let end = waiting.await.unwrap();
    assert!(matches!(end, SendError::PeerDied), "{end}");
}
