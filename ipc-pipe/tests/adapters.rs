//! The adapters of `ipc-core` over a real channel: typed, async, duplex.

use ipc_core::tokio::Async;
use ipc_core::{Channel, Receiver as _, Sender as _, TypedReceiver, TypedSender, Wait, duplex};
use ipc_pipe::{Options, Pipe};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Quote {
    symbol: String,
    cents: u64,
}

#[test]
fn values_pass_and_other_bytes_are_an_error() {
    let (mut sender, receiver) = Pipe::pair(&Options::default()).unwrap();
    sender.send(&[0xFF; 3]).unwrap();
    let mut sender = TypedSender::<Quote, _>::new(sender);
    let mut receiver = TypedReceiver::<Quote, _>::new(receiver);
    let quote = Quote {
        symbol: "PIPE".into(),
        cents: 4096,
    };
    sender.send(&quote).unwrap();
    assert!(matches!(
        receiver.recv_with(Wait::Never),
        Err(ipc_core::TypedError::Codec(_))
    ));
    assert_eq!(receiver.recv_with(Wait::Never).unwrap(), quote);
}

#[test]
fn a_request_gets_its_reply() {
    let (mut client, mut server) = duplex::<Pipe>(&Options::default()).unwrap();
    let server = std::thread::spawn(move || {
        let mut request = [0; 16];
        let len = server.receiver.recv(&mut request).unwrap();
        request[..len].reverse();
        server.sender.send(&request[..len]).unwrap();
    });
    let mut reply = [0; 16];
    let len = client
        .request(b"stressed", &mut reply, Wait::Forever)
        .unwrap();
    assert_eq!(&reply[..len], b"desserts");
    server.join().unwrap();
}

#[tokio::test]
async fn tasks_wait_for_messages_and_for_room() {
    let (sender, receiver) = Pipe::pair(&Options::default()).unwrap();
    let (mut sender, mut receiver) = (Async::new(sender).unwrap(), Async::new(receiver).unwrap());
    let sending = tokio::spawn(async move {
        for number in 0..50_000u32 {
            sender.send(&number.to_le_bytes()).await.unwrap();
        }
    });
    let mut buffer = [0; 4];
    for number in 0..50_000u32 {
        assert_eq!(receiver.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(u32::from_le_bytes(buffer), number);
    }
    sending.await.unwrap();
    assert!(matches!(
        receiver.recv(&mut buffer).await,
        Err(ipc_core::RecvError::Closed)
    ));
}
