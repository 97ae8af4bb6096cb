//! Whether two devices compute the same: the first updates of a run on each, side by side.

use serde::Serialize;

/// What some updates came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trajectory {
    /// Loss of each update, summed over the batch.
    pub losses: Vec<f64>,
    /// Norm of the gradient in each update.
    pub grad_norms: Vec<f64>,
    /// The dense weights before the first update, in flat order.
    #[serde(skip)]
    pub start: Vec<f64>,
    /// The dense weights after the last one.
    #[serde(skip)]
    pub weights: Vec<f64>,
}

/// How far the same updates came apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// `|b − a| / |a|` of the losses, update by update.
    pub losses: Vec<f64>,
    /// The same of the norms of the gradient.
    pub grad_norms: Vec<f64>,
    /// `‖b − a‖ / ‖a − a₀‖` of the weights: their distance, relative to the way they have come.
    pub weights: f64,
}

impl Trajectory {
    /// How far `other` is from this one, which began at the same weights.
    pub fn agreement(&self, other: &Self) -> Agreement {
        let each = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| share((b - a).abs(), a.abs())).collect();
        Agreement {
            losses: each(&self.losses, &other.losses),
            grad_norms: each(&self.grad_norms, &other.grad_norms),
            weights: share(distance(&self.weights, &other.weights), distance(&self.weights, &self.start)),
        }
    }
}

/// A difference relative to something; none is none of nothing too.
fn share(difference: f64, of: f64) -> f64 {
    if difference == 0.0 { 0.0 } else { difference / of }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "weights of the same model");
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_first_and_weights_to_the_way_they_have_come() {
        let a = Trajectory {
            losses: vec![2.0, 4.0],
            grad_norms: vec![0.0, 1.0],
            start: vec![1.0, 1.0],
            weights: vec![4.0, 5.0],
        };
        let b = Trajectory { losses: vec![2.0, 3.0], grad_norms: vec![0.0, 1.5], weights: vec![4.0, 5.5], ..a.clone() };
        let expected = Agreement { losses: vec![0.0, 0.25], grad_norms: vec![0.0, 0.5], weights: 0.1 };
        assert_eq!(a.agreement(&b), expected);
        assert_eq!(a.agreement(&a).weights, 0.0);
    }
}
