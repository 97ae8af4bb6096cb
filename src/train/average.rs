//! How much of the past the weights' average keeps (specification, "EMA").

use crate::config::TrainConfig;

/// Share of the old average that update `step` (from 1) keeps.
pub fn ema_rate(config: &TrainConfig, step: u64) -> f64 {
    match config.ema_warmup {
        true => config.ema_rate.min((1.0 + step as f64) / (10.0 + step as f64)),
        false => config.ema_rate,
    }
}

/// What there is to say of a run of `total` updates whose average would remember more than the run has.
pub fn short_run_note(config: &TrainConfig, total: u64) -> Option<String> {
    let rate = config.ema_rate;
    let remembers = 1.0 / (1.0 - rate);
    if !config.ema || remembers <= total as f64 {
        return None;
    }
    let long =
        format!("the average of the weights (ema_rate = {rate}) remembers {remembers:.0} updates, the run has {total}");
    Some(match config.ema_warmup {
        true => {
            let last = 1.0 / (1.0 - ema_rate(config, total));
            format!("{long}: it is warmed up, and remembers the last {last:.0} when the run ends")
        }
        false => {
            let share = 100.0 * rate.powf(total as f64);
            format!(
                "{long}: {share:.0} % of what is evaluated and saved will be the weights it began with; set ema_warmup = true, \
                 a smaller ema_rate, or ema = false"
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(rate: f64, warmup: bool) -> TrainConfig {
        let mut config = Config::default().train;
        (config.ema_rate, config.ema_warmup) = (rate, warmup);
        config
    }

    #[test]
    fn a_warmed_up_average_forgets_its_beginning_and_ends_as_the_published_rule() {
        let warm = config(0.999, true);
        assert_eq!(ema_rate(&warm, 1), 2.0 / 11.0);
        assert!((1..20_000).all(|step| ema_rate(&warm, step) <= ema_rate(&warm, step + 1)));
        assert!(ema_rate(&warm, 8_000) < 0.999);
        assert_eq!((ema_rate(&warm, 9_000), ema_rate(&config(0.999, false), 1)), (0.999, 0.999));
        assert_eq!(ema_rate(&config(0.0, true), 5), 0.0);
        let left = |config: &TrainConfig| (1..=400).map(|step| ema_rate(config, step)).product::<f64>();
        assert!(left(&warm) < 1e-9 && left(&config(0.999, false)) > 0.6);
    }

    #[test]
    fn only_a_run_shorter_than_its_average_is_told_about() {
        assert_eq!(short_run_note(&config(0.99, true), 1_200), None);
        assert_eq!(short_run_note(&TrainConfig { ema: false, ..config(0.999, false) }, 400), None);
        let warm = short_run_note(&config(0.999, true), 400).expect("short");
        assert!(warm.contains("remembers 1000 updates, the run has 400") && warm.contains("the last 46"), "{warm}");
        let cold = short_run_note(&config(0.999, false), 400).expect("short");
        assert!(cold.contains("67 %") && cold.contains("ema_warmup = true"), "{cold}");
    }
}
