//! `docs/specification.md` and those who cite it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files cite sections by title.
const CITING: [&str; 6] = ["src", "tests", "benches", "examples", "data/presets", "data/recursions"];

/// What a citation begins with; further titles may follow after a comma.
const MARK: &str = "specification, \"";

#[test]
fn every_section_that_is_cited_exists() {
    let titles = titles();
    let mut missing = Vec::new();
    let mut cited = 0;
    for path in CITING.iter().flat_map(|folder| files(&root().join(folder))) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for title in citations(&text) {
            cited += 1;
            if !titles.contains(title) {
                missing.push(format!("{}: {title:?}", path.display()));
            }
        }
    }
    assert!(cited > 20, "only {cited} citations were found");
    assert!(missing.is_empty(), "no such section in docs/specification.md:\n{}", missing.join("\n"));
}

#[test]
fn every_link_inside_the_specification_has_a_target() {
    let text = specification();
    let anchors: BTreeSet<String> = titles().iter().map(|title| anchor(title)).collect();
    let flat = text.replace('\n', " ");
    for link in flat.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(anchors.contains(link), "no section for #{link}");
    }
    for name in flat.split("][").skip(1).filter_map(|rest| rest.split(']').next()) {
        assert!(text.contains(&format!("\n[{name}]: https://")), "no address for [{name}]");
    }
}

#[test]
fn citations_are_found_with_the_titles_that_follow() {
    let text = ["as in ", MARK, "One\", \"Two\") and ", MARK, "Three\", step 3"].concat();
    assert_eq!(citations(&text), ["One", "Two", "Three"]);
    assert_eq!(anchor("Deep supervision with a carry"), "deep-supervision-with-a-carry");
    assert_eq!(anchor("puzzle.json"), "puzzlejson");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn specification() -> String {
    fs::read_to_string(root().join("docs/specification.md")).expect("the specification")
}

fn titles() -> BTreeSet<String> {
    let heading = |line: &str| line.starts_with('#').then(|| line.trim_start_matches('#').trim().to_owned());
    specification().lines().filter_map(heading).collect()
}

/// All files of a folder and of those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the repository").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The titles that a text cites.
fn citations(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for rest in text.split(MARK).skip(1) {
        let mut rest = rest;
        while let Some((title, after)) = rest.split_once('"') {
            found.push(title);
            match after.strip_prefix(", \"") {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    found
}

/// The name under which GitHub links to a heading.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}
