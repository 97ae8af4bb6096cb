//! Axes: where the ticks go and what they say.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use super::Scale;

/// An axis in drawing coordinates: the value, or its decimal logarithm.
#[derive(Clone)]
pub(super) struct Axis {
    scale: Scale,
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    step: f64,
}

impl Axis {
    /// Where a value goes; `None` when it has no place (not finite, or not positive on a logarithmic axis).
    pub fn place(&self, value: f64) -> Option<f64> {
        place(self.scale, value)
    }

    /// The same, held inside the axis.
    pub fn place_clamped(&self, value: f64) -> Option<f64> {
        Some(self.place(value)?.clamp(self.low, self.high))
    }

    /// What the tick at the drawing coordinate `at` says.
    pub fn label(&self, at: f64) -> String {
        match self.scale {
            Scale::Linear => plain(at, self.step),
            Scale::Log => power(10f64.powf(at)),
        }
    }
}

/// The axis for `values` (or the given range); `margin` leaves some air at the ends.
pub(super) fn axis(scale: Scale, values: impl Iterator<Item = f64>, range: Option<(f64, f64)>, margin: bool) -> Axis {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter_map(|v| place(scale, v)) {
        (low, high) = (low.min(value), high.max(value));
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    if high - low <= 1e-9 * low.abs().max(high.abs()) {
        let half = if low == 0.0 { 0.5 } else { (0.1 * low.abs()).max(1e-12) };
        (low, high) = (low - half, high + half);
    } else if margin {
        let air = 0.05 * (high - low);
        // Zero is a wall for quantities that are never negative.
        (low, high) = (if scale == Scale::Linear && low >= 0.0 { (low - air).max(0.0) } else { low - air }, high + air);
    }
    if scale == Scale::Linear && low > 0.0 && low < 0.15 * high {
        low = 0.0;
    }
    if let Some((a, b)) = range
        && let (Some(a), Some(b)) = (place(scale, a), place(scale, b))
        && a < b
    {
        (low, high) = (a, b);
    }
    let (ticks, step) = match scale {
        Scale::Linear => linear_ticks(low, high),
        Scale::Log => log_ticks(low, high),
    };
    Axis { scale, low, high, ticks, step }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        pixels.0 + (f64::from(pixels.1 - pixels.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, at: &f64) -> String {
        self.label(*at)
    }
}

fn place(scale: Scale, value: f64) -> Option<f64> {
    let at = match scale {
        Scale::Linear => value,
        Scale::Log if value > 0.0 => value.log10(),
        Scale::Log => return None,
    };
    // Beyond this a difference of two ends would no longer be a number.
    at.is_finite().then_some(at.clamp(-1e300, 1e300))
}

/// Five to ten ticks at 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64) -> (Vec<f64>, f64) {
    let raw = (high - low) / 7.0;
    let base = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * base).find(|s| *s >= raw).unwrap_or(10.0 * base);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let count = (last - first).clamp(0.0, 20.0) as usize;
    ((0..=count).map(|i| (first + i as f64) * step).collect(), step)
}

/// Powers of ten; with 2 and 5 between them on a short axis, every few on a long one.
fn log_ticks(low: f64, high: f64) -> (Vec<f64>, f64) {
    let decades = high - low;
    let every = (decades / 8.0).ceil().max(1.0);
    let marks: &[f64] = match decades {
        d if d < 1.2 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        d if d < 3.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let mut ticks = Vec::new();
    let mut decade = (low / every).floor() * every;
    while decade <= high && ticks.len() < 64 {
        ticks.extend(marks.iter().map(|m| decade + m.log10()).filter(|t| (low - 1e-9..=high + 1e-9).contains(t)));
        decade += every;
    }
    if ticks.len() < 2 { linear_ticks(low, high) } else { (ticks, every) }
}

/// A number with as many decimals as its step needs, in thousands groups.
fn plain(value: f64, step: f64) -> String {
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    if value.abs() >= 1e7 || (value != 0.0 && step < 1e-5) {
        return power(value);
    }
    let decimals = (-step.log10() + 1e-9).ceil().clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let digits = whole.trim_start_matches('-');
    let mut grouped = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) && digits.len() > 3 {
            grouped.push(',');
        }
        grouped.push(c);
    }
    format!("{}{grouped}{rest}", if whole.starts_with('-') { "−" } else { "" })
}

/// A number as `2×10¹²`, or plainly where that is short.
fn power(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let mut exponent = value.abs().log10().floor();
    let mut mantissa = (value / 10f64.powf(exponent) * 100.0).round() / 100.0;
    if mantissa.abs() >= 10.0 {
        (mantissa, exponent) = (mantissa / 10.0, exponent + 1.0);
    }
    if (-3.0..5.0).contains(&exponent) {
        let rounded = mantissa * 10f64.powf(exponent);
        let decimals = (2.0 - exponent).max(0.0) as usize;
        let text = format!("{rounded:.decimals$}");
        return if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    }
    let raised: String = format!("{exponent}").chars().map(raise).collect();
    if mantissa == 1.0 { format!("10{raised}") } else { format!("{mantissa}×10{raised}") }
}

fn raise(c: char) -> char {
    match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4'..='9' => char::from_u32('⁴' as u32 + c as u32 - '4' as u32).unwrap_or(c),
        _ => '⁰',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_say_so() {
        let labels = |scale, low, high| {
            let axis = axis(scale, [low, high].into_iter(), None, false);
            axis.ticks.iter().map(|t| axis.label(*t)).collect::<Vec<_>>()
        };
        assert_eq!(labels(Scale::Linear, 0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(Scale::Linear, 0.0, 1100.0), ["0", "200", "400", "600", "800", "1,000"]);
        assert_eq!(labels(Scale::Linear, -0.1, 0.1)[0], "−0.10");
        assert_eq!(labels(Scale::Log, 1e11, 1e13), ["10¹¹", "2×10¹¹", "5×10¹¹", "10¹²", "2×10¹²", "5×10¹²", "10¹³"]);
        assert_eq!(labels(Scale::Log, 0.1, 100.0), ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]);
    }
}
