#![doc = include_str!("../README.md")]

mod catalog;
mod channel;
mod clock;
mod control;
mod failure;
mod floors;
mod machine;
mod measure;
mod pair;
mod peer;
mod placement;
mod plan;
mod report;
mod rivals;
mod row;
mod settings;
mod spec;
mod syscalls;
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use criterion::Criterion;

use crate::machine::Machine;
use crate::settings::Settings;

/// The whole program: a side of a row if a supervisor started it as one, else the supervisor.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything looks at the arguments: a peer has none.
    if peer::is_peer() {
        return peer::main();
    }
    let start = Instant::now();
    let settings = Settings::read();
    let mut criterion = Criterion::default()
        .nresamples(1001)
        .without_plots()
        .configure_from_args();
    let machine = Machine::here(&report::directory());
    let groups = plan::groups(&settings);
    let rows = measure::all(&mut criterion, groups, &settings);
    criterion.final_summary();
    if !settings.measuring {
        return ExitCode::SUCCESS;
    }
    match report::write(&machine, &rows, start.elapsed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the reports could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}
