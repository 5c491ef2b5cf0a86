//! A function of this program runs in processes of its own: results, a panic, a death.

use ipc_process::{JoinError, Process, StartMethod};

fn divide(a: i32, b: i32) -> i32 {
    a / b
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init(); // first thing in main: the new process starts here too
    let quiet = || std::fs::File::open("/dev/null"); // where its panic message goes

    let process = Process::new(divide, (84, 2)).name("half").start()?;
    println!(
        "{}: 84 / 2 = {}",
        process.name().to_owned(),
        process.join()?
    );

    let forked = Process::new(divide, (84, 4)).start_method(StartMethod::Zygote);
    println!("84 / 4 = {}", forked.start()?.join()?);

    let process = Process::new(divide, (84, 0)).stderr(quiet()?).start()?;
    match process.join() {
        Err(JoinError::Panicked(panic)) => println!("84 / 0: {}", panic.message),
        other => println!("84 / 0: {other:?}"),
    }

    let process = Process::new(std::thread::park, ()).start()?;
    process.kill()?;
    println!("and then: {}", process.join().unwrap_err());
    Ok(())
}
