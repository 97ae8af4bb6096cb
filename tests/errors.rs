//! Bad input against the binary: one clear line (what, where, what to do), exit code 2, no panic, nothing left behind.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{self, succeed, tiny, train, trm};
use ndarray::{Array2, ShapeBuilder as _};
use ndarray_npy::{read_npy, write_npy};
use safetensors::tensor::{Dtype, TensorView};
use trm::checkpoint::{NamedTensor, load_weights, save_weights};

/// Arguments and the fragments that the line must hold. In both, `{d}` is the folder of the artefacts and `{out}` a
/// folder that is not there and must not be there afterwards.
struct Case {
    args: String,
    stdin: Vec<u8>,
    fragments: Vec<String>,
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn case(&mut self, args: &str, fragments: &[&str]) {
        self.piped(args, b"", fragments);
    }

    fn piped(&mut self, args: &str, stdin: &[u8], fragments: &[&str]) {
        let fragments = fragments.iter().map(|&f| f.to_owned()).collect();
        self.0.push(Case { args: args.to_owned(), stdin: stdin.to_vec(), fragments });
    }

    /// Runs every case; reports all that are wrong at once.
    fn run(self, dir: &Path) {
        let out = dir.join("new/out");
        let fill = |text: &str| text.replace("{d}", dir.to_str().unwrap()).replace("{out}", out.to_str().unwrap());
        let before = listing(dir);
        let mut wrong = Vec::new();
        let n = self.0.len();
        for case in self.0 {
            let mut command = trm();
            // A space separates arguments; `~` stands for one inside an argument, `''` for an empty argument.
            let args =
                case.args.split(' ').map(|arg| if arg == "''" { String::new() } else { fill(&arg.replace('~', " ")) });
            let mut child = command.args(args).stdin(Stdio::piped()).current_dir(dir).spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(&case.stdin);
            let output = child.wait_with_output().unwrap();
            let said = common::stderr(&output);
            let mut faults = Vec::new();
            if output.status.code() != Some(2) {
                faults.push(format!("ended with {}", output.status));
            }
            if said.lines().count() != 1 || !said.ends_with('\n') || !said.starts_with("trm: ") {
                faults.push("not one line".to_owned());
            }
            if said.contains("panicked") || said.len() > 700 {
                faults.push("not a clear line".to_owned());
            }
            for fragment in case.fragments.iter().map(|f| fill(f)).filter(|f| !said.contains(f)) {
                faults.push(format!("without {fragment:?}"));
            }
            if out.parent().unwrap().exists() {
                faults.push("left its folder behind".to_owned());
                fs::remove_dir_all(out.parent().unwrap()).unwrap();
            }
            if listing(dir) != before {
                faults.push("changed files".to_owned());
            }
            if !faults.is_empty() {
                wrong.push(format!("trm {}\n    {}\n    {}", case.args, said.trim_end(), faults.join(", ")));
            }
        }
        assert!(wrong.is_empty(), "{} of {n} cases:\n{}", wrong.len(), wrong.join("\n"));
        println!("{n} cases");
    }
}

/// Every path below a folder with its length.
fn listing(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut paths = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            paths.push((path.clone(), if path.is_dir() { 0 } else { path.metadata().unwrap().len() }));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    paths.sort();
    paths
}

/// A folder with one short run (`run`) of a 4×4 model.
fn artefacts() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    succeed(train(&dir.path().join("run"), &["max_steps=2"]));
    dir
}

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
}

