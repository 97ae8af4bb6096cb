//! Line charts as SVG: few things, drawn large enough to be read in a README.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Series;
use super::ticks::{self, Axis};
use crate::error::{Error, Result};
use crate::files::atomic;
use crate::files::output::PICTURE_MARK;

pub(super) const SIZE: (u32, u32) = (960, 560);
pub(super) const FONT: &str = "DejaVu Sans, Helvetica, Arial, sans-serif";
pub(super) const INK: RGBColor = RGBColor(38, 43, 51);
pub(super) const FAINT: RGBColor = RGBColor(226, 229, 234);
/// Okabe and Ito's colours, told apart by everyone, darkest first.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// How an axis counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal distances are equal differences.
    #[default]
    Linear,
    /// Equal distances are equal ratios; points at 0 and below are left out.
    Log,
}

/// A chart, ready to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What the horizontal axis counts, with its unit.
    pub x_label: String,
    /// What the vertical axis counts, with its unit.
    pub y_label: String,
    /// How the horizontal axis counts.
    pub x_scale: Scale,
    /// How the vertical axis counts.
    pub y_scale: Scale,
    /// Ends of the vertical axis; `None` = what the points need.
    pub y_range: Option<(f64, f64)>,
    /// The lines.
    pub series: Vec<Series>,
    /// Dashed level lines with a word on each, e.g. a goal.
    pub levels: Vec<(f64, String)>,
}

type Plane = Cartesian2d<Axis, Axis>;

impl Chart {
    /// An empty chart with linear axes.
    pub fn new(title: impl Into<String>, x_label: impl Into<String>, y_label: impl Into<String>) -> Self {
        Self { title: title.into(), x_label: x_label.into(), y_label: y_label.into(), ..Self::default() }
    }

    /// Adds a line.
    pub fn line(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    /// Writes the chart as an SVG file.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_picture(path, &self.to_svg()?)
    }

    /// The chart as SVG text.
    pub fn to_svg(&self) -> Result<String> {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        self.draw(&root).map_err(|e| Error::input(format!("chart {:?}: {e}", self.title)))?;
        drop(root);
        Ok(svg)
    }

    fn draw(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let bands = || self.series.iter().flat_map(|s| &s.band);
        let xs = points().map(|p| p.0).chain(bands().map(|b| b.0));
        let x = ticks::axis(self.x_scale, xs, None, false);
        let levels = self.levels.iter().map(|l| l.0);
        let ys = points().map(|p| p.1).chain(bands().flat_map(|b| [b.1, b.2])).chain(levels);
        let y = ticks::axis(self.y_scale, ys, self.y_range, true);

        root.fill(&WHITE)?;
        let text = |size: u32, colour: RGBColor| (FONT, size).into_font().color(&colour);
        root.draw(&Text::new(self.title.clone(), (24, 18), text(24, INK)))?;
        let top = 58 + self.legend(root)?;
        let area = root.margin(top, 16, 12, 36);
        let mut chart = ChartBuilder::on(&area)
            .x_label_area_size(62)
            .y_label_area_size(92)
            .build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .axis_style(ShapeStyle::from(&INK).stroke_width(1))
            .bold_line_style(ShapeStyle::from(&FAINT).stroke_width(1))
            .light_line_style(TRANSPARENT)
            .label_style(text(16, INK))
            .axis_desc_style(text(17, INK))
            .x_desc(self.x_label.as_str())
            .y_desc(self.y_label.as_str())
            .x_labels(x.ticks.len())
            .y_labels(y.ticks.len())
            .draw()?;
        self.draw_levels(&mut chart, &x, &y)?;
        let place = |&(px, py): &(f64, f64)| Some((x.place(px)?, y.place_clamped(py)?));
        for (series, colour) in self.coloured() {
            if !series.band.is_empty() {
                let upper = series.band.iter().filter_map(|b| place(&(b.0, b.2)));
                let lower = series.band.iter().rev().filter_map(|b| place(&(b.0, b.1)));
                let outline: Vec<_> = upper.chain(lower).collect();
                chart.draw_series([Polygon::new(outline, colour.mix(0.18).filled())])?;
            }
        }
        for (series, colour) in self.coloured() {
            let (opacity, width) = if series.faint { (0.35, 1) } else { (1.0, 3) };
            let style = ShapeStyle { color: colour.mix(opacity), filled: true, stroke_width: width };
            let line: Vec<_> = series.points.iter().filter_map(place).collect();
            if series.dots || line.len() == 1 {
                chart.draw_series(line.iter().map(|&p| Circle::new(p, 4, style)))?;
            }
            chart.draw_series(LineSeries::new(line, style))?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_levels(
        &self,
        chart: &mut ChartContext<'_, SVGBackend<'_>, Plane>,
        x: &Axis,
        y: &Axis,
    ) -> Result<(), Box<dyn std::error::Error>> {
        for (level, word) in &self.levels {
            let Some(at) = y.place(*level) else { continue };
            let dashed =
                DashedLineSeries::new([(x.low, at), (x.high, at)], 7, 5, ShapeStyle::from(&INK).stroke_width(1));
            chart.draw_series(dashed)?;
            let style = (FONT, 15).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Bottom));
            let end = x.low + 0.012 * (x.high - x.low);
            chart.draw_series([EmptyElement::at((end, at)) + Text::new(word.clone(), (0, -4), style)])?;
        }
        Ok(())
    }

