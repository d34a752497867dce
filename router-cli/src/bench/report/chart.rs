//! Charts as SVG text: bars in groups with their spread, and lines. Colours are variables of the page, so that one drawing
//! serves light, dark and paper; shapes and dashes tell series apart where colours do not.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 52.0;
/// Dashes of the lines, by series.
const DASHES: [&str; 6] = ["", "7 4", "2 3", "10 3 2 3", "14 4", "5 2 1 2 1 2"];

/// How values become places on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Evenly from the first to the second value.
    Linear(f64, f64),
    /// By the decimal logarithm.
    Log(f64, f64),
}

impl Scale {
    /// From zero to a round value above `most`.
    pub fn from_zero(most: f64) -> Scale {
        let step = step(most.max(f64::MIN_POSITIVE));
        Scale::Linear(0.0, (most / step).ceil().max(1.0) * step)
    }

    /// From the power of ten below `least` to a value above `most`.
    pub fn log(least: f64, most: f64) -> Scale {
        let low = 10f64.powf(least.max(1e-9).log10().floor());
        let high = most.max(low * 1.01);
        let decade = 10f64.powf(high.log10().floor());
        let high = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * decade).find(|x| *x >= high).unwrap_or(decade * 10.0);
        Scale::Log(low, high)
    }

    /// Share of the axis at which a value lies, 0 to 1.
    fn at(self, value: f64) -> f64 {
        let share = match self {
            Scale::Linear(a, b) => (value - a) / (b - a),
            Scale::Log(a, b) => (value.max(a) / a).log10() / (b / a).log10(),
        };
        share.clamp(0.0, 1.0)
    }

    /// Values worth a line.
    fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear(a, b) => {
                let step = step(b - a);
                let n = ((b - a) / step + 1e-9) as usize;
                (0..=n).map(|i| a + i as f64 * step).collect()
            }
            Scale::Log(a, b) => {
                let decades = (b / a).log10();
                let marks: &[f64] = if decades > 3.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let first = a.log10().floor() as i32;
                let last = b.log10().ceil() as i32;
                let all = (first..=last).flat_map(|d| marks.iter().map(move |m| m * 10f64.powi(d)));
                all.filter(|x| *x >= a * 0.999 && *x <= b * 1.001).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that four to nine of them make `span`.
fn step(span: f64) -> f64 {
    let rough = span / 8.0;
    let decade = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * decade).find(|s| *s >= rough * 0.999).unwrap_or(decade * 10.0)
}

/// A number as short as it can be.
pub(crate) fn number(x: f64) -> String {
    let text = match x.abs() {
        a if a >= 100.0 || a == 0.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        a if a >= 1.0 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Text that cannot be taken for markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One bar: value with spread, and an outlined one behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bar {
    pub median: f64,
    pub min: f64,
    pub max: f64,
    /// A second, greater value, drawn in outline.
    pub behind: Option<f64>,
}

/// Bars in groups: one group per frame size, one bar per device under test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bars {
    pub title: String,
    pub unit: String,
    pub groups: Vec<String>,
    pub series: Vec<String>,
    /// By group, then series.
    pub bars: Vec<Vec<Option<Bar>>>,
}

/// Lines through points.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub x: Scale,
    pub y: Scale,
    /// Ticks of the x axis with their text; by the scale if empty.
    pub x_ticks: Vec<(f64, String)>,
    pub series: Vec<(String, Vec<(f64, f64)>)>,
    /// Marks at the points.
    pub dots: bool,
}

struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Self {
        let mut s = Svg(String::new());
        let title = escape(title);
        s.put(format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>"
        ));
        s
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{text}");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"
        ));
    }

    fn y_axis(&mut self, scale: Scale, label: &str) {
        for tick in scale.ticks() {
            let y = y_of(scale, tick);
            self.put(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                WIDTH - RIGHT
            ));
            self.text(LEFT - 8.0, y + 4.0, "end", "tick", &number(tick));
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let label = escape(label);
        self.put(format_args!(
            "<text transform=\"translate(14 {middle:.1}) rotate(-90)\" text-anchor=\"middle\" class=\"label\">{label}</text>"
        ));
    }

    fn base(&mut self) {
        let y = HEIGHT - BOTTOM;
        self.put(format_args!(
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/>",
            WIDTH - RIGHT
        ));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn y_of(scale: Scale, value: f64) -> f64 {
    HEIGHT - BOTTOM - scale.at(value) * (HEIGHT - BOTTOM - TOP)
}

fn x_of(scale: Scale, value: f64) -> f64 {
    LEFT + scale.at(value) * (WIDTH - RIGHT - LEFT)
}

/// The names of the series with their colours, as HTML in front of a chart.
fn legend(series: impl Iterator<Item = String>, lines: bool) -> String {
    let mut t = String::from("<p class=\"legend\">");
    for (i, name) in series.enumerate() {
        let mark = if lines {
            let dash = DASHES[i % DASHES.len()];
            format!("<line class=\"l{}\" x1=\"0\" x2=\"28\" y1=\"6\" y2=\"6\" stroke-dasharray=\"{dash}\"/>", i % 6)
        } else {
            format!("<rect class=\"b{}\" width=\"28\" height=\"12\"/>", i % 6)
        };
        let _ = write!(
            t,
            "<span><svg width=\"28\" height=\"12\" aria-hidden=\"true\">{mark}</svg> {}</span> ",
            escape(&name)
        );
    }
    t + "</p>\n"
}

impl Bars {
    /// As HTML.
    pub fn draw(&self) -> String {
        let all = self.bars.iter().flatten().flatten();
        let most = all.map(|b| b.max.max(b.behind.unwrap_or(0.0))).fold(0.0, f64::max);
        // Room for the figures above the bars.
        let scale = Scale::from_zero(most * 1.08);
        let mut s = Svg::new(&self.title, HEIGHT);
        s.y_axis(scale, &self.unit);
        let group = (WIDTH - RIGHT - LEFT) / self.groups.len().max(1) as f64;
        let n = self.series.len().max(1) as f64;
        let width = (group * 0.8 / n).min(72.0);
        for (g, name) in self.groups.iter().enumerate() {
            let middle = LEFT + group * (g as f64 + 0.5);
            let first = middle - width * n / 2.0;
            for (i, bar) in self.bars.get(g).into_iter().flatten().enumerate() {
                let Some(bar) = bar else { continue };
                self.bar(&mut s, scale, *bar, i, first + width * i as f64, width);
            }
            s.text(middle, HEIGHT - BOTTOM + 20.0, "middle", "tick", name);
        }
        s.base();
        s.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", "label", "frame size, bytes");
        legend(self.series.iter().cloned(), false) + &s.end()
    }

    fn bar(&self, s: &mut Svg, scale: Scale, bar: Bar, i: usize, x: f64, width: f64) {
        let base = HEIGHT - BOTTOM;
        let name = escape(&self.series[i]);
        let (x, w) = (x + width * 0.06, width * 0.88);
        if let Some(behind) = bar.behind {
            let y = y_of(scale, behind);
            s.put(format_args!(
                "<rect class=\"o{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{:.1}\"><title>{name}: {} {} at the \
                 greatest load</title></rect>",
                i % 6,
                base - y,
                number(behind),
                escape(&self.unit)
            ));
        }
        let y = y_of(scale, bar.median);
        s.put(format_args!(
            "<rect class=\"b{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{:.1}\"><title>{name}: {} ({} to {}) \
             {}</title></rect>",
            i % 6,
            base - y,
            number(bar.median),
            number(bar.min),
            number(bar.max),
            escape(&self.unit)
        ));
        let (middle, low, high) = (x + w / 2.0, y_of(scale, bar.min), y_of(scale, bar.max));
        let cap = (w * 0.2).min(6.0);
        s.put(format_args!(
            "<path class=\"spread\" d=\"M{:.1} {high:.1}h{:.1}m{:.1} 0V{low:.1}m{:.1} 0h{:.1}\"/>",
            middle - cap,
            cap * 2.0,
            -cap,
            -cap,
            cap * 2.0
        ));
        let top = bar.behind.map_or(high, |b| y_of(scale, b).min(high));
        // Figures under 30 pixels of width would run into each other.
        if width >= 30.0 {
            s.text(middle, top - 5.0, "middle", "value", &number(bar.behind.unwrap_or(bar.median)));
        }
    }
}

impl Lines {
    /// As HTML.
    pub fn draw(&self) -> String {
        let mut s = Svg::new(&self.title, HEIGHT);
        s.y_axis(self.y, &self.y_label);
        let by_scale: Vec<(f64, String)> = self.x.ticks().into_iter().map(|t| (t, number(t))).collect();
        for (tick, text) in if self.x_ticks.is_empty() { &by_scale } else { &self.x_ticks } {
            let x = x_of(self.x, *tick);
            s.put(format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>",
                HEIGHT - BOTTOM
            ));
            s.text(x, HEIGHT - BOTTOM + 20.0, "middle", "tick", text);
        }
        s.base();
        for (i, (name, points)) in self.series.iter().enumerate() {
            let mut d = String::new();
            for (k, (x, y)) in points.iter().enumerate() {
                let _ = write!(d, "{}{:.1} {:.1}", if k == 0 { 'M' } else { 'L' }, x_of(self.x, *x), y_of(self.y, *y));
            }
            let (name, dash) = (escape(name), DASHES[i % DASHES.len()]);
            s.put(format_args!(
                "<path class=\"l{}\" d=\"{d}\" stroke-dasharray=\"{dash}\"><title>{name}</title></path>",
                i % 6
            ));
            for (x, y) in points.iter().filter(|_| self.dots) {
                s.put(format_args!(
                    "<circle class=\"b{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{name}: {}, {}</title></circle>",
                    i % 6,
                    x_of(self.x, *x),
                    y_of(self.y, *y),
                    number(*x),
                    number(*y)
                ));
            }
        }
        s.text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", "label", &self.x_label);
        legend(self.series.iter().map(|(n, _)| n.clone()), true) + &s.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_values() {
        assert_eq!(Scale::from_zero(1.73), Scale::Linear(0.0, 2.0));
        assert_eq!(Scale::from_zero(0.031), Scale::Linear(0.0, 0.035));
        assert_eq!(Scale::from_zero(0.0).at(0.0), 0.0);
        assert_eq!(Scale::log(3.0, 130.0), Scale::Log(1.0, 200.0));
        let Scale::Linear(_, top) = Scale::from_zero(2.1) else { panic!() };
        let ticks = Scale::Linear(0.0, top).ticks();
        assert!((4..=10).contains(&ticks.len()) && ticks.last().is_some_and(|t| (t - top).abs() < 1e-9), "{ticks:?}");
        assert_eq!(Scale::Log(1.0, 200.0).ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        for (x, want) in [(0.0, 0.0), (1.0, 0.5), (2.0, 1.0), (9.0, 1.0)] {
            assert_eq!(Scale::Linear(0.0, 2.0).at(x), want);
        }
        assert!((Scale::Log(1.0, 100.0).at(10.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_short() {
        for (x, text) in [(0.0, "0"), (0.05, "0.05"), (1.5, "1.5"), (2.0, "2"), (12.34, "12.3"), (1234.5, "1234")] {
            assert_eq!(number(x), text);
        }
    }

    #[test]
    fn markup_in_names_is_text() {
        let bars = Bars {
            title: "<t>".into(),
            unit: "Mpps".into(),
            groups: vec!["64".into()],
            series: vec!["a<b".into()],
            bars: vec![vec![Some(Bar { median: 1.0, min: 0.9, max: 1.1, behind: Some(1.4) })]],
        };
        let t = bars.draw();
        assert!(t.contains("a&lt;b") && !t.contains("a<b") && t.contains("class=\"o0\""), "{t}");
        assert!(!t.contains("NaN") && !t.contains("inf"));
    }
}
