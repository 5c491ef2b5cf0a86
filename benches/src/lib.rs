#![doc = include_str!("../README.md")]

mod catalog;
mod channel;
mod clock;
mod control;
mod durable;
mod failure;
mod floors;
mod implementation;
mod loan;
mod machine;
mod measure;
mod neighbours;
mod pair;
mod parcel;
mod peer;
mod placement;
mod plan;
mod processes;
mod report;
mod rivals;
mod row;
mod settings;
mod spec;
mod stdout;
mod syscalls;
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use criterion::Criterion;

pub use crate::control::{Bundle, Control};
pub use crate::failure::{Failure, Outcome};
pub use crate::implementation::Implementation;
pub use crate::peer::{Link, Solo};
pub use crate::placement::Placement;
pub use crate::processes::starts::{Starter, Starts};
pub use crate::processes::tasks::{Pools, Tasks, WORKERS, task};
pub use crate::rivals::std_streams::Exact;
pub use crate::spec::{Side, Spec, Strategy, WINDOW, Workload};
pub use crate::workload::{Port, Run, SideReport, check, each, stamp};

use crate::machine::Machine;
use crate::settings::Settings;
use crate::stdout::end_when_nobody_reads;

/// The whole program: a side of a row if a supervisor started it as one, else the supervisor.
#[must_use]
pub fn main() -> ExitCode {
    main_with(&[], || {})
}

/// As [`main`], with rivals that this package does not know, compared with what it has on the same
/// mechanisms. For rivals whose dependencies nobody should build by accident.
///
/// `tidy` removes what they leave behind when they are killed: the supervisor calls it before the
/// first row and after the last.
#[must_use]
pub fn main_with(rivals: &'static [Implementation], tidy: fn()) -> ExitCode {
    catalog::add(rivals);
    // A process of a pool, or one whose start is measured, goes no further.
    ipc_process::init();
    // Before anything looks at the arguments: a peer has none.
    if let Some(role) = peer::role() {
        return peer::main(&role);
    }
    let start = Instant::now();
    end_when_nobody_reads();
    let settings = match Settings::read() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut criterion = Criterion::default()
        .nresamples(1001)
        .without_plots()
        .configure_from_args();
    if settings.plain {
        criterion = criterion.with_output_color(false);
    }
    let groups = plan::groups(&settings);
    if groups.is_empty() {
        eprintln!("nothing to measure: names are such as rtt/two-cores/64/pipe/ipc-pipe/adaptive");
        return ExitCode::SUCCESS;
    }
    let machine = Machine::here(&report::directory());
    let tidy = || {
        durable::remove_logs();
        tidy();
    };
    tidy();
    let mut rows = measure::all(&mut criterion, groups, &settings);
    tidy();
    criterion.final_summary();
    if !settings.measuring {
        return ExitCode::SUCCESS;
    }
    for row in &mut rows {
        row.say_where_it_is_stored(&machine);
    }
    match report::write(&machine, &rows, start.elapsed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the reports could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's pages: what they show compiles and runs.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod english {}
    #[doc = include_str!("../../README.zh-CN.md")]
    mod chinese {}
}
