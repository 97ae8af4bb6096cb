//! The house rules that a compiler does not check: which room may know which, where `unsafe` lives, how long a file is,
//! that a name means one thing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Every room of `src/`, from the top of the house down, and the rooms it may import. Arrows point downwards only.
const ROOMS: &[(&str, &str)] = &[
    ("main", "cli"),
    ("lib", "error"),
    (
        "cli",
        "perf train infer engine report checkpoint model tape device cuda simd dataset puzzle config files rng error",
    ),
    ("perf", "train engine model tape device cuda simd dataset config rng error"),
    ("train", "infer engine report checkpoint model tape device dataset config files rng error"),
    ("infer", "engine report checkpoint model tape device simd dataset puzzle config files rng error"),
    ("engine", "checkpoint model tape device cuda simd dataset config rng error"),
    ("report", "files error"),
    ("checkpoint", "config files error"),
    ("model", "tape device simd config rng"),
    ("tape", "device simd rng"),
    ("device", "cuda simd config rng error"),
    ("cuda", "error"),
    ("dataset", "config puzzle files rng error"),
    ("config", "puzzle error"),
    ("puzzle", "rng error"),
    ("files", "error"),
    ("rng", ""),
    ("error", "simd"),
    ("simd", ""),
];

/// Names that the crate's root re-exports, and the room they come from.
const REEXPORTS: &[(&str, &str)] = &[
    ("Error", "error"),
    ("Result", "error"),
    ("Config", "config"),
    ("Dataset", "dataset"),
    ("Model", "model"),
    ("Solver", "infer"),
    ("Trainer", "train"),
];

/// Where `unsafe` may be written.
const UNSAFE: &[&str] = &["src/simd/", "src/device/memory.rs", "src/device/reference/products.rs", "src/cuda/"];

/// Lines above an `unsafe` block in which its `SAFETY:` comment must end.
const SAFETY_WITHIN: usize = 3;

const MOST_LINES: usize = 500;

/// Names that public items of several rooms share, and why they may.
const SHARED_NAMES: &[(&str, &str)] = &[
    ("add", "the operation and its kernel: `ops::add`, `elementwise::add`"),
    ("swiglu", "the operation and its kernel"),
    ("build", "functions of modules that are named with them: `sudoku::build`, `arc::build`"),
    ("import", "functions of modules that are named with them: `maze::import`, `grids::import`"),
    ("solve", "functions of modules that are named with them: `sudoku::solve`, `task::solve`"),
    ("Block", "of the network, and of the arena"),
    ("Outcome", "of a group of slots, and of a gradient check"),
];

#[test]
fn the_table_of_rooms_points_downwards_only() {
    for (i, (room, allowed)) in ROOMS.iter().enumerate() {
        for target in allowed.split_whitespace() {
            let below = ROOMS[i + 1..].iter().any(|(name, _)| *name == target);
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
fn every_file_of_tests_is_part_of_the_suite() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let suite = fs::read_to_string(root.join("main.rs")).unwrap();
    let files = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    report(files.filter_map(|file| {
        let name = file.strip_suffix(".rs").filter(|name| !["main", "allocations"].contains(name))?;
        let is_part = suite.lines().any(|line| line == format!("mod {name};"));
        (!is_part).then(|| format!("tests/{file} is compiled nowhere: add it to tests/main.rs"))
    }));
}

#[test]
fn no_two_rooms_have_a_public_item_of_the_same_name() {
    let sources = sources();
    let shared = shared_names(&sources);
    let justified = |name: &str| SHARED_NAMES.iter().any(|(known, _)| *known == name);
    let clashes = shared.iter().filter(|(name, _)| !justified(name)).map(|(name, places)| {
        format!("{name} is a public item of several rooms ({}): rename all but one", places.join(", "))
    });
    let gone = SHARED_NAMES.iter().filter(|(name, _)| !shared.contains_key(*name));
    report(clashes.chain(gone.map(|(name, _)| format!("{name} clashes no more: strike it from SHARED_NAMES"))));
}

#[test]
fn the_checks_notice_what_they_are_for() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let places = shared_names(&[
        file("src/simd/mod.rs", "pub struct Twice;\npub enum Once {}\npub(crate) struct Inside;\n"),
        file(
            "src/tape/ops/add.rs",
            "pub const fn Twice() {}\nimpl X {\n    pub fn Once() {}\n}\npub type Inside = u8;\n",
        ),
        file("src/tape/ops/mod.rs", "pub const Twice: u8 = 1;\n"),
    ]);
    let expected = ["src/simd/mod.rs", "src/tape/ops/add.rs", "src/tape/ops/mod.rs"].map(str::to_owned);
    assert_eq!(places, BTreeMap::from([("Twice".to_owned(), expected.to_vec())]));
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
    let room = room(path);
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{path}: the room {room} is not in the table of tests/architecture.rs; give it a place")];
    };
    let is_room = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    let mut faults = Vec::new();
    for (line, name) in imports(&without_comments(text)) {
        let target = REEXPORTS.iter().find(|(export, _)| *export == name).map_or(name.as_str(), |(_, from)| from);
        if is_room(target) && target != room && !allowed.split_whitespace().any(|name| name == target) {
            let rule = if allowed.is_empty() { "nothing".into() } else { allowed.replace(' ', ", ") };
            faults.push(format!("{path}:{line}: {room} must not import {target}; it may import {rule}"));
        }
    }
    faults
}

/// Names of public items that more than one room has, and the files they are in. An item starts its line.
fn shared_names(sources: &[(String, String)]) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for (path, text) in sources {
        for name in text.lines().filter_map(public_item) {
            places.entry(name.to_owned()).or_default().push(path);
        }
    }
    let rooms = |paths: &[&String]| paths.iter().map(|path| room(path)).collect::<BTreeSet<_>>().len();
    let shared = places.into_iter().filter(|(_, paths)| rooms(paths) > 1);
    shared.map(|(name, paths)| (name, paths.into_iter().cloned().collect())).collect()
}

/// The name of the item that the line declares.
fn public_item(line: &str) -> Option<&str> {
    let mut words = line.strip_prefix("pub ")?.split_whitespace().peekable();
    let mut kind = words.next()?;
    while let ("const" | "unsafe" | "async", Some(&next @ ("fn" | "trait" | "unsafe" | "async"))) = (kind, words.peek())
    {
        (kind, _) = (next, words.next());
    }
    let is_item = ["struct", "enum", "trait", "fn", "type", "const", "static"].contains(&kind);
    let name = words.next().filter(|_| is_item)?;
    name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next()
}

/// The room a file of `src/` is in.
fn room(path: &str) -> &str {
    path.trim_start_matches("src/").split('/').next().unwrap_or_default().trim_end_matches(".rs")
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