#[test]
fn bad_settings_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    write(d.join("file"), "not a folder");
    fs::create_dir(d.join("taken")).unwrap();
    write(d.join("taken/precious"), "x");
    write(d.join("binary.toml"), b"[model]\nh_cycles = 2 # \xff\xfe\n");
    write(d.join("big.toml"), vec![b'#'; 2 << 20]);
    write(d.join("cut.toml"), "[model]\nh_cycles =");
    write(d.join("key.toml"), "[model]\nhidden_sise = 32\n");
    write(d.join("section.toml"), "[modle]\nhidden_size = 32\n");
    write(d.join("loose.toml"), "hidden_size = 32\n");
    write(d.join("type.toml"), "[train]\nlr = \"fast\"\n");
    write(d.join("list.toml"), "[train]\nlr = [1, 2]\n");
    write(d.join("fraction.toml"), "[model]\nh_cycles = 2.5\n");
    write(d.join("negative.toml"), "\n\n[train]\nbatch_size = -3\n");
    write(d.join("twice.toml"), "[model]\nh_cycles = 1\nh_cycles = 2\n");
    write(d.join("preset.toml"), "preset = \"sudoku-4x5\"\n");
    write(d.join("zero.toml"), "[model]\nl_cycles = 0\n");

    let mut t = Table::default();
    for (file, fragments) in [
        ("missing.toml", &["missing.toml", "No such file"][..]),
        ("taken", &["{d}/taken"]),
        ("binary.toml", &["binary.toml", "not UTF-8 (byte 23)"]),
        ("big.toml", &["big.toml", "larger than 1 MiB"]),
        ("cut.toml", &["cut.toml:2", "not TOML"]),
        ("key.toml", &["key.toml:2", "unknown setting `model.hidden_sise`", "did you mean `model.hidden_size`?"]),
        ("section.toml", &["section.toml:1", "unknown section `modle`", "did you mean `model`?"]),
        ("loose.toml", &["loose.toml:1", "hidden_size belongs in the section [model]"]),
        ("type.toml", &["type.toml:2", "train.lr needs a number, not a string"]),
        ("list.toml", &["list.toml:2", "train.lr needs a plain value"]),
        ("fraction.toml", &["fraction.toml:2", "model.h_cycles needs a whole number"]),
        ("negative.toml", &["negative.toml:4", "train.batch_size = -3 is negative"]),
        ("twice.toml", &["twice.toml:3", "not TOML"]),
        ("preset.toml", &["preset.toml:1", "unknown preset `sudoku-4x5`", "did you mean `sudoku-4x4`?"]),
        ("zero.toml", &["zero.toml:2", "model.l_cycles = 0", "1 to"]),
    ] {
        t.case(&format!("train --config {{d}}/{file} --out {{out}}"), fragments);
    }
    for (set, fragments) in [
        ("h_cycles=0", &["model.h_cycles = 0", "1 to 1000"][..]),
        ("l_cycles=0", &["model.l_cycles = 0"]),
        ("n_layers=0", &["model.n_layers = 0"]),
        ("n_heads=0", &["model.n_heads = 0"]),
        ("n_heads=7", &["model.n_heads = 7 does not divide model.hidden_size = 64", "e.g. 4"]),
        ("hidden_size=0", &["model.hidden_size = 0"]),
        ("hidden_size=65536", &["GiB", "hidden_size"]),
        ("hidden_size=99999999999999999999", &["model.hidden_size needs a whole number"]),
        ("batch_size=0", &["train.batch_size = 0"]),
        ("batch_size=-1", &["negative"]),
        ("halt_max_steps=0", &["train.halt_max_steps = 0"]),
        ("lr=-0.1", &["train.lr = -0.1", "0 to"]),
        ("lr=nan", &["train.lr = NaN"]),
        ("lr=inf", &["train.lr = inf"]),
        ("lr=1e30", &["train.lr = 1"]),
        ("lr=fast", &["train.lr needs a number"]),
        ("weight_decay=-1", &["train.weight_decay = -1"]),
        ("puzzle_emb_lr=-1", &["train.puzzle_emb_lr = -1"]),
        ("ema_rate=1", &["train.ema_rate = 1", "excluded"]),
        ("beta1=-0.1", &["train.beta1 = -0.1"]),
        ("halt_exploration_prob=1.5", &["train.halt_exploration_prob = 1.5"]),
        ("grad_clip=-1", &["train.grad_clip = -1"]),
        ("expansion=-4", &["model.expansion = -4"]),
        ("act=maybe", &["train.act needs true or false"]),
        ("optimizer=sgd", &["train.optimizer", "adamw"]),
        ("mixing=mean", &["model.mixing", "mlp_t"]),
        ("positions=rope", &["model.positions", "mixing"]),
        ("sudoku_size=5", &["data.sudoku_size = 5", "4, 6 or 9"]),
        ("train_puzzles=0", &["data.train_puzzles = 0"]),
        ("test_puzzles=100000000", &["test puzzles"]),
        ("hiden_size=3", &["unknown setting `hiden_size`", "did you mean `model.hidden_size`?"]),
        ("lr", &["key=value"]),
        ("=3", &["unknown setting"]),
        ("model.lr=3", &["unknown setting `model.lr`", "`train.lr`"]),
        ("preset=sudoku-4x4", &["--preset"]),
        ("dir={d}/nowhere", &["{d}/nowhere"]),
        ("dir={d}/file", &["{d}/file"]),
        ("dir={d}/taken", &["{d}/taken"]),
        ("label_smoothing=1", &["train.label_smoothing = 1"]),
        ("gradient_groups=99", &["train.gradient_groups = 99", "32"]),
        ("vocab_size=0", &["task.vocab_size"]),
    ] {
        t.case(&format!("train --preset sudoku-4x4 --set {set} --out {{out}}"), fragments);
    }
    for (args, fragments) in [
        ("--preset sudoku-4x5", &["unknown preset `sudoku-4x5`", "did you mean `sudoku-4x4`?"][..]),
        ("--preset sudoku-extreme", &["data"]),
        ("--threads 0", &["--threads 0", "give 1 or more"]),
        ("--threads 99999", &["--threads 99999"]),
        ("--threads -1", &["--threads"]),
        ("--threads two", &["'two'", "--threads"]),
        ("--max-steps -5", &["--max-steps"]),
        ("--max-steps 9999999999999999", &["train.max_steps"]),
        ("--seed x", &["'x'", "--seed"]),
        ("--seed 18446744073709551615", &["seed"]),
        ("--sets lr=1", &["--sets", "--set"]),
        ("--data {d}/nowhere", &["{d}/nowhere"]),
        ("--preset sudoku-4x4 --config {d}/preset.toml", &["preset.toml:1", "sudoku-4x5"]),
        ("--resume", &["{out}", "not a run folder"]),
        ("surplus", &["'surplus'"]),
    ] {
        t.case(&format!("train {args} --out {{out}}"), fragments);
    }
    let tiny = tiny(&["max_steps=2"]).join(" ");
    for (out, fragments) in [
        ("{d}/taken", &["{d}/taken", "not empty", "--out"][..]),
        ("{d}/file", &["{d}/file", "cannot be written"]),
        ("{d}/file/below/it", &["{d}/file/below/it", "cannot be written"]),
        ("/proc/no/such", &["/proc/no/such", "cannot be written"]),
        ("''", &["--out", "value is required"]),
    ] {
        t.case(&format!("train {tiny} --out {out}"), fragments);
    }
    t.case("train --resume", &["--out"]);
    t.case("trian", &["'trian'", "'train'"]);
    t.case("eval", &["RUN"]);
    t.case("data build sudoku --size 5 --count 3 --test 1 --out {out}", &["5", "4, 6"]);
    t.case("data build sudoku --size 4 --count 3 --test 1 --out {d}/taken", &["{d}/taken", "not empty"]);
    t.case("data build sudoku --size 4 --count 3 --test 1 --out {d}/file", &["{d}/file"]);
    t.case("data build sudoku --size 4 --count 3 --test 1 --out {d}/file/below", &["{d}/file/below"]);
    t.case("data build sudoku --size 4 --count 0 --test 1 --out {out}", &["at least 1 training puzzle"]);
    t.case("completions tcsh", &["tcsh", "bash"]);
    t.run(d);
}

