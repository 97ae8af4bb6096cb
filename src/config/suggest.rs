//! Settings for a data set that no preset is made for.

/// `key=value` settings over the default preset, chosen from the size of a data set: `seq_len` tokens a row, `examples`
/// training rows, with symmetries to draw from or not.
///
/// | a row has | mixing | width | T, n | updates |
/// |---|---|---|---|---|
/// | up to 40 tokens | MLP over positions | 96 | 2, 3 | 1,100 |
/// | up to 128 | MLP over positions | 128 | 2, 4 | 2,500 |
/// | more (weights of an MLP over positions would grow with the square) | attention, rotary positions | 128 | 2, 4 | 4,000 |
///
/// Fewer than 1,000 examples are soon known by heart: their weights decay ten times as fast. Fewer than a batch make the
/// batch smaller. Evaluations come five times in a run, checkpoints ten times.
pub fn suggested(seq_len: usize, examples: usize, symmetries: bool) -> Vec<String> {
    let (mixing, width, calls, steps) = match seq_len {
        0..=40 => ("mlp_t", 96, 3, 1_100),
        41..=128 => ("mlp_t", 128, 4, 2_500),
        _ => ("attention", 128, 4, 4_000),
    };
    let mut sets = Vec::new();
    let mut add = |key: &str, value: String| sets.push(format!("{key}={value}"));
    add("mixing", mixing.into());
    add("positions", if mixing == "attention" { "rope" } else { "none" }.into());
    add("hidden_size", width.to_string());
    add("l_cycles", calls.to_string());
    add("augment", if symmetries { "online" } else { "stored" }.into());
    add("max_steps", steps.to_string());
    add("eval_interval", (steps / 5).to_string());
    add("checkpoint_interval", (steps / 10).to_string());
    add("lr", if width > 96 { "1e-3" } else { "2e-3" }.into());
    add("batch_size", examples.clamp(1, 32).to_string());
    add("weight_decay", if examples < 1_000 { "1.0" } else { "0.1" }.into());
    sets
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Mixing};
    use super::*;

    #[test]
    fn every_suggestion_is_valid_and_grows_with_the_row() {
        let mut before = 0.0;
        for (seq_len, mixing) in [(1, Mixing::MlpT), (40, Mixing::MlpT), (41, Mixing::MlpT), (129, Mixing::Attention)] {
            for examples in [1, 31, 5_000] {
                let config = Config::resolve(None, None, &suggested(seq_len, examples, false)).unwrap();
                assert_eq!(config.model.mixing, mixing, "{seq_len}");
                assert!(config.train.batch_size <= examples);
                let work = (config.model.hidden_size * config.model.l_cycles) as f64;
                assert!(work >= before);
                before = work;
            }
        }
        let decay = |examples| Config::resolve(None, None, &suggested(25, examples, true)).unwrap().train.weight_decay;
        assert!(decay(100) > decay(10_000));
    }
}
