//! What a terminal gets, by what its variables ask for: colour, a cursor that moves, or plain lines.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{self, stdout, succeed, train};

/// What a command prints on a terminal with these variables; `None` where no terminal can be made.
fn on_a_terminal(dir: &Path, arguments: &str, variables: &[(&str, &str)]) -> Option<String> {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("stty rows 50 cols 200; {} {arguments}", env!("CARGO_BIN_EXE_trm")), "/dev/null"]);
    command.current_dir(dir).stdin(Stdio::null());
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm").envs(variables.iter().copied());
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{arguments}: {}", stdout(&output));
            Some(stdout(&output))
        }
        Err(e) => {
            println!("skipped: no `script` here: {e}");
            None
        }
    }
}

/// `(colours, moves)` in what was printed.
fn painted(text: &str) -> (bool, bool) {
    let escapes: Vec<&str> = text.split("\x1b[").skip(1).collect();
    let ends_with = |letters: &str| {
        escapes.iter().any(|escape| {
            escape.find(|c: char| c.is_ascii_alphabetic()).is_some_and(|at| letters.contains(&escape[at..=at]))
        })
    };
    let returns = text.replace("\r\n", "\n").contains('\r');
    (ends_with("m"), ends_with("ABCDHJK") || returns)
}

#[test]
fn colour_and_cursor_are_what_the_variables_of_the_terminal_allow() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    succeed(train(&dir.join("run"), &["max_steps=40"]));
    let mut set = common::trm();
    set.args([
        "data",
        "build",
        "arc",
        "--tasks",
        "8",
        "--demonstrations",
        "3",
        "--tests",
        "1",
        "--side",
        "5",
        "--out",
        "set",
    ]);
    set.current_dir(dir);
    succeed(set);
    let solve = "solve run '1234 34.2 2.43 432.' --watch --steps 2 --threads 1";
    let train = "train --preset sudoku-4x4 --set hidden_size=32 --set halt_max_steps=2 --set test_puzzles=20 --max-steps 20 --threads 1 --out";
    let quiet = ["show set 002-crop".to_owned(), solve.to_owned(), "eval run --threads 1".to_owned()];
    for (i, (variables, colour, cursor)) in [
        (&[][..], true, true),
        (&[("NO_COLOR", "1")], false, true),
        (&[("CLICOLOR", "0")], false, true),
        (&[("TERM", "dumb")], false, false),
        (&[("TERM", "dumb"), ("NO_COLOR", "1")], false, false),
    ]
    .into_iter()
    .enumerate()
    {
        let all = quiet.iter().cloned().chain([format!("{train} run-{i}")]);
        let mut seen = (false, false);
        for arguments in all {
            let Some(text) = on_a_terminal(dir, &arguments, variables) else { return };
            let (colours, moves) = painted(&text);
            assert!(colour || !colours, "{variables:?} {arguments}: {text:?}");
            assert!(cursor || !moves, "{variables:?} {arguments}: {text:?}");
            seen = (seen.0 || colours, seen.1 || moves);
        }
        assert_eq!(seen, (colour, cursor), "{variables:?}");
    }
    // Colour in a pipe, for who asks.
    let mut show = common::trm();
    show.args(["show", "set", "002-crop"]).current_dir(dir).env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR");
    assert_eq!(painted(&stdout(&succeed(show))), (true, false));
}
