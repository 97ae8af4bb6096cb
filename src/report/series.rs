//! What a chart shows.

/// `(x, y)` pairs in order of x.
pub type Points = Vec<(f64, f64)>;

/// One line of a chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Its name in the legend; empty = not in the legend.
    pub name: String,
    /// Where it goes, in order of x.
    pub points: Points,
    /// A band around it: x, lowest, highest; may be empty.
    pub band: Vec<(f64, f64, f64)>,
    /// A thin pale line in the colour of the next series that is not faint: single seeds, unsmoothed values.
    pub faint: bool,
    /// A dot at each point.
    pub dots: bool,
}

impl Series {
    /// A plain line.
    pub fn new(name: impl Into<String>, points: Points) -> Self {
        Self { name: name.into(), points, ..Self::default() }
    }

    /// The same line, thin and pale.
    pub fn faint(mut self) -> Self {
        self.faint = true;
        self
    }

    /// The same line with a dot at each point.
    pub fn with_dots(mut self) -> Self {
        self.dots = true;
        self
    }
}
