//! Settings for a data set that no preset is made for.

use super::Augment;

/// What is known of a data set before a model of it is chosen.
#[derive(Clone, Copy, Debug)]
pub struct SetShape {
    /// S: tokens a row.
    pub seq_len: usize,
    /// Training rows.
    pub examples: usize,
    /// Names of puzzle identifiers, the blank one included: 1 where a row alone says what to do with it.
    pub identifiers: usize,
    /// How its rows are varied in training.
    pub augment: Augment,
}

/// `key=value` settings over the default preset, chosen from a data set's shape.
///
/// | a row has | mixing | width | T, n | updates |
/// |---|---|---|---|---|
/// | up to 40 tokens | MLP over positions | 96 | 2, 3 | 1,100 |
/// | up to 128 | MLP over positions | 128 | 2, 4 | 2,500 |
/// | more (weights of an MLP over positions would grow with the square) | attention, rotary positions | 128 | 2, 4 | 4,000 |
///
/// Fewer than 1,000 examples are soon known by heart: their weights decay ten times as fast. Fewer than a batch make the
/// batch smaller. Evaluations come five times in a run, checkpoints ten times.
///
/// Where puzzles have identifiers (ARC), a row does not say what to do with it, and the puzzle table does, in front of the
/// row: one position, or on large boards one for every 64 tokens, about as many for their size as published. Mixing is by
/// attention whatever the size, as in `arc-small` and `arc-1`.
pub fn suggested(set: SetShape) -> Vec<String> {
    let SetShape { seq_len, examples, identifiers, augment } = set;
    let (mixing, width, calls, steps) = match seq_len {
        0..=40 => ("mlp_t", 96, 3, 1_100),
        41..=128 => ("mlp_t", 128, 4, 2_500),
        _ => ("attention", 128, 4, 4_000),
    };
    let table = identifiers > 1;
    let mixing = if table { "attention" } else { mixing };
    let mut sets = Vec::new();
    let mut add = |key: &str, value: String| sets.push(format!("{key}={value}"));
    add("mixing", mixing.into());
    add("positions", if mixing == "attention" { "rope" } else { "none" }.into());
    add("hidden_size", width.to_string());
    add("l_cycles", calls.to_string());
    add("augment", if augment == Augment::Online { "online" } else { "stored" }.into());
    add("max_steps", steps.to_string());
    add("eval_interval", (steps / 5).to_string());
    add("checkpoint_interval", (steps / 10).to_string());
    add("lr", if width > 96 || table { "1e-3" } else { "2e-3" }.into());
    add("batch_size", examples.clamp(1, 32).to_string());
    add("weight_decay", if examples < 1_000 { "1.0" } else { "0.1" }.into());
    if table {
        add("learned_prefix", "0".into());
        add("puzzle_emb_ndim", width.to_string());
        add("puzzle_emb_len", (seq_len / 64).clamp(1, 16).to_string());
        add("puzzle_emb_lr", "1e-3".into());
        add("puzzle_emb_weight_decay", "0.0".into());
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Mixing};
    use super::*;

    fn shape(seq_len: usize, examples: usize) -> SetShape {
        SetShape { seq_len, examples, identifiers: 1, augment: Augment::Stored }
    }

    #[test]
    fn every_suggestion_is_valid_and_grows_with_the_row() {
        let mut before = 0.0;
        for (seq_len, mixing) in [(1, Mixing::MlpT), (40, Mixing::MlpT), (41, Mixing::MlpT), (129, Mixing::Attention)] {
            for examples in [1, 31, 5_000] {
                let config = Config::resolve(None, None, &suggested(shape(seq_len, examples))).unwrap();
                assert_eq!(config.model.mixing, mixing, "{seq_len}");
                assert_eq!((config.model.puzzle_emb_ndim, config.data.augment), (0, Augment::Stored));
                assert!(config.train.batch_size <= examples);
                let work = (config.model.hidden_size * config.model.l_cycles) as f64;
                assert!(work >= before);
                before = work;
            }
        }
        let decay = |examples| Config::resolve(None, None, &suggested(shape(25, examples))).unwrap().train.weight_decay;
        assert!(decay(100) > decay(10_000));
    }

    #[test]
    fn puzzles_with_identifiers_get_a_table_in_front_of_attention() {
        for (seq_len, positions) in [(36, 1), (100, 1), (400, 6), (900, 14)] {
            let set = SetShape { identifiers: 29, augment: Augment::Online, ..shape(seq_len, 5_000) };
            let config = Config::resolve(None, None, &suggested(set)).unwrap();
            assert_eq!((config.model.mixing, config.data.augment), (Mixing::Attention, Augment::Online));
            assert_eq!((config.model.puzzle_emb_len, config.model.learned_prefix), (positions, 0));
            assert_eq!(config.model.puzzle_emb_ndim, config.model.hidden_size);
        }
    }
}
