//! The format of a log is what the README says: a reader in another language finds the same.

use std::fmt::Write;
use std::io::IoSlice;
use std::path::Path;
use std::process::Command;

use ipc_conformance::Scratch;
use ipc_file::{Durability, Log, Options};

ipc_process::test_support!();

fn hexadecimal(message: &[u8]) -> String {
    message.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_reader_in_python_reads_the_same() {
    if !Command::new("python3")
        .arg("--version")
        .output()
        .is_ok_and(|run| run.status.success())
    {
        println!("skipped: there is no python3 here");
        return;
    }
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    let scratch = Scratch::new();
    let mut expected = String::new();
    let mut next = 0;
    let levels = [
        Durability::Process,
        Durability::PowerLoss,
        Durability::Nothing,
    ];
    for (round, level) in levels.into_iter().enumerate() {
        let options = Options::default().capacity(2048).durability(level);
        let mut log = Log::open(scratch.path(), &options).expect("a log");
        for len in (0..60).map(|len| len * 5) {
            let message = vec![(round * 100 + len) as u8; len];
            if len % 2 == 0 {
                assert_eq!(log.append(&message).expect("room"), next);
            } else {
                let one = log.append_batch(&[IoSlice::new(&message)]);
                assert_eq!(one.expect("room"), 1);
            }
            let _ = writeln!(expected, "{next} {}", hexadecimal(&message));
            next += 1;
        }
        if round == 1 {
            log.sync().expect("a disk");
        }
    }
    expected.push_str("end closed\n");
    let run = Command::new("python3")
        .arg(reader)
        .arg(scratch.path())
        .output()
        .expect("python3");
    let (output, errors) = (
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    );
    assert!(run.status.success(), "{errors}");
    assert!(output == expected, "{output}");
}
