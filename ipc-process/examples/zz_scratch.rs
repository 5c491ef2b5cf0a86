#![allow(unsafe_code)]
use std::time::Instant;
use ipc_process::Pool;
fn empty(a: Vec<u8>) -> usize { std::hint::black_box(&a).len() }
fn faults() -> (i64, i64) { unsafe { let mut u: libc::rusage = std::mem::zeroed(); libc::getrusage(0, &mut u); let cpu = u.ru_utime.tv_sec*1000000+u.ru_utime.tv_usec+u.ru_stime.tv_sec*1000000+u.ru_stime.tv_usec; (u.ru_minflt, cpu) } }
fn report(_: u8) -> (u32, i64, i64) { let f = faults(); (std::process::id(), f.0, f.1) }
fn main() {
    ipc_process::init();
    let pool = Pool::new(2).unwrap();
    let arg = vec![0xA5u8; 1 << 20];
    let chunk: usize = std::env::args().nth(1).map_or(1, |s| s.parse().unwrap());
    let n: usize = std::env::args().nth(2).map_or(64, |s| s.parse().unwrap());
    let size: usize = std::env::args().nth(3).map_or(1<<20, |s| s.parse().unwrap());
    let rounds: usize = std::env::args().nth(4).map_or(30, |s| s.parse().unwrap());
    for r in 0..rounds {
        let f0 = faults();
        let t = Instant::now();
        let out = pool.batch().chunk_size(chunk).map(empty, (0..n).map(|_| arg[..size].to_vec())).unwrap();
        let e = t.elapsed();
        let f1 = faults();
        assert_eq!(out.iter().sum::<usize>(), n * size);
        if r % 10 == 9 { println!("{:?}/task faults/task {} cpu us/task {}", e / n as u32, (f1.0 - f0.0) as f64 / n as f64, (f1.1-f0.1) as f64/n as f64);
          let mut w = pool.map(report, 0..40).unwrap(); w.sort(); w.dedup_by_key(|w| w.0); println!("{w:?}"); }
    }
}
