use std::fmt::Write as _;

/// One line of a plot.
pub(super) struct Series {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    /// The pattern of its strokes: what kind of row it is.
    pub(super) dash: &'static str,
    pub(super) colour: &'static str,
}

/// An axis: where a value lies, from 0 to 1, and what is written beside it.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) place: fn(f64) -> f64,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 66.0;
const BOTTOM: f64 = 46.0;
const TOP: f64 = 12.0;
/// Room for the names of the lines.
const RIGHT: f64 = 206.0;
/// From one name to the next.
const LINE: f64 = 13.0;

/// Where things lie on a plot.
struct Frame<'a> {
    x: &'a Axis,
    y: &'a Axis,
    x_range: (f64, f64),
    y_range: (f64, f64),
}

/// A plot without scripts, which any browser and printer shows: each line with its name at its end.
pub(super) fn plot(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|line| &line.points);
    let frame = Frame {
        x,
        y,
        x_range: range(points().map(|point| (x.place)(point.0))),
        y_range: range(points().map(|point| (y.place)(point.1))),
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    frame.grid(&mut svg);
    for line in series {
        frame.line(&mut svg, line);
    }
    frame.names(&mut svg, series);
    svg.push_str("</svg>");
    svg
}

impl Frame<'_> {
    fn at_x(&self, value: f64) -> f64 {
        let (low, high) = self.x_range;
        LEFT + ((self.x.place)(value) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        let (low, high) = self.y_range;
        HEIGHT - BOTTOM - ((self.y.place)(value) - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
    }

    fn grid(&self, svg: &mut String) {
        let (low, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, label) in shown(self.x, self.x_range) {
            let at = self.at_x(*value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{at:.0} {TOP}V{low}\"/>\
                 <text x=\"{at:.0}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                low + 16.0,
                escape(label)
            );
        }
        for (value, label) in shown(self.y, self.y_range) {
            let at = self.at_y(*value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {at:.0}H{right}\"/>\
                 <text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                escape(label)
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(12 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(self.x.title),
            (HEIGHT - BOTTOM) / 2.0,
            escape(self.y.title)
        );
    }

    fn line(&self, svg: &mut String, line: &Series) {
        let Series {
            label,
            points,
            dash,
            colour,
        } = line;
        let label = escape(label);
        let mut path = String::new();
        for (number, point) in points.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            let (x, y) = (self.at_x(point.0), self.at_y(point.1));
            let _ = write!(path, "{command}{x:.0} {y:.0}");
            // Few points are measurements, many are a curve.
            if points.len() <= 6 {
                let _ = write!(
                    svg,
                    "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"2.4\" fill=\"{colour}\"/>"
                );
            }
        }
        let _ = write!(
            svg,
            "<path class=\"line\" stroke=\"{colour}\" stroke-dasharray=\"{dash}\" d=\"{path}\">\
             <title>{label}</title></path>"
        );
    }

    /// At the right, in the order of the lines' ends, no two on the same spot.
    fn names(&self, svg: &mut String, series: &[Series]) {
        let mut ends: Vec<_> = series
            .iter()
            .filter_map(|line| {
                let end = line.points.last()?;
                Some((self.at_x(end.0), self.at_y(end.1), line))
            })
            .collect();
        ends.sort_by(|a, b| a.1.total_cmp(&b.1));
        let places = spread(ends.iter().map(|end| end.1).collect(), TOP, HEIGHT - BOTTOM);
        for ((x, y, line), place) in ends.into_iter().zip(places) {
            let Series {
                label,
                dash,
                colour,
                ..
            } = line;
            let edge = WIDTH - RIGHT + 6.0;
            let _ = write!(
                svg,
                "<path class=\"leader\" stroke=\"{colour}\" d=\"M{x:.0} {y:.0}L{edge} {place:.0}\"/>\
                 <path class=\"line\" stroke=\"{colour}\" stroke-dasharray=\"{dash}\" d=\"M{edge} {place:.0}h20\"/>\
                 <text class=\"name\" x=\"{}\" y=\"{:.0}\">{}</text>",
                edge + 24.0,
                place + 4.0,
                escape(label)
            );
        }
    }
}

/// The places of names that would like to be at `wishes`, sorted, but need room.
fn spread(mut places: Vec<f64>, top: f64, bottom: f64) -> Vec<f64> {
    let mut least = top;
    for place in &mut places {
        *place = place.max(least);
        least = *place + LINE;
    }
    let mut most = bottom;
    for place in places.iter_mut().rev() {
        *place = place.min(most);
        most = *place - LINE;
    }
    places
}

/// The ticks within the range; where they would be many, those of one, two and five, or of one.
fn shown(axis: &Axis, range: (f64, f64)) -> Vec<&(f64, String)> {
    const MANY: usize = 9;
    let (low, high) = range;
    let ticks = axis.ticks.iter();
    let mut within: Vec<_> = ticks
        .filter(|tick| (low..=high).contains(&(axis.place)(tick.0)))
        .collect();
    for digits in [&[1.0, 2.0, 5.0][..], &[1.0]] {
        if within.len() > MANY {
            within.retain(|tick| digits.iter().any(|&digit| begins_with(tick.0, digit)));
        }
    }
    within
}

/// Whether it is this digit and zeros.
fn begins_with(value: f64, digit: f64) -> bool {
    let power = (value / digit).log10();
    (power - power.round()).abs() < 1e-9
}

/// From the least to the greatest, with a little air; never empty.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    if low > high {
        return (0.0, 1.0);
    }
    let air = ((high - low) * 0.04).max(0.05);
    (low - air, high + air)
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{Axis, LINE, shown, spread};

    #[test]
    fn a_narrow_axis_has_ticks_too() {
        let axis = Axis {
            title: "",
            ticks: (1..100).map(|n| (f64::from(n), String::new())).collect(),
            place: f64::log10,
        };
        let at = |low: f64, high: f64| -> Vec<u32> {
            let ticks = shown(&axis, (low.log10(), high.log10()));
            ticks.iter().map(|tick| tick.0 as u32).collect()
        };
        assert_eq!(at(31.5, 37.5), [32, 33, 34, 35, 36, 37]);
        assert_eq!(at(4.5, 99.5), [5, 10, 20, 50]);
        assert_eq!(at(0.9, 99.5), [1, 2, 5, 10, 20, 50]);
    }

    #[test]
    fn names_make_room_for_each_other() {
        assert_eq!(spread(vec![10.0, 10.0], 0.0, 100.0), [10.0, 10.0 + LINE]);
        assert_eq!(spread(vec![99.0, 99.0], 0.0, 100.0), [100.0 - LINE, 100.0]);
        assert_eq!(spread(vec![5.0, 90.0], 0.0, 100.0), [5.0, 90.0]);
    }
}
