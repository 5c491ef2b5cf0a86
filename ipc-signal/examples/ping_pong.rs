//! Two processes, one file: the parent says ping, the child answers pong.

use ipc_core::{Channel, Receiver as _, Sender as _};
use ipc_process::Process;
use ipc_signal::{Options, Receiver, Sender, SignalQueue};

fn pong(mut pings: Receiver, mut pongs: Sender) {
    let mut buffer = [0; 8];
    while let Ok(len) = pings.recv(&mut buffer) {
        println!("child  got {}", String::from_utf8_lossy(&buffer[..len]));
        pongs.send(b"pong").expect("the parent is listening");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let (mut ping_tx, ping_rx) = SignalQueue::pair(&Options::default())?;
    let (pong_tx, mut pong_rx) = SignalQueue::pair(&Options::default())?;
    let child = Process::new(pong, (ping_rx, pong_tx)).start()?;

    let mut buffer = [0; 8];
    for _ in 0..3 {
        ping_tx.send(b"ping")?;
        let len = pong_rx.recv(&mut buffer)?;
        println!("parent got {}", String::from_utf8_lossy(&buffer[..len]));
    }
    drop(ping_tx);
    child.join()?;
    Ok(())
}
