//! The little statistics that reports need.

use super::{Points, Series};

/// Wilson's 95 % interval of the proportion `p` of `n` independent trials. Without trials, nothing is known: `(0, 1)`.
pub fn wilson_95(p: f64, n: f64) -> (f64, f64) {
    if n < 1.0 {
        return (0.0, 1.0);
    }
    let z = 1.959_963_984_540_054;
    let centre = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

/// Each value replaced by the mean of the `window` values around it (fewer at the ends).
pub fn smoothed(points: &[(f64, f64)], window: usize) -> Points {
    let half = window / 2;
    let mean = |i: usize| {
        let half = half.min(i).min(points.len() - 1 - i);
        let near = &points[i - half..=i + half];
        near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64
    };
    points.iter().enumerate().map(|(i, p)| (p.0, mean(i))).collect()
}

/// Several runs as one series: the median at every x any of them has, and the lowest and highest as its band. A run is
/// interpolated between its points, and counts only between its first and its last.
pub fn median_and_spread(name: impl Into<String>, runs: &[Points]) -> Series {
    let mut xs: Vec<f64> = runs.iter().flatten().map(|p| p.0).filter(|x| x.is_finite()).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let mut series = Series::new(name, Vec::new());
    for x in xs {
        let mut ys: Vec<f64> = runs.iter().filter_map(|run| at(run, x)).collect();
        ys.sort_by(f64::total_cmp);
        let (Some(&low), Some(&high)) = (ys.first(), ys.last()) else { continue };
        // Where part of the runs has not begun or has ended, their median would jump.
        if 2 * ys.len() <= runs.len() {
            continue;
        }
        series.points.push((x, (ys[(ys.len() - 1) / 2] + ys[ys.len() / 2]) / 2.0));
        series.band.push((x, low, high));
    }
    series
}

/// The run's value at `x`, by linear interpolation; its points must be in order of x.
fn at(run: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = run.partition_point(|p| p.0 < x);
    let right = run.get(after)?;
    if right.0 == x {
        return Some(right.1);
    }
    let left = run.get(after.checked_sub(1)?)?;
    Some(left.1 + (right.1 - left.1) * (x - left.0) / (right.0 - left.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_published_values() {
        let near = |(a, b): (f64, f64), c: f64, d: f64| (a - c).abs() < 5e-4 && (b - d).abs() < 5e-4;
        for (right, n, low, high) in
            [(81.0, 263.0, 0.2553, 0.3662), (0.0, 20.0, 0.0, 0.1611), (500.0, 500.0, 0.9924, 1.0)]
        {
            assert!(near(wilson_95(right / n, n), low, high), "{:?}", wilson_95(right / n, n));
        }
        assert_eq!(wilson_95(f64::NAN, 0.0), (0.0, 1.0));
    }

    #[test]
    fn median_and_spread_interpolate_between_a_runs_points() {
        let runs =
            [vec![(0.0, 0.0), (2.0, 2.0)], vec![(0.0, 1.0), (1.0, 1.0), (2.0, 4.0)], vec![(0.0, 5.0), (2.0, 5.0)]];
        let series = median_and_spread("m", &runs);
        assert_eq!(series.points, [(0.0, 1.0), (1.0, 1.0), (2.0, 4.0)]);
        assert_eq!(series.band, [(0.0, 0.0, 5.0), (1.0, 1.0, 5.0), (2.0, 2.0, 5.0)]);
        assert!(median_and_spread("none", &[]).points.is_empty());
    }

    #[test]
    fn smoothing_keeps_straight_lines() {
        let line: Vec<_> = (0..10).map(|i| (f64::from(i), 3.0 * f64::from(i))).collect();
        assert_eq!(smoothed(&line, 5), line);
        assert!(smoothed(&[], 5).is_empty());
    }
}