    /// Series with their colours; a faint one shares that of the next that is not.
    fn coloured(&self) -> impl Iterator<Item = (&Series, RGBColor)> {
        let mut next = 0;
        self.series.iter().map(move |series| {
            let colour = COLOURS[next % COLOURS.len()];
            next += usize::from(!series.faint);
            (series, colour)
        })
    }

    /// Draws the legend as rows under the title, where it hides nothing, and returns its height.
    fn legend(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<i32, Box<dyn std::error::Error>> {
        let named: Vec<_> = self.coloured().filter(|(s, _)| !s.name.is_empty()).collect();
        let (left, right, row) = (26, SIZE.0 as i32 - 24, 24);
        let (mut x, mut y) = (left, 66);
        for (series, colour) in &named {
            let width = 40 + (series.name.chars().count() as f64 * 16.0 * 0.58) as i32 + 24;
            if x + width > right && x > left {
                (x, y) = (left, y + row);
            }
            let (opacity, stroke) = if series.faint { (0.35, 1) } else { (1.0, 3) };
            let style = ShapeStyle { color: colour.mix(opacity), filled: true, stroke_width: stroke };
            root.draw(&PathElement::new([(x, y), (x + 30, y)], style))?;
            let text = (FONT, 16).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(series.name.clone(), (x + 38, y), text))?;
            x += width;
        }
        Ok(if named.is_empty() { 0 } else { y - 66 + row + 12 })
    }
}

/// Writes a picture with the mark by which it is known as ours.
pub(super) fn write_picture(path: &Path, svg: &str) -> Result<()> {
    atomic::write_bytes(path, format!("{PICTURE_MARK}\n{svg}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_holds_its_words_and_a_line_per_series() {
        let wave: Vec<_> = (1..50).map(|i| (f64::from(i), f64::from(i).sin())).collect();
        let mut chart = Chart::new("A title", "steps", "loss").line(Series::new("first <&>", wave.clone()));
        chart = chart.line(Series::new("", wave.clone()).faint()).line(Series::new("second", wave).with_dots());
        chart.levels.push((0.5, "goal".to_owned()));
        for scale in [Scale::Linear, Scale::Log] {
            (chart.x_scale, chart.y_scale) = (scale, scale);
            let svg = chart.to_svg().expect("draws");
            for word in ["A title", "steps", "loss", "first &lt;&amp;&gt;", "second", "goal"] {
                assert!(svg.contains(word), "{word}");
            }
            assert!(svg.trim_end().ends_with("</svg>"));
        }
    }

    #[test]
    fn charts_of_nothing_and_of_nonsense_still_draw() {
        let cases: [Vec<(f64, f64)>; 5] = [
            vec![],
            vec![(1.0, 1.0)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(f64::NAN, 1.0), (1.0, f64::INFINITY), (2.0, -1.0)],
            vec![(1e-300, 1e300), (1e300, -1e300)],
        ];
        for points in cases {
            for scale in [Scale::Linear, Scale::Log] {
                let mut chart = Chart::new("t", "x", "y").line(Series::new("s", points.clone()));
                (chart.x_scale, chart.y_scale) = (scale, scale);
                chart.to_svg().expect("draws");
            }
        }
    }

    #[test]
    fn equal_charts_give_equal_bytes() {
        let chart = Chart::new("t", "x", "y").line(Series::new("s", vec![(0.0, 1.0), (2.0, 3.0)]));
        assert_eq!(chart.to_svg().expect("draws"), chart.clone().to_svg().expect("draws"));
    }
}