/// A safetensors file with this header text and so many bytes of data.
fn raw_safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn bad_weights_are_refused_in_one_line() {
    let dir = artefacts();
    let d = dir.path();
    let good = fs::read(d.join("run/weights.safetensors")).unwrap();
    let tensors = load_weights(&d.join("run/weights.safetensors")).unwrap();
    let first = tensors[0].clone();
    let save = |file: &str, change: &dyn Fn(&mut Vec<NamedTensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        save_weights(&d.join(file), &tensors).unwrap();
    };
    let one = |dtype: &str, shape: &str, end: u64| {
        format!(r#"{{"{}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#, first.name)
    };
    write(d.join("empty"), "");
    write(d.join("cut"), &good[..good.len() - 5]);
    write(d.join("header-cut"), &good[..40]);
    write(d.join("long"), [&good[..], b"more"].concat());
    write(d.join("noise"), vec![0x9f; 5000]);
    write(d.join("huge-header"), [&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    write(d.join("binary"), [&4u64.to_le_bytes()[..], b"\xff\xfe\xfd\xfc"].concat());
    write(d.join("lies"), raw_safetensors(&one("F32", "[3]", 8), 8));
    write(d.join("huge"), raw_safetensors(&one("F32", "[1099511627776]", 4 << 40), 8));
    write(d.join("overflows"), raw_safetensors(&one("F32", "[4294967296,4294967296,4294967296]", 8), 8));
    write(d.join("alone"), raw_safetensors(&one("F32", "[2]", 8), 8));
    save("renamed", &|t| t[0].name.push('s'));
    save("extra", &|t| t.push(NamedTensor::new("extra", [1], vec![0.0])));
    save("missing", &|t| drop(t.remove(0)));
    save("reshaped", &|t| t[0] = NamedTensor::new(&*t[0].name, [t[0].data.len(), 1], t[0].data.clone()));
    save("nan", &|t| t[0].data[1] = f32::NAN);
    let zeros = vec![0u8; 8 * first.data.len()];
    for (file, dtype) in [("doubles", Dtype::F64), ("whole-numbers", Dtype::I64)] {
        let view = TensorView::new(dtype, first.shape.clone(), &zeros).unwrap();
        write(d.join(file), safetensors::serialize([(&first.name, view)], None).unwrap());
    }
    write(d.join("other.toml"), "preset = \"sudoku-6x6\"\n");
    fs::create_dir(d.join("empty-folder")).unwrap();
    fs::create_dir(d.join("no-weights")).unwrap();
    fs::copy(d.join("run/config.toml"), d.join("no-weights/config.toml")).unwrap();

    let mut t = Table::default();
    let cases = [
        ("nowhere", &["no weights"][..]),
        ("empty", &["shorter than 8 bytes"]),
        ("cut", &["cut off?"]),
        ("header-cut", &["cut off?"]),
        ("long", &["more or fewer bytes than the file"]),
        ("noise", &["not a whole safetensors file"]),
        ("huge-header", &["header"]),
        ("binary", &["UTF-8"]),
        ("lies", &[first.name.as_str()]),
        ("huge", &["bytes than the file"]),
        ("overflows", &[first.name.as_str()]),
        ("alone", &["tensor `"]),
        ("renamed", &["is missing; the nearest name is", first.name.as_str()]),
        ("extra", &["tensor `extra` is not part of the model"]),
        ("missing", &[first.name.as_str(), "is missing"]),
        ("reshaped", &[first.name.as_str(), "has shape", "where the settings ask for"]),
        ("nan", &[first.name.as_str(), "holds NaN at element 1"]),
        ("doubles", &[first.name.as_str(), "F64", "convert it to F32"]),
        ("whole-numbers", &[first.name.as_str(), "I64"]),
    ];
    for (file, fragments) in cases {
        let path = format!("{{d}}/{file}");
        let fragments = [&[path.as_str()], fragments].concat();
        t.case(&format!("eval {{d}}/{file} --config {{d}}/run/config.toml"), &fragments);
    }
    let weights = "{d}/run/weights.safetensors";
    t.case("solve {d}/cut 1... --config {d}/run/config.toml", &["{d}/cut"]);
    t.case(&format!("eval {weights} --config {{d}}/other.toml"), &["has shape", "where the settings ask for"]);
    t.case(&format!("eval {weights} --config {{d}}/nowhere.toml"), &["{d}/nowhere.toml"]);
    t.case(&format!("eval {weights}"), &["not a run folder", weights]);
    t.case("eval {d}/nowhere", &["{d}/nowhere", "no such folder"]);
    t.case("eval {d}/empty-folder", &["{d}/empty-folder", "no config.toml"]);
    t.case("eval {d}/no-weights", &["{d}/no-weights/weights.safetensors", "no weights yet"]);
    t.case("eval {d}/run --split tset", &["tset", "test"]);
    t.case("eval {d}/run --steps 0", &["--steps 0", "1 or more"]);
    t.case("eval {d}/run --steps -1", &["--steps"]);
    t.case("eval {d}/run --id blank", &["--id is for a model that is told", "puzzle_emb_ndim = 0", "leave it out"]);
    t.case("eval {d}/run --threads 0", &["--threads 0"]);
    t.case("eval {d}/run --data {d}/nowhere", &["{d}/nowhere"]);
    t.case("eval {d}/run --data {d}/run", &["{d}/run"]);
    t.run(d);
}

#[test]
fn bad_puzzles_are_refused_in_one_line_that_says_which_kind_of_bad() {
    let dir = artefacts();
    let d = dir.path();
    let mut t = Table::default();
    let puzzles = [
        ("123", &["16", "3"][..]),
        ("12..34..........1", &["16", "17"]),
        ("''", &["16", "0"]),
        ("12x.............", &["cell 3", "row 1, column 3", "'x'"]),
        ("5...............", &["cell 1", "'5'"]),
        ("ééééééééééééééé1", &["'é'"]),
        ("1..1............", &["contradicts itself", "1"]),
        ("1....1..........", &["contradicts itself"]),
        ("123...4.........", &["no solution"]),
    ];
    for (puzzle, fragments) in puzzles {
        t.case(&format!("solve {{d}}/run {puzzle}"), fragments);
        if puzzle != "''" {
            t.piped("solve {d}/run -", puzzle.as_bytes(), fragments);
        }
    }
    t.piped("solve {d}/run -", b"", &["16", "0"]);
    t.piped("solve {d}/run -", b"\xff\xfe\x00\x01", &["UTF-8"]);
    t.piped("solve {d}/run -", &vec![b'1'; 200_000], &["16"]);
    t.piped("solve {d}/run -", &vec![b' '; 200_000], &["16"]);
    let good = "..1..4.24.2..1..";
    t.case(&format!("solve {{d}}/run {good} --steps 0"), &["--steps 0"]);
    t.case(&format!("solve {{d}}/nowhere {good}"), &["{d}/nowhere"]);
    t.case(&format!("solve {{d}}/run {good} --threads 0"), &["--threads 0"]);
    t.run(d);
}

/// The file of one array with this header text and so many bytes of data.
fn raw_npy(header: &str, data: usize) -> Vec<u8> {
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), &vec![0u8; data]].concat()
}

#[test]
fn bad_data_sets_are_refused_in_one_line() {
    let dir = artefacts();
    let d = dir.path();
    let mut build = trm();
    build.args(["data", "build", "sudoku", "--size", "4", "--count", "20", "--test", "5", "--out"]).arg(d.join("good"));
    succeed(build);
    let copy = |name: &str| {
        let to = d.join(name);
        for split in ["train", "test"] {
            fs::create_dir_all(to.join(split)).unwrap();
            for entry in fs::read_dir(d.join("good").join(split)).unwrap() {
                let from = entry.unwrap().path();
                fs::copy(&from, to.join(split).join(from.file_name().unwrap())).unwrap();
            }
        }
        fs::copy(d.join("good/identifiers.json"), to.join("identifiers.json")).unwrap();
        to
    };
    let inputs = "train/all__inputs.npy";
    let tokens: Array2<u8> = read_npy(d.join("good").join(inputs)).unwrap();
    let bytes = fs::read(d.join("good").join(inputs)).unwrap();
    let json = fs::read_to_string(d.join("good/train/dataset.json")).unwrap();
    let mut t = Table::default();
    let mut broken = |name: &str, file: &str, spoil: &dyn Fn(&Path), fragments: &[&str]| {
        let folder = copy(name);
        spoil(&folder.join(file));
        let path = format!("{{d}}/{name}/{file}");
        let fragments = [&[path.as_str()], fragments].concat();
        t.case(&format!("train --preset sudoku-4x4 --data {{d}}/{name} --out {{out}}"), &fragments);
        t.case(&format!("data info {{d}}/{name}"), &fragments);
        t.case(&format!("eval {{d}}/run --data {{d}}/{name}"), &fragments);
    };
    broken("gone", inputs, &|f| fs::remove_file(f).unwrap(), &["missing"]);
    broken("cut", inputs, &|f| write(f.into(), &bytes[..bytes.len() - 7]), &[]);
    broken("long", inputs, &|f| write(f.into(), [&bytes[..], b"1234567"].concat()), &[]);
    broken("noise", inputs, &|f| write(f.into(), [7; 999]), &[]);
    broken("empty", inputs, &|f| write(f.into(), ""), &[]);
    let columns = |f: &Path| {
        let mut by_column = Array2::<u8>::zeros(tokens.dim().f());
        by_column.assign(&tokens);
        write_npy(f, &by_column).unwrap();
    };
    broken("columns", inputs, &columns, &["order"]);
    broken("floats", inputs, &|f| write_npy(f, &tokens.mapv(f32::from)).unwrap(), &["f4"]);
    broken("narrow", inputs, &|f| write_npy(f, &tokens.slice(ndarray::s![.., ..9])).unwrap(), &["16", "9"]);
    let short = |f: &Path| write_npy(f, &tokens.slice(ndarray::s![..9, ..])).unwrap();
    broken("short", "train/all__labels.npy", &short, &["[9, 16]", "[20, 16]"]);
    let outside = |f: &Path| {
        let mut tokens = tokens.clone();
        tokens[[3, 2]] = 99;
        write_npy(f, &tokens).unwrap();
    };
    broken("outside", inputs, &outside, &["99", "vocab"]);
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (900000000000, 16), }\n";
    broken("liar", inputs, &|f| write(f.into(), raw_npy(header, 320)), &[]);
    broken("no-json", "train/dataset.json", &|f| fs::remove_file(f).unwrap(), &["missing"]);
    broken("cut-json", "train/dataset.json", &|f| write(f.into(), &json[..json.len() / 2]), &["JSON"]);
    broken("big-json", "train/dataset.json", &|f| write(f.into(), vec![b' '; 70 << 20]), &[]);
    broken("binary-json", "train/dataset.json", &|f| write(f.into(), b"\xff\xfe{}"), &[]);
    let zero = |f: &Path| write(f.into(), json.replace("\"vocab_size\": 6", "\"vocab_size\": 0"));
    assert!(json.contains("\"vocab_size\": 6"), "{json}");
    broken("no-vocabulary", "train/dataset.json", &zero, &["vocab_size"]);
    let online = "train --preset sudoku-4x4 --set n_layers=1 --data {d}/good --out {out}";
    t.case(&format!("{online} --set test_puzzles=0"), &["data.test_puzzles"]);
    t.case(&format!("{online} --set batch_size=2000 --max-steps 0 --set epochs=1"), &["train.batch_size = 2000"]);
    let mut nine = trm();
    nine.args(["data", "build", "sudoku", "--size", "6", "--count", "5", "--test", "2", "--out"]).arg(d.join("six"));
    succeed(nine);
    t.case("eval {d}/run --data {d}/six", &["36", "16"]);
    t.case("data info {d}/nowhere", &["{d}/nowhere"]);
    t.case("data audit {d}/nowhere", &["{d}/nowhere"]);
    t.run(d);
}

