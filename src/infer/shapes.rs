//! Settings that the names and shapes of stored weights suggest, for weights that come without.
//!
//! Shapes say how wide and deep a network is, how it mixes and what it puts before the tokens. They do not say how often it is
//! applied, how many heads it has, or (with rotary positions) how long a row is: there the published settings of the puzzle
//! hold, and each such guess is said.

use std::collections::BTreeMap;

use crate::checkpoint::weights::check_shapes;
use crate::config::Config;
use crate::engine::puzzle_table;
use crate::error::{Error, Result};
use crate::model::{Model, inner_width};
use crate::puzzle::{Description, grid};

/// Multiples that inner widths are rounded up to, the published one first.
const MULTIPLES: [usize; 9] = [256, 128, 64, 32, 16, 8, 4, 2, 1];
/// Published: SwiGLU expansion, heads, puzzle positions.
const EXPANSION: f64 = 4.0;
const HEADS: usize = 8;
const PUZZLE_POSITIONS: usize = 16;

/// Names and shapes of tensors.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// The settings of a model with tensors of these shapes, with `sets` on top, and what of them is a guess. `at` names the
/// weights in errors.
///
/// # Errors
/// When the shapes are no model's that settings can describe, or leave open what only `sets` could say.
pub fn settings_of(at: &str, shapes: &Shapes, sets: &[String]) -> Result<(Config, Vec<String>)> {
    let Suggestion { preset, sets: suggested, guesses } =
        suggest(shapes, said(sets, "seq_len")).map_err(|what| Error::input(format!("{at}: {what}")))?;
    let config = Config::resolve(Some(preset), None, &[suggested, sets.to_vec()].concat())?;
    check_against(at, shapes, &config)?;
    Ok((config, guesses))
}

/// Whether tensors of these shapes are exactly those of the settings' model.
///
/// # Errors
/// Names the first that is missing, not part of the model, or of another shape.
pub fn check_against(at: &str, shapes: &Shapes, config: &Config) -> Result<()> {
    let model = Model::new(&config.model, &config.task);
    let mut expected: Vec<_> = model.layout.tensors().iter().map(|t| (t.name.clone(), t.shape())).collect();
    if config.model.puzzle_emb_ndim > 0 {
        let shape = vec![config.task.num_puzzle_identifiers, config.model.puzzle_emb_ndim];
        expected.push((puzzle_table::NAME.to_owned(), shape));
    }
    check_shapes(at, shapes, &expected)
}

/// The value of a setting that is a whole number, where `sets` says it.
fn said(sets: &[String], key: &str) -> Option<usize> {
    let value = |set: &String| {
        let (name, value) = set.split_once('=')?;
        (name.trim().rsplit('.').next()? == key).then(|| value.trim().parse().ok()).flatten()
    };
    sets.iter().rev().find_map(value)
}

struct Suggestion {
    preset: &'static str,
    sets: Vec<String>,
    guesses: Vec<String>,
}

