//! Bar charts as SVG: a few figures of the same kind, each group with a scale of its own.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::plot::{COLOURS, FAINT, FONT, INK, SIZE, write_picture};
use crate::error::{Error, Result};

/// A chart of horizontal bars, ready to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BarChart {
    /// What it shows.
    pub title: String,
    /// One above the other.
    pub groups: Vec<BarGroup>,
}

/// Bars that are compared with each other: they begin at 0, and the longest takes all the room there is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BarGroup {
    /// What its bars have in common.
    pub name: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// A bar.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bar {
    /// What stands in front of it.
    pub label: String,
    /// Its length; what is not a positive number has none.
    pub value: f64,
    /// What stands behind it.
    pub text: String,
}

/// Pixels: the edge, a letter, and heights of the title, of a group's name, of a bar with the space below it.
const EDGE: i32 = 24;
const LETTER: i32 = 9;
const TITLE: i32 = 64;
const NAME: i32 = 30;
const BAR: i32 = 26;
const STEP: i32 = 36;

impl BarChart {
    /// Writes the chart as an SVG file.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_picture(path, &self.to_svg()?)
    }

    /// The chart as SVG text.
    pub fn to_svg(&self) -> Result<String> {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, (SIZE.0, self.height() as u32)).into_drawing_area();
        self.draw(&root).map_err(|e| Error::input(format!("chart {:?}: {e}", self.title)))?;
        drop(root);
        Ok(svg)
    }

    fn height(&self) -> i32 {
        TITLE + EDGE + self.groups.iter().map(|group| NAME + STEP * group.bars.len() as i32).sum::<i32>()
    }

    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    fn draw(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let style = |size: u32, at: HPos| (FONT, size).into_font().color(&INK).pos(Pos::new(at, VPos::Center));
        let width = |text: &String| text.chars().count() as i32 * LETTER;
        let left = EDGE + self.bars().map(|bar| width(&bar.label)).max().unwrap_or(0) + LETTER;
        let right = SIZE.0 as i32 - EDGE - LETTER - self.bars().map(|bar| width(&bar.text)).max().unwrap_or(0);
        let right = right.max(left + 1);
        root.fill(&WHITE)?;
        root.draw(&Text::new(self.title.clone(), (EDGE, TITLE / 2), style(24, HPos::Left)))?;
        let mut y = TITLE;
        for group in &self.groups {
            root.draw(&Text::new(group.name.clone(), (EDGE, y + NAME / 2), style(17, HPos::Left)))?;
            y += NAME;
            let longest = group.bars.iter().map(|bar| bar.value).filter(|value| value.is_finite()).fold(0.0, f64::max);
            for (bar, colour) in group.bars.iter().zip(COLOURS.iter().cycle()) {
                let share = if bar.value > 0.0 && longest > 0.0 { (bar.value / longest).min(1.0) } else { 0.0 };
                let end = left + (share * f64::from(right - left)).round() as i32;
                root.draw(&Rectangle::new([(left, y), (right, y + BAR)], FAINT.mix(0.5).filled()))?;
                root.draw(&Rectangle::new([(left, y), (end, y + BAR)], colour.filled()))?;
                let middle = y + BAR / 2;
                root.draw(&Text::new(bar.label.clone(), (left - LETTER, middle), style(16, HPos::Right)))?;
                root.draw(&Text::new(bar.text.clone(), (right + LETTER, middle), style(16, HPos::Left)))?;
                y += STEP;
            }
        }
        root.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> BarChart {
        let bar =
            |(i, &value): (usize, &f64)| Bar { label: format!("bar {i}"), value, text: format!("{value} <units>") };
        let group = |name: &str| BarGroup { name: name.into(), bars: values.iter().enumerate().map(bar).collect() };
        BarChart { title: "A title".into(), groups: vec![group("first"), group("second")] }
    }

    #[test]
    fn a_chart_holds_its_words_and_a_bar_is_as_long_as_its_value() {
        let svg = chart(&[1.0, 4.0]).to_svg().expect("draws");
        for word in ["A title", "first", "second", "bar 0", "bar 1", "4 &lt;units&gt;"] {
            assert!(svg.contains(word), "{word}");
        }
        // Both groups have the same bars, each on a pale one of full length.
        let coloured = |colour: &str| -> Vec<f64> {
            let lines = svg.lines().filter(|line| line.contains("<rect") && line.contains(colour));
            lines
                .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
                .collect()
        };
        let (short, long) = (coloured("#0072B2"), coloured("#D55E00"));
        assert_eq!((short.len(), long.len()), (2, 2), "{svg}");
        assert!((4.0 * short[0] / long[0] - 1.0).abs() < 0.01, "{short:?} {long:?}");
    }

    #[test]
    fn charts_of_nothing_and_of_nonsense_still_draw() {
        for values in [&[][..], &[0.0], &[f64::NAN, f64::INFINITY, -1.0], &[1e-300, 1e300]] {
            assert!(chart(values).to_svg().expect("draws").trim_end().ends_with("</svg>"));
        }
        BarChart::default().to_svg().expect("draws");
    }
}
