//! Two processes, one file: the parent says ping, the child answers pong.

use ipc_core::{Channel, Receiver as _, Sender as _};
use ipc_process::Process;
use ipc_shm::{Options, Receiver, Sender, SharedMemory};

fn child(mut pings: Receiver, mut pongs: Sender) {
    let mut buffer = [0; 64];
    while let Ok(len) = pings.recv(&mut buffer) {
        let ping = String::from_utf8_lossy(&buffer[..len]).into_owned();
        pongs
            .send(ping.replace("ping", "pong").as_bytes())
            .expect("the parent listens");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let (mut pings, ping_receiver) = SharedMemory::pair(&Options::default())?;
    let (pong_sender, mut pongs) = SharedMemory::pair(&Options::default())?;
    let child = Process::new(child, (ping_receiver, pong_sender)).start()?;

    let mut buffer = [0; 64];
    for round in 1..=3 {
        let ping = format!("ping {round}");
        pings.send(ping.as_bytes())?;
        let len = pongs.recv(&mut buffer)?;
        println!(
            "sent {ping:?}, received {:?}",
            String::from_utf8_lossy(&buffer[..len])
        );
    }
    drop(pings);
    child.join()?;
    Ok(())
}
