//! Every `trm` command that a help text or a document shows is run, on small stand-ins for what it is about.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{stderr, stdout, succeed, trm};
use trm::dataset::{Dataset, maze, sudoku};
use trm::puzzle::maze::PathSpec;

/// The documents whose code blocks are run.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "docs/gpu.md",
    "docs/peer.md",
    "docs/reproduce.md",
    "docs/slurm.md",
    "docs/specification.md",
    "docs/your-own-puzzle.md",
];

/// What cannot be run here, and why. A command is one of them when it contains the words.
const NOT_RUN: &[(&str, &str)] = &[("--device cuda", "needs an NVIDIA GPU"), ("cpu,cuda", "needs an NVIDIA GPU")];

/// What makes a command small: the words, and what stands in their place. Settings that stand in front of an example's own do
/// not hide those.
const SMALLER: &[(&str, &str)] = &[
    ("trm train --resume", "trm train --threads 1 --resume"),
    (
        "trm train",
        "trm train --max-steps 2 --threads 1 --set hidden_size=32 --set inner_multiple=32 --set n_heads=4 --set h_cycles=1 --set l_cycles=1 --set batch_size=4 \
         --set gradient_groups=1 --set lr_warmup_steps=1 --set halt_max_steps=2 --set eval_puzzles=2 --set train_puzzles=40 \
         --set test_puzzles=10",
    ),
    // A table of the width of the model, as the presets have it.
    ("--preset table1-trm", "--preset table1-trm --set puzzle_emb_ndim=32 --set puzzle_emb_len=1"),
    ("--preset table1-t2-n2", "--preset table1-t2-n2 --set puzzle_emb_ndim=32 --set puzzle_emb_len=1"),
    (
        "trm bench",
        "trm bench --seconds 0 --set hidden_size=32 --set inner_multiple=32 --set n_heads=4 --set h_cycles=1 --set l_cycles=1 --set halt_max_steps=2",
    ),
    ("trm plan", "trm plan --gflops 100"),
    ("trm plan --gflops 100 sudoku-extreme --amx", "trm plan sudoku-extreme --amx"),
    ("--limit 20 --submission", "--limit 20 --copies 1 --submission"),
    ("--copies 9", "--copies 1"),
    ("--seed 7 --rounds 50", "--seed 7"),
    ("trm gradcheck", "trm gradcheck --rounds 1"),
    ("--batch 32", "--batch 4"),
    ("--set batch_size=8 --set max_steps=60", "--set batch_size=2 --set max_steps=60"),
    ("--count 10000", "--count 20"),
    ("--count 3000", "--count 20"),
    ("--count 1000", "--count 20"),
    ("--test 1000", "--test 5"),
    ("--test 500", "--test 5"),
    ("--test 100 ", "--test 5 "),
    ("--min-path 110", "--min-path 30"),
    ("--valid 1000", "--valid 1"),
    ("--valid 100 ", "--valid 1 "),
    ("--tests 50", "--tests 1"),
    ("--columns quiz,solution", "--columns question,answer"),
    ("--max-steps 9000", "--max-steps 4"),
    ("--init runs/tiny --data sets/mine", "--init runs/mine --data sets/mine"),
    ("--init runs/arc --data sets/arc-new", "--init runs/arc-1 --data data/arc-1"),
    ("--demonstrations 60", "--demonstrations 4"),
    ("--test-set evaluation --out", "--test-set evaluation --aug 3 --out"),
    // Placeholders, by what they stand for.
    ("import maze --csv train.csv --test-csv test.csv", "import maze --csv maze-train.csv --test-csv maze-test.csv"),
    ("--preset maze-30x30-hard --data DIR", "--preset maze-30x30-hard --data sets/maze-30x30"),
    (
        "table1-t2-n2 --set puzzle_emb_ndim=32 --set puzzle_emb_len=1 --data DIR",
        "table1-t2-n2 --set puzzle_emb_ndim=32 --set puzzle_emb_len=1 --data sets/sudoku-extreme",
    ),
    ("runs/arc-1 TASK", "runs/arc-1 10abcdef"),
    ("data/arc-1 TASK", "data/arc-1 007bbfb7"),
];

/// A command, and where it is shown.
struct Example {
    at: String,
    text: String,
}

