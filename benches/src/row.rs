use hdrhistogram::Histogram;
use serde::Serialize;

use crate::machine::Machine;
use crate::pair::Slice;
use crate::placement::Placement;
use crate::spec::{Spec, Strategy, Workload};
use crate::workload::histogram;

/// One row of the results, as `results.json` has it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) implementation: String,
    pub(crate) mechanism: String,
    pub(crate) wait: Option<Strategy>,
    pub(crate) workload: Workload,
    pub(crate) size: usize,
    /// How long each task works.
    pub(crate) task_ns: Option<u64>,
    pub(crate) placement: Placement,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p90_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) p999_ns: Option<u64>,
    pub(crate) max_ns: Option<u64>,
    pub(crate) messages_per_s: Option<f64>,
    pub(crate) bytes_per_s: Option<f64>,
    pub(crate) cpu_ns_per_message: Option<u64>,
    pub(crate) syscalls_per_message: Option<f64>,
    /// Why there is no count of system calls.
    pub(crate) syscalls_reason: Option<String>,
    pub(crate) depth: Option<u64>,
    pub(crate) ratio_to_floor: Option<f64>,
    /// The least and the greatest ratio of a turn; `ratio_to_floor` is their median.
    pub(crate) ratio_low: Option<f64>,
    pub(crate) ratio_high: Option<f64>,
    /// The implementation that `ratio_to_floor` compares with.
    pub(crate) floor: Option<String>,
    /// What must be known to read the row, such as that it is within one process.
    pub(crate) note: Option<String>,
    /// Messages behind the figures.
    pub(crate) samples: u64,
    /// Points of the percentile curve: share of samples in 1/1,000,000, and ns.
    #[serde(skip)]
    pub(crate) curve: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    Unsupported,
    Failed,
}

impl Row {
    pub(crate) fn new(spec: &Spec, note: &str) -> Self {
        Self {
            implementation: spec.implementation.clone(),
            mechanism: spec.mechanism.clone(),
            wait: spec.wait,
            workload: spec.workload,
            size: spec.size,
            task_ns: matches!(spec.workload, Workload::Task | Workload::Map)
                .then_some(spec.task_ns),
            placement: spec.placement,
            status: Status::Ok,
            reason: None,
            p50_ns: None,
            p90_ns: None,
            p99_ns: None,
            p999_ns: None,
            max_ns: None,
            messages_per_s: None,
            bytes_per_s: None,
            cpu_ns_per_message: None,
            syscalls_per_message: None,
            syscalls_reason: None,
            depth: None,
            ratio_to_floor: None,
            ratio_low: None,
            ratio_high: None,
            floor: None,
            note: (!note.is_empty()).then(|| note.to_owned()),
            samples: 0,
            curve: Vec::new(),
        }
    }

    /// A file costs what its file system makes of it.
    pub(crate) fn say_where_it_is_stored(&mut self, machine: &Machine) {
        if let ("file", Some(storage)) = (&*self.mechanism, &machine.storage_of_reports) {
            let note = self.note.take().map(|note| note + "; ");
            self.note = Some(format!("{}on {storage}", note.unwrap_or_default()));
        }
    }

    /// The implementation and how it waits, the way tables name a row.
    pub(crate) fn label(&self) -> String {
        match self.wait {
            Some(wait) if !self.implementation.starts_with("rival:") => {
                format!("{}/{wait}", self.implementation)
            }
            _ => self.implementation.clone(),
        }
    }

    /// Fills in what the slices say: medians over the rounds, tails over all samples.
    pub(crate) fn digest(&mut self, slices: &[Slice]) {
        let messages: u64 = slices.iter().map(|slice| slice.messages).sum();
        let cpu: u64 = slices.iter().map(|slice| slice.cpu_ns).sum();
        self.samples = messages;
        self.cpu_ns_per_message = cpu.checked_div(messages);
        let rate = median(slices.iter().map(rate).collect());
        self.messages_per_s = rate;
        self.bytes_per_s = rate.map(|rate| rate * self.size as f64);
        if self.workload.is_timed_each() {
            let all = merge(slices);
            self.p50_ns = median(slices.iter().map(p50).collect()).map(|ns| ns.round() as u64);
            let at = |percentile| (!all.is_empty()).then(|| all.value_at_percentile(percentile));
            self.p90_ns = at(90.0);
            self.p99_ns = at(99.0);
            self.p999_ns = at(99.9);
            self.max_ns = at(100.0);
            self.curve = curve(&all);
        }
    }
}

/// What a ratio compares: the median time, or messages a second. Among busy neighbours the mean
/// time: what waiting costs there happens to few messages, and a median would hide it.
pub(crate) fn figure(slice: &Slice, spec: &Spec) -> f64 {
    if !spec.workload.is_timed_each() {
        rate(slice)
    } else if spec.placement == Placement::Busy {
        1e9 / rate(slice)
    } else {
        p50(slice)
    }
}

fn rate(slice: &Slice) -> f64 {
    slice.messages as f64 / slice.elapsed.as_secs_f64().max(1e-9)
}

fn p50(slice: &Slice) -> f64 {
    merge(std::slice::from_ref(slice)).value_at_percentile(50.0) as f64
}

fn merge(slices: &[Slice]) -> Histogram<u64> {
    let mut all = histogram();
    for (value, count) in slices.iter().flat_map(|slice| &slice.histogram) {
        all.saturating_record_n(*value, *count);
    }
    all
}

/// From the median to the last sample, evenly on an axis of nines.
fn curve(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    const MILLION: f64 = 1e6;
    (0..=48)
        .map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 8.0))
        .take_while(|share| histogram.len() as f64 * (1.0 - share) >= 1.0)
        .map(|share| {
            (
                (share * MILLION) as u64,
                histogram.value_at_percentile(share * 100.0),
            )
        })
        .collect()
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len.is_multiple_of(2) => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_or_between_the_middles() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
