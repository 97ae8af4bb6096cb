//! The house rules that a compiler does not check: which room may know which, where `unsafe` lives, how long a file is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every room of `src/`, from the top of the house down, and the rooms it may import. Arrows point downwards only.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &["error"]),
    (
        "cli",
        &[
            "perf",
            "train",
            "infer",
            "engine",
            "report",
            "checkpoint",
            "model",
            "tape",
            "device",
            "simd",
            "dataset",
            "puzzle",
            "config",
            "files",
            "rng",
            "error",
        ],
    ),
    ("perf", &["train", "engine", "model", "tape", "simd", "dataset", "config", "rng", "error"]),
    ("train", &["infer", "engine", "report", "checkpoint", "model", "tape", "dataset", "config", "rng", "error"]),
    ("infer", &["engine", "report", "model", "tape", "simd", "dataset", "puzzle", "config", "rng", "error"]),
    ("engine", &["checkpoint", "model", "tape", "device", "simd", "dataset", "config", "rng", "error"]),
    ("report", &["files", "error"]),
    ("checkpoint", &["config", "files", "error"]),
    ("model", &["tape", "device", "simd", "config", "rng"]),
    ("tape", &["device", "simd", "rng"]),
    ("device", &["simd", "config", "error"]),
    ("simd", &["error"]),
    ("dataset", &["config", "puzzle", "files", "rng", "error"]),
    ("config", &["puzzle", "error"]),
    ("puzzle", &["rng", "error"]),
    ("files", &["error"]),
    ("rng", &[]),
    ("error", &[]),
];

/// Names that the crate's root re-exports, and the room they come from.
const REEXPORTS: &[(&str, &str)] = &[("Error", "error"), ("Result", "error")];

/// Where `unsafe` may be written.
const UNSAFE: &[&str] = &["src/simd/", "src/cuda/", "src/tape/arena.rs"];

/// Lines above an `unsafe` block in which its `SAFETY:` comment must end.
const SAFETY_WITHIN: usize = 3;

const MOST_LINES: usize = 500;

#[test]
fn the_table_of_rooms_points_downwards_only() {
    for (i, (room, allowed)) in ROOMS.iter().enumerate() {
        for target in *allowed {
            let below = ROOMS[i + 1..].iter().any(|(name, _)| name == target);
            assert!(below, "the table lets {room} import {target}, which is not below it");
        }
    }
}

#[test]
fn no_module_imports_one_above_it() {
    report(sources().iter().flat_map(|(path, text)| forbidden_imports(path, text)));
}

#[test]
fn unsafe_code_stays_in_its_rooms_and_every_block_says_why_it_is_sound() {
    report(sources().iter().flat_map(|(path, text)| unsafe_faults(path, text)));
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    report(sources().iter().filter_map(|(path, text)| {
        let lines = text.lines().count();
        (lines > MOST_LINES).then(|| format!("{path}: {lines} lines; a file has at most {MOST_LINES}: split it"))
    }));
}

#[test]
fn the_checks_notice_what_they_are_for() {
    let faults = |path: &str, text: &str| forbidden_imports(path, text).len() + unsafe_faults(path, text).len();
    for (path, text) in [
        ("src/simd/gemm.rs", "use crate::tape::Tape;\n"),
        ("src/tape/mod.rs", "use crate::{\n    rng::Rng,\n    model::Model,\n};\n"),
        ("src/model/mod.rs", "fn f() { crate::train::g(); }\n"),
        ("src/report/mod.rs", "use super::checkpoint;\n"),
        ("src/puzzle/sudoku/grid.rs", "use super::super::super::{dataset::Dataset, rng};\n"),
        ("src/rng.rs", "use crate::Error;\n"),
        ("src/attic/mod.rs", "\n"),
        ("src/model/mod.rs", "// SAFETY: none.\nunsafe { f() }\n"),
        ("src/simd/gemm.rs", "unsafe { f() }\n"),
        ("src/simd/gemm.rs", "// SAFETY: far away.\n\n\n\nunsafe { f() }\n"),
        ("src/simd/gemm.rs", "// SAFETY: of something else.\nf();\n// A remark.\nunsafe { f() }\n"),
    ] {
        assert_eq!(faults(path, text), 1, "{path}: {text}");
    }
    for (path, text) in [
        (
            "src/tape/mod.rs",
            "//! [`crate::model`] is above, unsafe { } too.\nuse crate::{simd::{self, model}, rng::Rng};\n",
        ),
        ("src/tape/ops/add.rs", "use super::super::{Tape, ops};\nuse crate::tape::Var;\n"),
        ("src/cli/train.rs", "use crate::train::Run;\nuse super::common;\n"),
        ("src/cli/mod.rs", "mod train;\nuse train::Args;\n"),
        ("src/simd/gemm.rs", "// SAFETY: one\n// two\n// three\n#[allow(x)]\nunsafe { f() }\nunsafe fn g() {}\n"),
    ] {
        assert_eq!(faults(path, text), 0, "{path}: {text}");
    }
}