#[test]
fn every_command_that_is_shown_runs() {
    let mut examples = Vec::new();
    for_each_help(&mut Vec::new(), &mut |command, help| {
        examples.extend(in_help(help).into_iter().map(|text| Example { at: format!("trm {command} --help"), text }));
    });
    let of_help = examples.len();
    for document in DOCUMENTS {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        examples.extend(in_blocks(&text).into_iter().map(|text| Example { at: (*document).to_owned(), text }));
    }
    assert!(of_help > 50 && examples.len() > of_help + 30, "{of_help} in the help, {} in all", examples.len());

    let home = tempfile::tempdir().unwrap();
    stand_ins(home.path());
    let mut faults = Vec::new();
    let mut unused: BTreeSet<&str> = SMALLER.iter().chain(NOT_RUN).map(|(words, _)| *words).collect();
    for Example { at, text } in &examples {
        let skipped = NOT_RUN.iter().find(|(words, _)| text.contains(words));
        if let Some((words, _)) = skipped {
            unused.remove(words);
            if cfg!(cuda_gpu) {
                continue;
            }
        }
        let mut line = text.clone();
        for (words, smaller) in SMALLER {
            if line.contains(words) && !(*words == "trm train" && line.contains("--resume")) {
                unused.remove(words);
                line = line.replace(words, smaller);
            }
        }
        let started = std::time::Instant::now();
        let status = run(home.path(), &line);
        println!("{:6.2} s  {text}", started.elapsed().as_secs_f64());
        match (status, skipped) {
            (Err(said), None) => faults.push(format!("{at}: {text}\n  as {line}\n  {said}")),
            (Ok(()), Some((words, _))) => {
                faults.push(format!("{at}: {text}\n  runs here: strike {words:?} from NOT_RUN"))
            }
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{} of {} fail:\n{}", faults.len(), examples.len(), faults.join("\n"));
    assert!(unused.is_empty(), "no example has these words, strike them from the tables: {unused:?}");
}

/// Runs a line of a shell in `home`; what it said where it failed. What it makes must not be there before, and another example
/// may have made it.
fn run(home: &Path, line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    for pair in words.windows(2).filter(|_| !line.contains("--resume")) {
        if let ["--out" | "--config-out" | "--torch", made] = pair {
            let _ = fs::remove_dir_all(home.join(made)).or_else(|_| fs::remove_file(home.join(made)));
        }
    }
    let path = format!("{}:{}", home.join("bin").display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", line]).current_dir(home).env("PATH", path).env("HOME", home);
    let output = shell.output().unwrap();
    let said = stderr(&output);
    match output.status.success() && !said.contains("several solutions") {
        true => Ok(()),
        false => Err(format!("{}: {}", output.status, said.trim_end())),
    }
}

/// Calls `with` for the help of every command and subcommand.
fn for_each_help(command: &mut Vec<String>, with: &mut dyn FnMut(&str, &str)) {
    let mut help = trm();
    help.args(&*command).arg("--help");
    let help = stdout(&succeed(help));
    with(&command.join(" "), &help);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    for name in names.filter(|&name| name != "help") {
        command.push(name.to_owned());
        for_each_help(command, with);
        command.pop();
    }
}

/// The examples of a help text. Each stands in lines that can be pasted: whole ones, or ones that end in a backslash.
fn in_help(help: &str) -> Vec<String> {
    let begins = |line: &str| ["Example: ", "Examples:", "Example:"].iter().any(|word| line.starts_with(word));
    let section = help.lines().skip_while(|line| !begins(line)).take_while(|line| !line.is_empty());
    let mut examples: Vec<String> = Vec::new();
    for line in section.map(|line| line.trim_start_matches("Example:").trim_start_matches("Examples:").trim()) {
        match examples.last_mut().filter(|last| last.ends_with('\\')) {
            Some(last) => {
                last.pop();
                last.push_str(line);
            }
            None if line.is_empty() => {}
            None => {
                assert!(
                    line.starts_with("trm ") || line.starts_with("echo "),
                    "wrapped, or no command: {line}\n{help}"
                );
                examples.push(line.to_owned());
            }
        }
    }
    examples.iter().map(|example| without_comment(example)).collect()
}

/// The `trm` commands of the code blocks of a document, outside of scripts, which have tests of their own.
fn in_blocks(text: &str) -> Vec<String> {
    let mut examples: Vec<String> = Vec::new();
    let mut block: Option<&str> = None;
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language) };
            continue;
        }
        if !matches!(block, Some("" | "sh")) {
            continue;
        }
        let is_open = |example: &String| example.ends_with('\\') || example.matches('\'').count() % 2 == 1;
        match examples.last_mut().filter(|last| is_open(last)) {
            Some(last) if last.ends_with('\\') => {
                last.pop();
                last.push_str(line.trim());
            }
            Some(last) => *last = format!("{last}\n{}", without_comment(line)),
            None => {
                let command = line.strip_prefix("$ ").unwrap_or(line);
                if command.starts_with("trm ") || command.contains("| trm ") {
                    examples.push(without_comment(command));
                }
            }
        }
    }
    examples
}

