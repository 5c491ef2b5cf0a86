//! Four workers count primes, in each of the ways in which a pool takes work.

use ipc_process::Pool;
use ipc_process::pool::TaskError;

fn primes_between(from: u32, to: u32) -> usize {
    let is_prime = |n: u32| {
        let divides = |d: u32| n.is_multiple_of(d);
        n > 1 && !(2..).take_while(|d| d * d <= n).any(divides)
    };
    (from..to).filter(|&n| is_prime(n)).count()
}

fn square(n: u64) -> u64 {
    n * n
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ipc_process::init();
    let pool = Pool::builder().processes(4).build()?;

    println!("apply:   {}", pool.apply(primes_between, (0, 1000))?);
    println!("map:     {:?}", pool.map(square, 0..10)?);
    let quarters = (0..4).map(|n| (n * 250_000, (n + 1) * 250_000));
    println!("starmap: {:?}", pool.starmap(primes_between, quarters)?);
    for (n, result) in (0..3).zip(pool.imap(square, 1_000_000..1_000_003)) {
        println!("imap:    result {n} is {}", result?);
    }

    let slow = pool.apply_async(primes_between, (0, 1_000_000));
    println!("async:   ready at once? {}", slow.ready());
    println!("async:   {}", slow.get()?);

    let refuses = |n: u32| -> u32 { panic!("{n} is refused") };
    if let Err(TaskError::Panicked(panic)) = pool.apply(refuses, (7,)) {
        println!("panic:   {}", panic.message);
    }
    println!("{:?}", pool.progress());
    pool.close().join();
    Ok(())
}
