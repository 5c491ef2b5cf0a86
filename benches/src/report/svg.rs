use std::fmt::Write as _;

/// One line of a plot.
pub(super) struct Series {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Floors are dashed, rivals dotted.
    pub(super) dash: &'static str,
    pub(super) colour: &'static str,
}

/// An axis: where a value lies, from 0 to 1, and what is written beside it.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) ticks: Vec<(f64, String)>,
    pub(super) place: fn(f64) -> f64,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 48.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 14.0;

/// A plot without scripts, which any browser and printer shows.
pub(super) fn plot(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> String {
    let (x_low, x_high) = range(
        series
            .iter()
            .flat_map(|s| &s.points)
            .map(|p| (x.place)(p.0)),
    );
    let (y_low, y_high) = range(
        series
            .iter()
            .flat_map(|s| &s.points)
            .map(|p| (y.place)(p.1)),
    );
    let at_x = |v: f64| LEFT + ((x.place)(v) - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let at_y = |v: f64| {
        HEIGHT - BOTTOM - ((y.place)(v) - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP)
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    for (value, label) in x
        .ticks
        .iter()
        .filter(|t| inside((x.place)(t.0), x_low, x_high))
    {
        let (at, low) = (at_x(*value), HEIGHT - BOTTOM);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{at:.0} {TOP}V{low}\"/>\
             <text x=\"{at:.0}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            low + 16.0,
            escape(label)
        );
    }
    for (value, label) in y
        .ticks
        .iter()
        .filter(|t| inside((y.place)(t.0), y_low, y_high))
    {
        let (at, right) = (at_y(*value), WIDTH - RIGHT);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.0}H{right}\"/>\
             <text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            escape(label)
        );
    }
    for line in series {
        let mut path = String::new();
        for (number, point) in line.points.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{:.0} {:.0}", at_x(point.0), at_y(point.1));
        }
        let _ = write!(
            svg,
            "<path class=\"line\" stroke=\"{}\" stroke-dasharray=\"{}\" d=\"{path}\">\
             <title>{}</title></path>",
            line.colour,
            line.dash,
            escape(&line.label)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text></svg>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        HEIGHT - 10.0,
        escape(x.title),
        HEIGHT / 2.0,
        escape(y.title)
    );
    svg
}

/// The lines' names beside their strokes.
pub(super) fn legend(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">");
    for line in series {
        let _ = write!(
            html,
            "<li><svg viewBox=\"0 0 24 8\"><path class=\"line\" stroke=\"{}\" \
             stroke-dasharray=\"{}\" d=\"M0 4H24\"/></svg>{}</li>",
            line.colour,
            line.dash,
            escape(&line.label)
        );
    }
    html.push_str("</ul>");
    html
}

fn inside(value: f64, low: f64, high: f64) -> bool {
    (low..=high).contains(&value)
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