/// What the shapes say, over the published preset that is closest.
fn suggest(shapes: &Shapes, seq_len: Option<usize>) -> Result<Suggestion, String> {
    let matrix = |name: &str| match shapes.get(name).map(Vec::as_slice) {
        Some(&[rows, columns]) => Some((rows, columns)),
        _ => None,
    };
    let embedding = "inner.embed_tokens.embedding_weight";
    let (vocab, hidden) = matrix(embedding).filter(|&(vocab, hidden)| vocab > 0 && hidden > 0).ok_or_else(|| {
        format!(
            "no matrix `{embedding}` [vocabulary, width]: these are no weights of such a model, or have other names"
        )
    })?;
    let mut sets = vec![format!("vocab_size={vocab}"), format!("hidden_size={hidden}")];
    let mut guesses = Vec::new();

    let layers = |net: &str| (0..).take_while(|i| has_layer(shapes, net, *i)).count();
    let (low, high) = (layers("L_level"), layers("H_level"));
    let arch = arch_of(shapes, low, high)?;
    sets.extend([format!("arch={arch}"), format!("n_layers={}", low.max(high))]);
    if arch == "hrm" {
        guesses.push(
            "two networks: HRM's (arch = \"hrm\"); of a TRM with two, say --set arch=trm --set separate_nets=true"
                .into(),
        );
        sets.push(format!("h_layers={}", if high == low { 0 } else { high }));
        sets.push(format!("l_layers={}", if high == low { 0 } else { low }));
    }

    let first = format!("inner.{}_level.layers.0.", if low > 0 { "L" } else { "H" });
    let over_positions = matrix(&format!("{first}mlp_t.down_proj.weight"));
    let learned = matrix("inner.embed_pos.embedding_weight");
    let is_attention = over_positions.is_none();
    sets.push(format!("mixing={}", if is_attention { "attention" } else { "mlp_t" }));
    sets.push(format!(
        "positions={}",
        match learned {
            Some(_) => "learned",
            None if is_attention => "rope",
            None => "none",
        }
    ));
    if learned.is_none() && is_attention {
        guesses.push("positions = \"rope\": attention without a table of positions".into());
    }

    let (table, prefix) =
        (matrix(puzzle_table::NAME), matrix("inner.prefix.weight").map_or(0, |(positions, _)| positions));
    let (identifiers, ndim) = table.unwrap_or((1, 0));
    sets.extend([
        format!("num_puzzle_identifiers={identifiers}"),
        format!("puzzle_emb_ndim={ndim}"),
        format!("learned_prefix={prefix}"),
    ]);
    let fitting = ndim.div_ceil(hidden);
    // HRM and the baselines that are published with it take as many positions as a row fills.
    let fits = matches!(arch, "hrm" | "transformer" | "direct");
    let prefixes = match () {
        () if ndim == 0 => vec![prefix],
        () if fits => vec![fitting],
        () if PUZZLE_POSITIONS >= fitting => vec![PUZZLE_POSITIONS, fitting],
        () => vec![fitting],
    };
    let len = over_positions.map(|(width, _)| width).or(learned.map(|(len, _)| len));
    let (seq_len, positions) = row(vocab, len, &prefixes, seq_len)?;
    if ndim > 0 {
        sets.push(format!("puzzle_emb_len={}", if fits { 0 } else { positions }));
        guesses.push(format!("{positions} puzzle positions before {seq_len} tokens"));
    } else {
        sets.push("puzzle_emb_len=0".into());
        if len.is_none() {
            guesses.push(format!("{seq_len} tokens a row"));
        }
    }
    let puzzle = Description::infer(seq_len, vocab).kind;
    sets.extend([format!("seq_len={seq_len}"), format!("puzzle={puzzle}"), "width=0".into(), "symbols=".into()]);

    let experts = matrix(&format!("{first}mlp.router.weight")).map_or(0, |(experts, _)| experts);
    let own = if experts > 0 { "mlp.experts.0." } else { "mlp." };
    sets.push(format!("experts={experts}"));
    if experts > 0 {
        sets.push(format!("experts_per_token={}", experts.min(2)));
        guesses.push(format!("{} experts for each position", experts.min(2)));
    }
    sets.push(format!("tied_embeddings={}", !shapes.contains_key("inner.lm_head.weight")));
    let mut widths: Vec<(usize, usize)> = matrix(&format!("{first}{own}down_proj.weight")).into_iter().collect();
    widths.extend(over_positions);
    sets.extend(inner(&widths));
    let heads = (1..=HEADS).rev().find(|heads| hidden.is_multiple_of(*heads)).unwrap_or(1);
    sets.push(format!("n_heads={heads}"));
    if is_attention {
        guesses.push(format!("{heads} heads"));
    }
    let preset = preset_for(arch, &puzzle, seq_len, is_attention);
    guesses.push(format!("cycles, supervision steps and training as in the preset {preset}"));
    Ok(Suggestion { preset, sets, guesses })
}