/// A line without what stands behind ` #` or two spaces, outside of quotes.
fn without_comment(line: &str) -> String {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        quoted ^= c == '\'';
        if !quoted && (line[at..].starts_with("  ") || line[at..].starts_with(" # ")) {
            return line[..at].to_owned();
        }
    }
    line.trim_end().to_owned()
}

/// What the examples are about, small: programs, files, data sets, runs.
fn stand_ins(home: &Path) {
    let write = |name: &str, text: &str| {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    fs::create_dir_all(home.join("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_trm"), home.join("bin/trm")).unwrap();
    // Whether what it is given is JSON is tested elsewhere.
    write("bin/jq", "#!/bin/bash\ncat > /dev/null\n");
    succeed({
        let mut chmod = Command::new("chmod");
        chmod.arg("+x").arg(home.join("bin/jq"));
        chmod
    });
    for folder in [".local/share/bash-completion/completions", "docs", "data", "sets", "runs"] {
        fs::create_dir_all(home.join(folder)).unwrap();
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let experiment = "data/experiments/slow-memory.toml";
    write(experiment, &fs::read_to_string(own.join(experiment)).unwrap());
    let recursion = own.join("data/recursions");
    for entry in fs::read_dir(recursion).unwrap() {
        let path = entry.unwrap().path();
        write(&format!("data/recursions/{}", path.file_name().unwrap().display()), &fs::read_to_string(path).unwrap());
    }
    let readme = fs::read_to_string(own.join("README.md")).unwrap();
    let mine = readme.split("```toml\n").find(|block| block.starts_with("# mine.toml")).unwrap();
    write("mine.toml", mine.split("```").next().unwrap());

    let sudokus = sudoku::build(9, 8, 2, 12, 0).unwrap();
    write("train.csv", &csv(&sudokus, "train"));
    write("test.csv", &csv(&sudokus, "test"));
    write("test-500.csv", &csv(&sudokus, "test"));
    let mazes = maze::build(8, 8, 2, PathSpec { min_path: 8, unique_path: true }, false, 0).unwrap();
    write("maze-train.csv", &csv(&mazes, "train"));
    write("maze-test.csv", &csv(&mazes, "test"));
    arc(&write);
    let line = |i: usize| {
        let (a, b) = ("010110101001", "1.1.0..1.10.");
        let answer: String = a.chars().cycle().skip(i % 12).take(36).collect();
        let question: String =
            answer.chars().zip(b.chars().cycle().skip(i)).map(|(a, b)| if b == '.' { '.' } else { a }).collect();
        let lines = |text: &str| (0..6).map(|row| &text[6 * row..6 * row + 6]).collect::<Vec<_>>().join("\\n");
        format!("{{\"question\": \"{}\", \"answer\": \"{}\"}}\n", lines(&question), lines(&answer))
    };
    write("takuzu.jsonl", &(0..12).map(line).collect::<String>());
    write("puzzle.txt", "1..1.0\n01011.\n.010..\n101..0\n.1.01.\n..1.1.\n");
    let small = |i: u8| {
        format!("{{\"question\": \"{}1.\\n1.{}\", \"answer\": \"{}11\\n1{}0\"}}\n", i % 2, i / 2 % 2, i % 2, i / 4 % 2)
    };
    write("puzzles.jsonl", &(0..4).map(small).collect::<String>());
    let grids = ["01\\n10", "11\\n01", "10\\n11", "00\\n10"];
    let object = |grid: &&str| format!("{{\"puzzle\": \"{grid}\", \"solution\": \"{grid}\"}}");
    write("other.json", &format!("[{}]", grids.iter().map(object).collect::<Vec<_>>().join(",")));
    write("harder.jsonl", &(0..4).map(small).collect::<String>());
    let row =
        |i: usize| format!("{0},{0}\n", "010110101001011010".chars().cycle().skip(i).take(36).collect::<String>());
    write("puzzles.csv", &format!("quiz,solution\n{}", (0..6).map(row).collect::<String>()));
    write("sudoku.csv", &csv(&sudokus, "train"));
    let questions = csv(&sudokus, "train");
    let questions = questions.lines().skip(1).filter_map(|line| line.split(',').nth(1));
    write("17-clues.txt", &questions.map(|line| format!("{line}\n")).collect::<String>());
    let pair = r#"{"input": [[1, 2], [0, 3]], "output": [[2, 1], [3, 0]]}"#;
    write("MINI-ARC/data/MiniARC/one.json", &format!(r#"{{"train": [{pair}], "test": [{pair}]}}"#));
    write("re_arc/tasks/007bbfb7.json", &format!(r#"[{pair}, {{"input": [[5]], "output": [[6]]}}]"#));
    write("maze.txt", "S.......\n.######.\n........\n.######.\n........\n.######.\n........\n######.G\n");

    for line in [
        "trm data build sudoku --size 6 --count 20 --test 5 --out data/sudoku-6x6",
        "trm data build sudoku --size 6 --count 20 --test 5 --seed 9 --out sets/harder",
        "trm data build sudoku --size 9 --count 8 --test 2 --out data/sudoku-extreme",
        "trm data build sudoku --size 9 --count 8 --test 2 --out data/sudoku-extreme-1k-aug-1000",
        "trm data build sudoku --size 9 --count 8 --test 2 --out sets/sudoku-extreme",
        "trm data build sudoku --size 6 --count 20 --test 5 --out sets/sudoku",
        "trm data build maze --size 30 --count 4 --test 2 --min-path 30 --out sets/maze-30x30",
        "trm data import jsonl puzzles.jsonl --test-share 0.3 --out sets/mine",
        "trm data import jsonl takuzu.jsonl --out sets/takuzu",
        "trm data import arc --dir D --subsets training,evaluation,concept --test-set evaluation --online --out data/arc-1",
        "trm train --out runs/sudoku-6x6",
        "trm train --preset sudoku-4x4 --out runs/tiny",
        "trm train --preset sudoku-9x9 --out runs/nine",
        "trm train --preset sudoku-9x9 --set lr_min_ratio=1 --data sets/sudoku-extreme --out runs/extreme",
        "trm train --preset maze-8x8 --out runs/maze-8x8",
        "trm train --preset arc-small --set hidden_size=96 --set train_puzzles=84 --set test_puzzles=28 --out runs/arc-small",
        "trm train --preset arc-1 --out runs/arc-1",
        "trm train --preset maze-30x30-hard --data sets/maze-30x30 --out runs/maze-30x30",
        "trm train --config mine.toml --set hidden_size=96 --out runs/of-mine",
        "trm train --data sets/mine --out runs/mine",
        "trm weights export runs/extreme --torch step_26040",
        "trm weights export runs/maze-30x30 --torch maze.pt",
        "trm weights export runs/of-mine --torch mine.pth",
        "trm train --data sets/takuzu --out runs/takuzu",
        "for run in a b seed-0 seed-1; do cp -r runs/sudoku-6x6 runs/$run; done",
        "cp runs/extreme/weights.safetensors runs/extreme/config.toml .",
    ] {
        let mut line = line.to_owned();
        for (words, smaller) in SMALLER {
            line = line.replace(words, smaller);
        }
        run(home, &line).unwrap_or_else(|said| panic!("{line}: {said}"));
    }
}

/// A split as the published CSV files have it.
fn csv(set: &Dataset, split: &str) -> String {
    let split = set.split(split).unwrap();
    let board = set.puzzle.board(split.meta.vocab_size).unwrap();
    let is_maze = set.puzzle.kind == "maze";
    let free = if is_maze { " " } else { "." };
    let text = |row: &[u8]| board.text(row).replace('\n', "").replace('.', free);
    let rows = split.inputs.rows().zip(split.labels.rows());
    let rows = rows.map(|(question, answer)| format!("x,{},{},0\n", text(&question.unwrap()), text(&answer.unwrap())));
    format!("source,question,answer,rating\n{}", rows.collect::<String>())
}

/// ARC's files in both forms: two tasks a subset.
fn arc(write: &dyn Fn(&str, &str)) {
    for (n, subset) in ["training", "evaluation", "concept", "training2", "evaluation2"].iter().enumerate() {
        let task = |k: usize| {
            let grid = |i: usize| format!("[[{}, {}], [{}, {}]]", n, k + i, (n + i) % 10, i);
            let pair = |i: usize| format!("{{\"input\": {}, \"output\": {}}}", grid(i), grid(i + 3));
            (format!("[{}, {}]", pair(0), pair(1)), grid(2), grid(5))
        };
        let name = |k: usize| if n == 0 && k == 0 { "007bbfb7".to_owned() } else { format!("{n}{k}abcdef") };
        let (mut challenges, mut solutions) = (Vec::new(), Vec::new());
        for k in 0..2 {
            let (train, input, output) = task(k);
            challenges.push(format!("\"{}\": {{\"train\": {train}, \"test\": [{{\"input\": {input}}}]}}", name(k)));
            solutions.push(format!("\"{}\": [{output}]", name(k)));
            let file = format!("{{\"train\": {train}, \"test\": [{{\"input\": {input}, \"output\": {output}}}]}}");
            if n < 2 {
                write(&format!("ARC-AGI/data/{subset}/{}.json", name(k)), &file);
            }
        }
        for folder in ["D", "downloads/arc"] {
            write(&format!("{folder}/arc-agi_{subset}_challenges.json"), &format!("{{{}}}", challenges.join(", ")));
            write(&format!("{folder}/arc-agi_{subset}_solutions.json"), &format!("{{{}}}", solutions.join(", ")));
        }
    }
}
