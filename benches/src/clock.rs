use std::fs;
use std::sync::LazyLock;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::floors::sys;

/// The clock that all processes of a machine share; read through the vDSO.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Processor time of this process, all threads, user and system.
pub(crate) fn process_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// Processor time of this process, of the children it has waited for, and of those that live.
pub(crate) fn family_cpu_ns() -> u64 {
    let waited_for = sys::waited_for_cpu_ns();
    process_cpu_ns() + waited_for + children().into_iter().map(threads_cpu_ns).sum::<u64>()
}

/// Where the kernel keeps no list of children (`proc_pid_children(5)`), none.
fn children() -> Vec<u32> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            list.split(' ')
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The first number of each thread's `schedstat` (Documentation/scheduler/sched-stats).
fn threads_cpu_ns(process: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return 0;
    };
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// What one reading of the clock adds to a sample: the least of many readings in a row.
pub(crate) fn reading_cost_ns() -> u64 {
    static COST: LazyLock<u64> = LazyLock::new(|| {
        const READINGS: u64 = 1000;
        (0..20)
            .map(|_| {
                let start = monotonic_ns();
                for _ in 1..READINGS {
                    std::hint::black_box(monotonic_ns());
                }
                (monotonic_ns() - start) / READINGS
            })
            .min()
            .unwrap_or(0)
    });
    *COST
}

#[inline]
fn nanoseconds(time: Timespec) -> u64 {
    // Both clocks start at zero and never run backwards: the parts are not negative.
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