fn has_layer(shapes: &Shapes, net: &str, layer: usize) -> bool {
    let start = format!("inner.{net}.layers.{layer}.");
    shapes.range(start.clone()..).next().is_some_and(|(name, _)| name.starts_with(&start))
}

/// The recursion whose networks have so many layers, and whose states have these start vectors.
fn arch_of(shapes: &Shapes, low: usize, high: usize) -> Result<&'static str, String> {
    let states: Vec<&str> =
        shapes.keys().filter_map(|name| name.strip_prefix("inner.")?.strip_suffix("_init")).collect();
    match (low > 0, high > 0, &states[..]) {
        (true, true, ["H", "L"]) => Ok("hrm"),
        (true, false, ["H", "L"]) => Ok("trm"),
        (true, false, ["L"]) => Ok("singlez"),
        (true, false, ["H"]) => Ok("direct"),
        (true, false, ["H", "L1", "L2", "L3", "L4", "L5", "L6"]) => Ok("hier6"),
        (false, true, ["H"]) => Ok("transformer"),
        _ => Err(format!(
            "start vectors of the states {states:?}, {low} layers of L_level and {high} of H_level: no known recursion has \
             these; give its settings with --config"
        )),
    }
}

/// S, and the positions before the tokens: of L where shapes say that, else as long as a row of that vocabulary is.
fn row(vocab: usize, len: Option<usize>, prefixes: &[usize], said: Option<usize>) -> Result<(usize, usize), String> {
    let unclear =
        || "how many tokens a row has cannot be read off these shapes; say it with --set seq_len=N".to_owned();
    let known = |seq_len: usize| Description::infer(seq_len, vocab).kind != grid::TOKENS;
    let Some(len) = len else {
        // Of the puzzles with this vocabulary, the published set first.
        let side = vocab.saturating_sub(2);
        let found = [900, side * side].into_iter().find(|&seq_len| seq_len > 0 && known(seq_len));
        return said.or(found).map(|seq_len| (seq_len, prefixes[0])).ok_or_else(unclear);
    };
    let mut rows = prefixes.iter().filter_map(|&prefix| Some((len.checked_sub(prefix).filter(|&s| s > 0)?, prefix)));
    let fits = |&(seq_len, _): &(usize, usize)| said.map_or(known(seq_len), |said| said == seq_len);
    rows.clone().find(fits).or_else(|| rows.next()).ok_or_else(unclear)
}

/// `expansion` and `inner_multiple` of SwiGLUs that have these (width, inner width).
fn inner(widths: &[(usize, usize)]) -> Vec<String> {
    let fits = |expansion: f64, multiple: usize| {
        widths.iter().all(|&(width, inner)| inner_width(expansion, width, multiple) == inner)
    };
    let own = widths.iter().map(|&(width, inner)| 1.5 * inner as f64 / width.max(1) as f64);
    let found = MULTIPLES
        .iter()
        .find(|&&multiple| fits(EXPANSION, multiple))
        .map(|&multiple| (EXPANSION, multiple))
        .or_else(|| own.filter(|&expansion| fits(expansion, 1)).map(|expansion| (expansion, 1)).next());
    found.map_or(Vec::new(), |(expansion, multiple)| {
        vec![format!("expansion={expansion}"), format!("inner_multiple={multiple}")]
    })
}

