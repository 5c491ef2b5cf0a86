use std::env;
use std::time::Duration;

use regex::Regex;

use crate::placement::{Placement, processors};

/// What the command line and the environment ask for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `IPC_BENCH_QUICK=1`: fewer sizes, one placement.
    pub(crate) quick: bool,
    /// Whether figures are wanted at all, and not only a test that everything runs.
    pub(crate) measuring: bool,
    pub(crate) placements: Vec<Placement>,
    /// Whether processes and pools are measured, and not only channels.
    pub(crate) processes: bool,
    /// `NO_COLOR` (no-color.org), or a terminal that has none.
    pub(crate) plain: bool,
    /// For the whole run, after the build.
    pub(crate) budget: Duration,
    filter: Option<Regex>,
}

/// Options of criterion that take a value, which is then no filter.
const WITH_VALUE: &[&str] = &[
    "-b",
    "--baseline",
    "--baseline-lenient",
    "--color",
    "-c",
    "--confidence-level",
    "--format",
    "--load-baseline",
    "--measurement-time",
    "--noise-threshold",
    "--nresamples",
    "--output-format",
    "--plotting-backend",
    "--profile-time",
    "--sample-size",
    "-s",
    "--save-baseline",
    "--significance-level",
    "--warm-up-time",
];

impl Settings {
    /// # Errors
    /// A text for the user, when the environment asks for what there is not.
    pub(crate) fn read() -> Result<Self, String> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        let measuring = has("--bench")
            && !["--test", "--list", "--profile-time", "--load-baseline"]
                .iter()
                .any(|option| has(option));
        let asked = env::var("IPC_BENCH_QUICK").is_ok_and(|value| !matches!(&*value, "" | "0"));
        // `cargo test --benches` only wants to see everything run once.
        let quick = asked || !has("--bench");
        let seconds = match env::var(SECONDS) {
            Ok(text) => text
                .parse()
                .map_err(|_| format!("{SECONDS} is \"{text}\", which is no number of seconds"))?,
            Err(_) if quick => 48,
            Err(_) => 200,
        };
        Ok(Self {
            quick,
            measuring,
            placements: placements(quick)?,
            plain: !arguments.iter().any(|a| a.starts_with("--color"))
                && (env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
                    || env::var_os("TERM").is_some_and(|term| term == "dumb")),
            processes: env::var_os(PLACEMENTS).is_none(),
            budget: Duration::from_secs(seconds),
            // Criterion refuses what is not a regular expression.
            filter: filter(&arguments).and_then(|filter| Regex::new(&filter).ok()),
        })
    }

    /// Whether criterion will want this row, whose filter is a regular expression.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.is_match(id))
    }
}

fn filter(arguments: &[String]) -> Option<String> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if WITH_VALUE.contains(&argument.as_str()) {
            arguments.next();
        } else if !argument.starts_with('-') {
            return Some(argument.clone());
        }
    }
    None
}

/// Placements of channels, such as `unpinned` or `two-cores,busy`, to measure nothing else.
const PLACEMENTS: &str = "IPC_BENCH_PLACEMENTS";
const SECONDS: &str = "IPC_BENCH_SECONDS";

fn placements(quick: bool) -> Result<Vec<Placement>, String> {
    if let Ok(list) = env::var(PLACEMENTS) {
        return named(&list);
    }
    Ok(match (processors().len(), quick) {
        (0 | 1, _) => {
            eprintln!(
                "this process may run on one processor only: nothing is measured between two cores"
            );
            vec![Placement::OneCore]
        }
        (_, true) => vec![Placement::TwoCores],
        (_, false) => vec![Placement::TwoCores, Placement::OneCore],
    })
}

fn named(list: &str) -> Result<Vec<Placement>, String> {
    let names = Placement::ALL.map(|placement| placement.to_string());
    list.split(',')
        .map(str::trim)
        .map(|name| {
            let known = names.iter().position(|known| known == name);
            known.map(|at| Placement::ALL[at]).ok_or_else(|| {
                let names = names.join(", ");
                format!("{PLACEMENTS} has \"{name}\", which is none of {names}")
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{filter, named};
    use crate::placement::Placement;

    fn of(line: &str) -> Option<String> {
        filter(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_filter_is_told_from_the_value_of_an_option() {
        assert_eq!(of("--bench"), None);
        assert_eq!(of("--bench --save-baseline x"), None);
        assert_eq!(
            of("--save-baseline x pipe --bench").as_deref(),
            Some("pipe")
        );
    }

    #[test]
    fn placements_go_by_their_names_and_others_are_refused() {
        assert_eq!(
            named("busy, two-cores"),
            Ok(vec![Placement::Busy, Placement::TwoCores])
        );
        let error = named("two_cores").expect_err("no such placement");
        assert!(error.contains("two_cores") && error.contains("one-core"));
    }
}