#[test]
fn bad_csv_files_are_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let question = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79";
    let answer = "534678912672195348198342567859761423426853791713924856961537284287419635345286179";
    let file = |rows: &str| format!("source,question,answer,rating\n{rows}");
    let row = |q: &str, a: &str| format!("x,{q},{a},0\n");
    write(d.join("good.csv"), file(&row(question, answer)));
    let bad = [
        ("empty.csv", b"".to_vec(), &[][..]),
        ("boardless.csv", b"a,b,c\n1,2,3\n".to_vec(), &["question"]),
        ("no-rows.csv", file("").into_bytes(), &[]),
        (
            "binary.csv",
            [
                file(&row(question, answer)).as_bytes(),
                b"x,\xff\xfe",
                &question.as_bytes()[2..],
                b",",
                answer.as_bytes(),
                b",0\n",
            ]
            .concat(),
            &["csv:3", "question"],
        ),
        ("cut.csv", file(&format!("{}x,{}", row(question, answer), &question[..50])).into_bytes(), &["3"]),
        ("short.csv", file(&row(&question[1..], answer)).into_bytes(), &["81"]),
        ("letters.csv", file(&row(&question.replace('5', "q"), answer)).into_bytes(), &["'q'"]),
        ("wide.csv", file(&row(&".".repeat(3_000_000), answer)).into_bytes(), &["81"]),
        ("zip.csv", vec![0; 5000], &[]),
    ];
    let mut t = Table::default();
    for (name, bytes, fragments) in bad {
        write(d.join(name), bytes);
        let path = format!("{{d}}/{name}");
        let fragments = [&[path.as_str()], fragments].concat();
        let import = "data import sudoku-extreme --aug 2 --out {out}";
        t.case(&format!("{import} --csv {{d}}/{name} --test-csv {{d}}/good.csv"), &fragments);
        t.case(&format!("{import} --csv {{d}}/good.csv --test-csv {{d}}/{name}"), &fragments);
    }
    t.case("data import sudoku-extreme --csv {d} --test-csv {d}/good.csv --out {out}", &["{d}"]);
    t.case("data import sudoku-extreme --csv {d}/none.csv --test-csv {d}/good.csv --out {out}", &["{d}/none.csv"]);
    t.case("data import sudoku-extreme --csv {d}/good.csv --test-csv {d}/good.csv --out {d}/good.csv", &["good.csv"]);
    t.run(d);
}
