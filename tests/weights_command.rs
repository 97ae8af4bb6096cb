//! `trm weights`: from PyTorch, to PyTorch, and what is found out on the way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{fail, stderr, stdout, succeed, train, trm};
use serde_json::Value;
use trm::checkpoint::{load_weights, save_torch};

/// A file that PyTorch wrote (`tests/torch/make.py`).
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

fn weights(verb: &str) -> Command {
    let mut command = trm();
    command.args(["weights", verb]);
    command
}

#[test]
fn imported_weights_are_evaluated_as_the_run_they_came_from_with_settings_found_by_their_shapes() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let mut build = trm();
    build.args(["data", "build", "sudoku", "--size", "4", "--count", "60", "--test", "20", "--out"]).arg(at("set"));
    succeed(build);
    let mut run = train(&at("run"), &["max_steps=20"]);
    run.arg("--data").arg(at("set"));
    succeed(run);
    // As the published code saves them.
    let mut export = weights("export");
    export.arg(at("run")).args(["--prefix", "_orig_mod.model.", "--torch"]).arg(at("step_20"));
    succeed(export);
    let mut import = weights("import");
    import.arg(at("step_20")).arg("--out").arg(at("w.safetensors")).arg("--config-out").arg(at("w.toml"));
    import.args(["--set", "h_cycles=1", "--set", "l_cycles=2", "--set", "halt_max_steps=4"]);
    let said = stderr(&succeed(import));
    assert!(said.contains("guessed: cycles, supervision steps and training as in the preset sudoku-extreme"), "{said}");
    assert!(fs::read(at("w.safetensors")).unwrap() == fs::read(at("run/weights.safetensors")).unwrap());
    let eval = |what: &[&Path]| {
        let mut eval = trm();
        eval.arg("eval").args(what).args(["--json", "--data"]).arg(at("set"));
        serde_json::from_slice::<Value>(&succeed(eval).stdout).unwrap()
    };
    let ours = eval(&[&at("run")]);
    assert_eq!(eval(&[&at("w.safetensors"), Path::new("--config"), &at("w.toml")]), ours);
    // A converted file with the compiler's prefix, as it is.
    let named: Vec<_> = load_weights(&at("w.safetensors"))
        .unwrap()
        .into_iter()
        .map(|mut tensor| {
            tensor.name = format!("module._orig_mod.model.{}", tensor.name);
            tensor
        })
        .collect();
    trm::checkpoint::save_weights(&at("c.safetensors"), &named).unwrap();
    assert_eq!(eval(&[&at("c.safetensors"), Path::new("--config"), &at("run/config.toml")]), ours);
    let mut info = weights("info");
    info.arg(at("c.safetensors"));
    let said = stdout(&succeed(info));
    assert!(
        said.contains("inner.lm_head.weight")
            && said.contains("trm, 2 blocks of width 32, 16 tokens out of 6 (sudoku)")
    );
}

#[test]
fn weights_of_any_model_are_imported_where_no_settings_are_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("w.safetensors");
    let mut import = weights("import");
    import.arg(fixture("state.pt")).arg("--out").arg(&out);
    let output = succeed(import);
    let (said, printed) = (stderr(&output), stdout(&output));
    assert!(said.contains("left out, as they hold whole numbers: steps") && said.contains("no settings"), "{said}");
    assert!(printed.contains("9 tensors"), "{printed}");
    assert_eq!(load_weights(&out).unwrap().len(), 9);
}

#[test]
fn weights_that_are_there_are_replaced_with_force_only() {
    let home = tempfile::tempdir().unwrap();
    let (out, torch) = (home.path().join("w.safetensors"), home.path().join("w.pt"));
    let import = || {
        let mut import = weights("import");
        import.arg(fixture("state.pt")).arg("--out").arg(&out);
        import
    };
    let export = || {
        let mut export = weights("export");
        export.arg(&out).arg("--torch").arg(&torch);
        export
    };
    for (command, written) in [(&import as &dyn Fn() -> Command, &out), (&export, &torch)] {
        succeed(command());
        let first = fs::read(written).unwrap();
        fs::write(written, "kept").unwrap();
        let said = fail(command(), 2);
        assert!(said.contains("is there already; give another name, or --force"), "{said}");
        assert_eq!(fs::read(written).unwrap(), b"kept");
        let mut command = command();
        command.arg("--force");
        succeed(command);
        assert!(fs::read(written).unwrap() == first);
    }
}

#[test]
fn what_cannot_be_imported_is_refused_in_one_line_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (out, toml) = (home.path().join("w.safetensors"), home.path().join("w.toml"));
    let nan = home.path().join("nan.pt");
    save_torch(&nan, &[trm::checkpoint::NamedTensor::new("x", [2], vec![0.0, f32::NAN])], "").unwrap();
    for (file, more, words) in [
        (fixture("old.pt"), vec![], "before 1.6; save it again"),
        (fixture("object.pt"), vec![], "`argparse.Namespace`"),
        (fixture("make.py"), vec![], "not a whole safetensors file"),
        (fixture("nowhere.pt"), vec![], "No such file"),
        (nan, vec![], "tensor `x` holds NaN at element 1"),
        (fixture("state.pt"), vec!["--config-out", toml.to_str().unwrap()], "no matrix `inner.embed_tokens"),
        (fixture("state.pt"), vec!["--set", "seq_len=16"], "no matrix `inner.embed_tokens"),
    ] {
        let mut import = weights("import");
        import.arg(&file).arg("--out").arg(&out).args(&more);
        let said = fail(import, 2);
        assert!(said.contains(words), "{}: {said}", file.display());
        assert!(said.lines().filter(|line| line.starts_with("trm: ")).count() == 1, "{said}");
        assert!(!out.exists() && !toml.exists(), "{}", file.display());
    }
    let mut eval = trm();
    eval.arg("eval").arg(fixture("state.pt")).args(["--config", "x.toml"]);
    fail(eval, 2);
}
