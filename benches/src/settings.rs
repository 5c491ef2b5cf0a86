use std::env;
use std::time::Duration;

use regex::Regex;

use crate::placement::Placement;

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
    pub(crate) fn read() -> Self {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        let measuring = has("--bench")
            && !["--test", "--list", "--profile-time", "--load-baseline"]
                .iter()
                .any(|option| has(option));
        let asked = env::var("IPC_BENCH_QUICK").is_ok_and(|value| !matches!(&*value, "" | "0"));
        // `cargo test --benches` only wants to see everything run once.
        let quick = asked || !has("--bench");
        let seconds = env::var("IPC_BENCH_SECONDS")
            .ok()
            .and_then(|value| value.parse().ok());
        Self {
            quick,
            measuring,
            placements: placements(quick),
            processes: env::var_os(PLACEMENTS).is_none(),
            budget: Duration::from_secs(seconds.unwrap_or(if quick { 48 } else { 200 })),
            // Criterion refuses what is not a regular expression.
            filter: filter(&arguments).and_then(|filter| Regex::new(&filter).ok()),
        }
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

fn placements(quick: bool) -> Vec<Placement> {
    let all = [
        Placement::TwoCores,
        Placement::OneCore,
        Placement::Unpinned,
        Placement::Busy,
    ];
    match env::var(PLACEMENTS) {
        Ok(list) => {
            let wanted = |placement: &Placement| {
                list.split(',')
                    .any(|name| name.trim() == placement.to_string())
            };
            all.into_iter().filter(wanted).collect()
        }
        Err(_) if quick => vec![Placement::TwoCores],
        Err(_) => vec![Placement::TwoCores, Placement::OneCore],
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

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
}
