use std::sync::LazyLock;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The clock that all processes of a machine share; read through the vDSO.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Processor time of this process, all threads, user and system.
pub(crate) fn process_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
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
