//! Group commit: threads hand their records to one that owns the log. While the disk is busy with
//! one batch the next one gathers, so the more there is to do, the fewer syncs each record costs.

use std::io::IoSlice;
use std::sync::mpsc::{self, SyncSender};

use ipc_file::{Durability, Log, Options};

/// A record, and whom to tell that it survives power loss.
type Request = (Vec<u8>, SyncSender<()>);

fn commit(mut log: Log, requests: mpsc::Receiver<Request>) -> (usize, usize) {
    let (mut records, mut syncs) = (0, 0);
    while let Ok(first) = requests.recv() {
        let batch: Vec<Request> = std::iter::once(first).chain(requests.try_iter()).collect();
        let slices: Vec<_> = batch
            .iter()
            .map(|(record, _)| IoSlice::new(record))
            .collect();
        let mut done = 0;
        while done < slices.len() {
            done += log.append_batch(&slices[done..]).expect("a disk with room");
            syncs += 1;
        }
        for (_, done) in &batch {
            let _ = done.send(());
        }
        records += batch.len();
    }
    (records, syncs)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("group-commit-{}", std::process::id()));
    let log = Log::open(
        &directory,
        &Options::default().durability(Durability::PowerLoss),
    )?;
    let (requests, gathered) = mpsc::sync_channel(1024);
    let committer = std::thread::spawn(move || commit(log, gathered));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let requests = requests.clone();
            scope.spawn(move || {
                for number in 0..100 {
                    let (done, durable) = mpsc::sync_channel(1);
                    let record = format!("record {number} of thread {thread}");
                    requests
                        .send((record.into_bytes(), done))
                        .expect("a committer");
                    durable.recv().expect("a disk");
                }
            });
        }
    });
    drop(requests);
    let (records, syncs) = committer.join().expect("a disk");
    println!("{records} durable records, {syncs} syncs");
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