/// The published preset that is closest.
fn preset_for(arch: &str, puzzle: &str, seq_len: usize, is_attention: bool) -> &'static str {
    match (puzzle, seq_len, arch) {
        ("maze", 900, "hrm") => "table4-maze-hrm",
        ("maze", 900, "direct") => "table4-maze-direct",
        ("maze", 900, _) => "maze-30x30-hard",
        ("arc", _, "hrm") => "table5-arc1-hrm",
        ("arc", _, "direct") => "table5-arc1-direct",
        ("arc", ..) => "arc-1",
        (_, _, "hrm") => "table4-sudoku-hrm",
        (_, _, "direct") => "table4-sudoku-direct",
        _ if is_attention => "sudoku-extreme-att",
        _ => "sudoku-extreme",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes_of(config: &Config) -> Shapes {
        let model = Model::new(&config.model, &config.task);
        let mut shapes: Shapes = model.layout.tensors().iter().map(|t| (t.name.clone(), t.shape())).collect();
        if config.model.puzzle_emb_ndim > 0 {
            let shape = vec![config.task.num_puzzle_identifiers, config.model.puzzle_emb_ndim];
            shapes.insert(puzzle_table::NAME.to_owned(), shape);
        }
        shapes
    }

    /// Every setting that fixes a computation of a published preset comes back from its shapes.
    #[test]
    fn the_published_presets_are_found_again_by_their_shapes() {
        for name in [
            "sudoku-extreme",
            "sudoku-extreme-att",
            "maze-30x30-hard",
            "arc-1",
            "table4-sudoku-hrm",
            "table4-maze-hrm",
            "table5-arc1-hrm",
            "table4-sudoku-direct",
            "table2-single-z",
            "table2-multi-scale-z",
        ] {
            let config = Config::preset(name).unwrap();
            let (found, guesses) = settings_of("w", &shapes_of(&config), &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!guesses.is_empty());
            // A preset of rows of tokens stands for what these are.
            let same = |key: &str| {
                ["model.", "task."].iter().any(|section| key.starts_with(section))
                    && !key.starts_with("task.puzzle: \"tokens\"")
            };
            let differences: Vec<String> = config.differences(&found).into_iter().filter(|d| same(d)).collect();
            assert!(differences.is_empty(), "{name}: {differences:?}");
        }
    }

    #[test]
    fn small_models_of_our_own_are_found_up_to_what_shapes_cannot_say() {
        for (name, sets) in [
            ("sudoku-4x4", vec![]),
            ("sudoku-6x6", vec!["experts=3", "tied_embeddings=true"]),
            ("sudoku-4x4", vec!["expansion=3.0", "inner_multiple=1"]),
            ("sudoku-6x6", vec!["positions=learned", "mixing=attention", "learned_prefix=2"]),
        ] {
            let sets: Vec<String> = sets.into_iter().map(String::from).collect();
            let config = Config::resolve(Some(name), None, &sets).unwrap();
            let (found, _) =
                settings_of("w", &shapes_of(&config), &[]).unwrap_or_else(|e| panic!("{name} {sets:?}: {e}"));
            assert_eq!(found.task, config.task, "{name} {sets:?}");
        }
    }

    #[test]
    fn what_shapes_leave_open_has_to_be_said_and_what_is_no_model_is_named() {
        let unknown =
            ["mixing=attention", "positions=rope", "vocab_size=40", "seq_len=50", "puzzle=tokens", "augment=stored"];
        let config = Config::resolve(None, None, &unknown.map(String::from)).unwrap();
        let shapes = shapes_of(&config);
        let line = settings_of("w", &shapes, &[]).unwrap_err().to_string();
        assert!(line.starts_with("w: ") && line.contains("--set seq_len=N"), "{line}");
        let (found, _) = settings_of("w", &shapes, &["seq_len=50".into()]).unwrap();
        assert_eq!((found.task.seq_len, found.task.vocab_size), (50, 40));
        for (change, words) in [
            (("inner.X_init", Some(vec![96])), "no known recursion"),
            (("inner.embed_tokens.embedding_weight", None), "no matrix `inner.embed_tokens.embedding_weight`"),
            (("inner.q_head.bias", Some(vec![3])), "`inner.q_head.bias` has shape [3]"),
            (("inner.more", Some(vec![3])), "`inner.more` is not part of the model"),
        ] {
            let mut shapes = shapes.clone();
            match change {
                (name, None) => drop(shapes.remove(name)),
                (name, Some(shape)) => drop(shapes.insert(name.to_owned(), shape)),
            }
            let line = settings_of("w", &shapes, &["seq_len=50".into()]).unwrap_err().to_string();
            assert!(line.contains(words), "{line}");
        }
    }
}