/// Fails with all faults, one a line.
fn report(faults: impl Iterator<Item = String>) {
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Path and text of every Rust file under `src`.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name: Vec<_> = path.strip_prefix(root).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
                found.push((name.join("/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), root, &mut found);
    found.sort();
    assert!(found.len() > ROOMS.len(), "the sources are where they are looked for");
    found
}

/// Imports of `path` that the table does not allow.
fn forbidden_imports(path: &str, text: &str) -> Vec<String> {
    let room = path.trim_start_matches("src/").split('/').next().unwrap().trim_end_matches(".rs");
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{path}: the room {room} is not in the table of tests/architecture.rs; give it a place")];
    };
    let is_room = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    let mut faults = Vec::new();
    for (line, name) in imports(&without_comments(text)) {
        let target = REEXPORTS.iter().find(|(export, _)| *export == name).map_or(name.as_str(), |(_, from)| from);
        if is_room(target) && target != room && !allowed.contains(&target) {
            let rule = if allowed.is_empty() { "nothing".into() } else { allowed.join(", ") };
            faults.push(format!("{path}:{line}: {room} must not import {target}; it may import {rule}"));
        }
    }
    faults
}

/// The text with comments blanked out, line by line.
fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// Line and first name of every path from the crate's root: `crate::a`, `trm::a`, `crate::{a::b, c}`, and what follows
/// a chain of `super::` (which may or may not reach the root).
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "trm::", "super::"] {
        for (at, _) in code.match_indices(prefix) {
            let is_whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let rest = &code[at + prefix.len()..];
            if is_whole_word && !rest.starts_with("super::") {
                let line = code[..at].matches('\n').count() + 1;
                found.extend(first_names(rest).into_iter().map(|name| (line, name)));
            }
        }
    }
    found
}

/// `a` of `a::b`, and `a`, `c` of `{a::{b, x}, c}`.
fn first_names(path: &str) -> BTreeSet<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
    let Some(group) = path.strip_prefix('{') else { return BTreeSet::from([name(path)]) };
    let mut names = BTreeSet::from([name(group)]);
    let mut depth = 1;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => _ = names.insert(name(&group[i + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// `unsafe` where it must not be, and blocks of it without a reason.
fn unsafe_faults(path: &str, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut faults = Vec::new();
    for (i, line) in code.lines().enumerate() {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if !words.any(|word| word == "unsafe") {
            continue;
        }
        let number = i + 1;
        if !UNSAFE.iter().any(|place| path.starts_with(place)) {
            faults.push(format!("{path}:{number}: unsafe code lives in {} only", UNSAFE.join(", ")));
        }
        // The nearest comment, however many lines it has.
        let above = lines[..i].iter().rev().map(|line| line.trim_start());
        let mut comment = above.skip_while(|line| !line.starts_with("//")).take_while(|line| line.starts_with("//"));
        let near = lines[i.saturating_sub(SAFETY_WITHIN)..i].iter().any(|line| line.trim_start().starts_with("//"));
        let said = near && comment.any(|line| line.contains("SAFETY:"));
        if (line.contains("unsafe {") || line.contains("unsafe impl")) && !said {
            faults.push(format!(
                "{path}:{number}: an unsafe block needs a `SAFETY:` comment at most {SAFETY_WITHIN} lines above"
            ));
        }
    }
    faults
}
