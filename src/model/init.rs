//! Initial weights (specification, "Initialisation").

use super::Model;
use crate::device::{Device, Formats, ParamId, Params, Real};
use crate::rng::Rng;

/// Standard deviation of a unit normal cut at ±2: what a cut draw is divided by to have unit deviation.
const CUT_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// Bias of the halting head: a fresh model is almost sure that it is not done.
const Q_BIAS: f64 = -5.0;

/// A normal draw cut at ±2σ whose resulting standard deviation is `deviation`.
pub fn truncated_normal(rng: &mut Rng, deviation: f64) -> f64 {
    loop {
        let draw = rng.normal();
        if draw.abs() <= 2.0 {
            return draw / CUT_DEVIATION * deviation;
        }
    }
}

/// Fresh weights from a seed. Every tensor has its own random stream.
pub fn initialize<D: Device>(model: &Model, seed: u64, formats: impl Into<Formats>) -> Params<D> {
    let mut params = Params::with_formats(model.layout.clone(), formats);
    let embedding = &model.embedding;
    let unit = |id: ParamId| model.starts.contains(&id) || embedding.learned_prefix == Some(id);
    let table = |id: ParamId| embedding.tokens == id || embedding.positions == Some(id);
    params.update(|values| {
        for (id, tensor) in model.layout.ids().zip(model.layout.tensors()) {
            let values = &mut values[tensor.range()];
            if id == model.heads.q_bias {
                values.fill(D::T::from_f64(Q_BIAS));
            } else if id != model.heads.q_weight {
                let deviation = match id {
                    id if unit(id) => 1.0,
                    id if table(id) => 1.0 / (model.hidden as f64).sqrt(),
                    _ => 1.0 / (tensor.cols as f64).sqrt(),
                };
                let mut rng = Rng::stream(seed, id.index() as u64);
                values.fill_with(|| D::T::from_f64(truncated_normal(&mut rng, deviation)));
            }
        }
    });
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_is_compensated() {
        let mut rng = Rng::new(3);
        let n = 200_000;
        let variance = (0..n).map(|_| truncated_normal(&mut rng, 0.5).powi(2)).sum::<f64>() / f64::from(n);
        assert!((variance.sqrt() - 0.5).abs() < 2e-3, "{}", variance.sqrt());
    }
}
