//! Warm-up and cosine decay (specification, "Optimizers, schedule, EMA").

use crate::config::TrainConfig;

/// Factor on the learning rates of update `step` (from 1) out of `total`.
pub fn learning_rate_factor(config: &TrainConfig, step: u64, total: u64) -> f64 {
    let warmup = config.lr_warmup_steps;
    if step < warmup {
        return step as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / total.saturating_sub(warmup).max(1) as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos());
    config.lr_min_ratio + (1.0 - config.lr_min_ratio) * cosine
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn warms_up_linearly_and_ends_at_the_minimum() {
        let mut config = Config::preset("sudoku-6x6").unwrap().train;
        config.lr_warmup_steps = 10;
        config.lr_min_ratio = 0.1;
        let factor = |step| learning_rate_factor(&config, step, 110);
        assert_eq!(factor(5), 0.5);
        assert_eq!(factor(10), 1.0);
        assert!((factor(60) - 0.55).abs() < 1e-12);
        assert!((factor(110) - 0.1).abs() < 1e-12);
    }
}
