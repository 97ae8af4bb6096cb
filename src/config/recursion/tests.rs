use proptest::prelude::*;

use super::*;
use crate::config::{Config, presets};

const SLOW_MEMORY: &str = include_str!("../../../data/recursions/slow-memory.toml");

fn config(sets: &[&str]) -> ModelConfig {
    let sets: Vec<String> = sets.iter().map(|&s| s.to_owned()).collect();
    Config::resolve(None, None, &sets).expect("settings").model
}

/// The calls as text, `●` in front of marked ones.
fn calls(recursion: &Recursion, config: &ModelConfig) -> Vec<String> {
    let mark = |recorded| if recorded { "●" } else { "" };
    let calls = recursion.unrolled(config).into_iter();
    calls.map(|(call, recorded)| format!("{}{}", mark(recorded), recursion.formula(call, "="))).collect()
}

#[test]
fn the_embedded_recursions_make_the_papers_calls_for_all_t_and_n() {
    for (t, n) in [(1, 1), (1, 3), (2, 2), (3, 6), (7, 4)] {
        let settings = config(&[&format!("h_cycles={t}"), &format!("l_cycles={n}")]);
        let cycles = |z: Vec<String>, y: &str| vec![[z, vec![y.to_owned()]].concat(); t].concat();
        let of = |arch, separate| calls(embedded(arch, separate).expect("embedded"), &settings);
        let times = |call: &str| vec![call.to_owned(); n];
        assert_eq!(of(Arch::Trm, false), cycles(times("z = f(z + y + x)"), "y = f(y + z)"));
        let two = cycles(times("z = f_L(z + y + x)"), "y = f_H(y + z)");
        assert_eq!([of(Arch::Trm, true), of(Arch::Hrm, false)], [two.clone(), two]);
        assert_eq!(of(Arch::Singlez, false), cycles(times("z = f(z + x)"), "z = f(z)"));
        let each = (1..=n).map(|i| format!("z{i} = f(z1 + z2 + z3 + z4 + z5 + z6 + y + x)"));
        assert_eq!(of(Arch::Hier6, false), cycles(each.collect(), "y = f(y + z1 + z2 + z3 + z4 + z5 + z6)"));
        assert_eq!(of(Arch::Transformer, false), ["y = f(y + x)"]);
        assert_eq!(of(Arch::Direct, false), ["y = f(x)"]);
        for (arch, separate, _) in TEXTS {
            let recursion = embedded(arch, separate).expect("embedded");
            let one_call = matches!(arch, Arch::Transformer | Arch::Direct);
            let cycle = if one_call { 1 } else { n as u64 + 1 };
            assert_eq!(recursion.n_last_cycle(&settings), cycle, "{arch:?}");
            assert_eq!(recursion.first_cycle(&settings), (!one_call).then_some((cycle, t as u64)), "{arch:?}");
            assert_eq!(recursion.n_calls(&settings), if one_call { 1 } else { cycle * t as u64 });
            assert_eq!(recursion.carries(&settings), arch != Arch::Direct);
        }
    }
}

#[test]
fn the_embedded_recursions_keep_the_published_names_and_rules() {
    let names = |arch, separate| {
        let recursion = embedded(arch, separate).expect("embedded");
        let states: Vec<&str> = recursion.states().iter().map(|s| s.name.as_str()).collect();
        let networks: Vec<&str> = recursion.networks().iter().map(|n| n.name.as_str()).collect();
        (states.join(" "), networks.join(" "), recursion.compares_q(), recursion.prefix)
    };
    let expect =
        |states: &str, networks: &str, compares_q, prefix| (states.to_owned(), networks.to_owned(), compares_q, prefix);
    let setting = Prefix::Setting;
    assert_eq!(names(Arch::Trm, false), expect("H L", "L_level", false, setting));
    assert_eq!(names(Arch::Trm, true), expect("H L", "L_level H_level", false, setting));
    assert_eq!(names(Arch::Hrm, false), expect("H L", "L_level H_level", true, Prefix::Fit));
    assert_eq!(names(Arch::Singlez, false), expect("L", "L_level", false, setting));
    assert_eq!(names(Arch::Hier6, false), expect("H L1 L2 L3 L4 L5 L6", "L_level", false, setting));
    assert_eq!(names(Arch::Transformer, false), expect("H", "H_level", true, Prefix::Fit));
    assert_eq!(names(Arch::Direct, false), expect("H", "L_level", false, setting));
}

#[test]
fn each_network_has_the_layers_it_goes_by() {
    let layers = |settings: &ModelConfig| -> Vec<usize> {
        settings.recursion().networks().iter().map(|network| network.layers.of(settings)).collect()
    };
    let hrm = ["arch=hrm", "continue_loss=true", "n_layers=4"];
    assert_eq!(layers(&config(&hrm)), [4, 4]);
    assert_eq!(layers(&config(&[&hrm[..], &["h_layers=3"]].concat())), [4, 3]);
    assert_eq!(layers(&config(&[&hrm[..], &["h_layers=3", "l_layers=2"]].concat())), [2, 3]);
    assert_eq!(layers(&config(&["l_layers=5"])), [5]);
}

#[test]
fn what_is_written_is_what_was_read() {
    let marked = "states = [\"y\", \"z\"]\nnetworks = [\"f\"]\nanswer = \"y\"\nsteps = [\"z = f(x)\", \
                  { repeat = 3, recorded = \"last\", steps = [{ call = \"y = f(y + z)\", recorded = true }] }]";
    let texts = TEXTS.iter().map(|(.., text)| *text).chain([SLOW_MEMORY, marked]);
    for text in texts {
        let recursion: Recursion = text.parse().expect("good");
        assert_eq!(recursion.to_string().parse::<Recursion>().as_ref(), Ok(&recursion), "{recursion}");
    }
}

#[test]
fn marks_say_which_calls_are_recorded() {
    let settings = config(&["h_cycles=2", "l_cycles=2"]);
    let marked = |steps: &str| {
        let text = format!("states = [\"y\", \"z\"]\nnetworks = [\"f\"]\nanswer = \"y\"\nsteps = [{steps}]");
        calls(&text.parse().expect("good"), &settings).join(" ").replace("(z + y + x)", "").replace("(y + z)", "")
    };
    let z = "\"z = f(z + y + x)\"";
    assert_eq!(
        marked(&format!("{{ repeat = \"h_cycles\", recorded = \"last\", steps = [{z}, \"y = f(y + z)\"] }}")),
        "z = f y = f ●z = f ●y = f"
    );
    assert_eq!(
        marked(&format!(
            "{{ repeat = 2, steps = [{z}, {{ call = \"y = f(y + z)\", recorded = true }}] }}, {{ first = \"l_cycles\", \
             recorded = true, steps = [{z}, {z}, {z}] }}"
        )),
        "z = f ●y = f z = f ●y = f ●z = f ●z = f"
    );
}

/// A recursion with one key in place of its own.
fn with(key: &str, value: &str) -> String {
    let good = [
        ("states", r#"["y", "z"]"#),
        ("networks", r#"["f"]"#),
        ("answer", r#""y""#),
        ("steps", r#"["z = f(z + y + x)", "y = f(y + z)"]"#),
    ];
    let others = good.iter().filter(|(known, _)| *known != key).map(|(key, value)| format!("{key} = {value}\n"));
    format!("{}{key} = {value}\n", others.collect::<String>())
}

#[test]
fn bad_recursions_are_refused_in_one_line() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("steps", r#"["z = f(q + x)", "y = f(y + z)"]"#, &["`z = f(q + x)`", "unknown state `q`", "y, z"]),
        ("steps", r#"["q = f(x)"]"#, &["unknown state `q`"]),
        ("steps", r#"["x = f(y)"]"#, &["x is the question"]),
        ("steps", r#"["z = g(x)"]"#, &["unknown network `g`", "there is f"]),
        ("steps", r#"["z = f"]"#, &["write it as"]),
        ("steps", r#"["z f(x)"]"#, &["write it as"]),
        ("steps", r#"["z = f(x"]"#, &["write it as"]),
        ("steps", r#"["z = f()"]"#, &["unknown state ``"]),
        ("steps", r#"["z = f(x + )"]"#, &["unknown state ``"]),
        ("steps", r#"["z = f(x+x+x+x+x+x+x+x+x)"]"#, &["9 summands", "at most 8"]),
        ("steps", r#"["z = f(z + x)"]"#, &["no step writes the answer y"]),
        ("steps", r#"["y = f(y + z)"]"#, &["no step writes z"]),
        ("steps", r#"["z = f(y + x)", "y = f(y)"]"#, &["no step reads z"]),
        ("steps", "[]", &["steps = []"]),
        ("steps", "3", &["steps needs a list"]),
        ("steps", "[3]", &["a step is not `3`"]),
        ("steps", r#"[{ repeat = 0, steps = ["y = f(y)"] }]"#, &["repeat = `0`", "1 to 1000"]),
        ("steps", r#"[{ repeat = "n_layers", steps = ["y = f(y)"] }]"#, &["repeat", "h_cycles, l_cycles"]),
        ("steps", r#"[{ first = 2, steps = ["y = f(y)"] }]"#, &["first = 2", "1 steps"]),
        ("steps", r#"[{ steps = ["y = f(y)"] }]"#, &["either repeat or first"]),
        ("steps", r#"[{ repeat = 2 }]"#, &["either repeat or first"]),
        ("steps", r#"[{ repeat = 2, first = 2, steps = ["y = f(y)"] }]"#, &["either repeat or first"]),
        ("steps", r#"[{ repeat = 2, step = ["y = f(y)"] }]"#, &["unknown key `step`", "did you mean `steps`"]),
        ("steps", r#"[{ call = "y = f(y)", recorded = "last" }]"#, &["recorded", "beside repeat"]),
        ("steps", r#"[{ call = "y = f(y)", recorded = 1 }]"#, &["recorded", "true or false"]),
        ("states", "[]", &["states: there are none"]),
        ("states", r#"["a", "b", "c", "d", "e", "f", "g", "h"]"#, &["8 states", "at most 7"]),
        ("states", r#"["y", "y"]"#, &["two states are `y`"]),
        ("states", r#"["y", "x"]"#, &["cannot be x"]),
        ("states", r#"["y", "z z"]"#, &["cannot be a name"]),
        ("states", r#"["y", { symbol = "z" }]"#, &["a state needs a name"]),
        ("states", r#"["y", "z", "w"]"#, &["no step writes w"]),
        ("networks", "[]", &["networks: there are none"]),
        ("networks", r#"["f", "g"]"#, &["no step calls the network g"]),
        ("networks", r#"[{ name = "f", layers = 0 }]"#, &["layers = `0`"]),
        ("networks", r#"[{ name = "f", layers = "h_cycles" }]"#, &["layers", "n_layers"]),
        ("networks", r#"[{ name = "f", depth = 3 }]"#, &["unknown key `depth`"]),
        ("answer", r#""w""#, &["answer: unknown state `w`"]),
        ("answer", "true", &["answer needs a string"]),
        ("prefix", r#""none""#, &["prefix = `none`", "fit"]),
        ("mixing", r#""conv""#, &["mixing = `conv`"]),
        ("compares_q", "1", &["compares_q needs true or false"]),
        ("continue_loss", r#""yes""#, &["continue_loss needs true or false"]),
        ("name", r#""a\nb""#, &["name = `a\\nb`"]),
        ("halts", "true", &["unknown key `halts`"]),
    ];
    for (key, value, words) in cases {
        let line = with(key, value).parse::<Recursion>().expect_err(value);
        assert!(!line.contains('\n'), "{value}: {line}");
        for word in *words {
            assert!(line.contains(word), "{value}: no {word:?} in: {line}");
        }
    }
    for key in ["states", "networks", "answer", "steps"] {
        let without: String = with(key, "0")
            .lines()
            .filter(|line| !line.starts_with(key))
            .fold(String::new(), |text, line| text + line + "\n");
        let line = without.parse::<Recursion>().expect_err(key);
        assert_eq!(line, format!("a recursion needs {key}"));
    }
    assert!("name = ".parse::<Recursion>().expect_err("no TOML").starts_with("line 1: not TOML"));
    let deep = (0..12).fold(r#""y = f(y + z)""#.to_owned(), |inner, _| format!("{{ repeat = 1, steps = [{inner}] }}"));
    assert!(with("steps", &format!("[{deep}]")).parse::<Recursion>().expect_err("deep").contains("deeper than 8"));
    assert!(with("steps", r#"["y = f(y + x)", "z = f(z)"]"#).parse::<Recursion>().is_ok(), "a state of its own");
}

/// Settings whose recursion does not fit them: the `[model]` and `[train]` lines, the recursion, and words of the line.
#[test]
fn recursions_that_do_not_fit_the_other_settings_are_refused_in_one_line() {
    let marked =
        |recorded: &str| with("steps", &format!(r#"["z = f(z + y + x)", {{ call = "y = f(y + z)"{recorded} }}]"#));
    let (plain, nothing_carried) = (with("name", "\"mine\""), with("steps", r#"["z = f(x)", "y = f(z)"]"#));
    let many = with(
        "steps",
        r#"[{ repeat = 1000, steps = [{ repeat = 1000, steps = [{ repeat = 3, steps = ["z = f(z + y + x)", "y = f(y + z)"] }] }] }]"#,
    );
    let first = with("steps", r#"[{ first = "l_cycles", steps = ["z = f(z + x)", "z = f(z + y)", "y = f(y + z)"] }]"#);
    let hrm_like = with("continue_loss", "true");
    let attention = with("mixing", "\"attention\"");
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("arch = \"hrm\"\n", "", "", &["model.recursion", "own"]),
        ("gradient = \"marked\"\n", "", &plain, &["mine marks no step"]),
        ("", "", &marked(", recorded = true"), &["gradient = \"marked\""]),
        (
            "gradient = \"marked\"\n",
            "",
            &with("steps", r#"[{ call = "z = f(z + y + x)", recorded = true }, "y = f(y + z)"]"#),
            &["does not record"],
        ),
        ("", "", &many, &["6000000 calls", "at most 2097152"]),
        ("l_cycles = 4\n", "", &first, &["model.l_cycles = 4", "the 3 steps", "1 to 3"]),
        ("l_cycles = 2\n", "", &first, &["never comes to the step"]),
        ("", "", &nothing_carried, &["halt_max_steps = 1"]),
        ("", "", &hrm_like, &["train.continue_loss = true"]),
        ("", "", &attention, &["model.mixing = \"attention\""]),
        ("h_layers = 3\n", "", &plain, &["model.h_layers = 3", "leave it 0"]),
        ("separate_nets = true\n", "", &plain, &["model.separate_nets"]),
        ("fixed_point = \"plain\"\n", "", &plain, &["model.fixed_point"]),
        ("gradient = \"last_k\"\nlast_k = 3\n", "", &plain, &["model.last_k = 3", "the 2 calls"]),
    ];
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("mine.toml");
    for (model, train, recursion, words) in cases {
        let own = if recursion.is_empty() { String::new() } else { format!("[model.recursion]\n{recursion}") };
        std::fs::write(&file, format!("[train]\n{train}\n[model]\n{model}{own}")).expect("write");
        let resolved = match recursion.is_empty() {
            // HRM's settings, and `own` on top without a recursion.
            true => Config::resolve(None, None, &["arch=own".to_owned()]),
            false => Config::resolve(None, Some(&file), &[]),
        };
        let line = resolved.expect_err(recursion).to_string();
        assert!(!line.contains('\n'), "{line}");
        for word in *words {
            assert!(line.contains(word), "no {word:?} in: {line}");
        }
    }
}

#[test]
fn a_recursion_is_given_as_a_table_or_as_a_file_and_what_is_said_last_holds() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("folder");
        std::fs::write(&file, text).expect("write");
        file
    };
    let memory: Recursion = SLOW_MEMORY.parse().expect("good");
    write("recursions/m.toml", SLOW_MEMORY);
    let by_name = write("experiments/a.toml", "[model]\nrecursion = \"../recursions/m.toml\"\n");
    let inline = write("b.toml", &format!("[model]\nh_cycles = 3\n[model.recursion]\n{SLOW_MEMORY}"));
    for file in [&by_name, &inline] {
        let model = Config::resolve(None, Some(file), &[]).expect("good").model;
        assert_eq!((model.arch, model.recursion.as_ref()), (Arch::Own, Some(&memory)));
        let hrm = ["arch=hrm".to_owned(), "continue_loss=true".to_owned()];
        let model = Config::resolve(None, Some(file), &hrm).expect("good").model;
        assert_eq!((model.arch, &model.recursion), (Arch::Hrm, &None));
    }
    let set = format!("recursion={}", folder.path().join("recursions/m.toml").display());
    let model = Config::resolve(Some("maze-8x8"), None, &[set]).expect("good").model;
    assert_eq!((model.arch, model.recursion.as_ref()), (Arch::Own, Some(&memory)));

    for (text, words) in [
        (
            "[model]\n\nrecursion = \"nowhere.toml\"\n",
            [
                ".toml:3: model.recursion",
                "nowhere.toml: no such file; give a recursion's file, or name a built-in one by arch",
            ],
        ),
        ("[model]\nrecursion = 3\n", [".toml:2:", "a table, or the name of a file"]),
        ("[model.recursion]\nstates = 3\n", ["model.recursion", "states needs a list"]),
        ("[model]\nrecursion = \"b.toml\"\n", ["b.toml", "unknown key `model`"]),
    ] {
        let line = Config::resolve(None, Some(&write("bad.toml", text)), &[]).expect_err(text).to_string();
        assert!(!line.contains('\n') && words.iter().all(|word| line.contains(word)), "{line}");
    }
}

#[test]
fn a_stored_run_holds_its_whole_recursion_and_one_without_the_newer_keys_still_loads() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("config.toml");
    for preset in presets() {
        let config = Config::preset(preset.name).expect("preset");
        let text = config.to_toml();
        std::fs::write(&file, &text).expect("write");
        let table: toml::Table = text.parse().expect("TOML");
        assert_eq!(Recursion::from_value(&table["model"]["recursion"]).as_ref(), Ok(config.model.recursion()));
        assert_eq!(Config::resolve(None, Some(&file), &[]).expect("stored"), config, "{}", preset.name);

        let newer = ["h_layers", "l_layers"];
        let old = text.split("\n[model.recursion]").next().expect("text");
        let old = old.lines().filter(|line| !newer.iter().any(|key| line.starts_with(key)));
        std::fs::write(&file, old.collect::<Vec<_>>().join("\n")).expect("write");
        assert_eq!(Config::resolve(None, Some(&file), &[]).expect("an old one"), config, "{}", preset.name);
    }
    // Stored when the embedded file was another, a run keeps what it was started with.
    let mut changed = Config::default();
    let other = changed.model.recursion().to_string().replace("z + y + x", "z + x");
    changed.model.recursion = Some(other.parse().expect("good"));
    std::fs::write(&file, changed.to_toml()).expect("write");
    assert_eq!(Config::resolve(None, Some(&file), &[]).expect("stored"), changed);
    assert_eq!(Config::default().differences(&changed), ["model.recursion: trm -> trm"]);
}

proptest! {
    #[test]
    fn no_text_panics_and_every_refusal_is_one_line(
        key in prop_oneof![Just("steps"), Just("states"), Just("networks"), Just("answer"), Just("prefix")],
        value in "[\\[\\]{}a-z_.,=\"0-9+() \\n-]{0,80}",
    ) {
        if let Err(line) = with(key, &value).parse::<Recursion>() {
            prop_assert!(!line.contains('\n'), "{}", line);
        }
    }

    #[test]
    fn random_recursions_are_refused_in_one_line_or_read_back_counted_and_unrolled(
        text in random_recursion(), t in 1..4usize, n in 1..4usize,
    ) {
        match text.parse::<Recursion>() {
            Err(line) => prop_assert!(!line.contains('\n'), "{}", line),
            Ok(recursion) => {
                prop_assert_eq!(recursion.to_string().parse::<Recursion>(), Ok(recursion.clone()));
                let mut model = Config::default().model;
                (model.h_cycles, model.l_cycles, model.arch, model.recursion) = (t, n, Arch::Own, Some(recursion.clone()));
                let unrolled = recursion.unrolled(&model);
                prop_assert_eq!(unrolled.len() as u64, recursion.n_calls(&model));
                prop_assert!(recursion.n_last_cycle(&model) <= recursion.n_calls(&model));
                if let Some((cycle, passes)) = recursion.first_cycle(&model) {
                    prop_assert!(cycle * passes <= recursion.n_calls(&model));
                    let (first, rest) = unrolled.split_at(cycle as usize);
                    prop_assert!(passes == 1 || first.iter().zip(rest).all(|((a, _), (b, _))| a == b));
                }
                prop_assert!(recursion.has_marks() || unrolled.iter().all(|(_, recorded)| !recorded));
                // Whatever is valid becomes a schedule, and a text that is read back.
                let mut config = Config { model, ..Config::default() };
                if recursion.has_marks() {
                    config.model.gradient = crate::config::Gradient::Marked;
                }
                match config.validate() {
                    Err(error) => prop_assert!(!error.to_string().contains('\n'), "{}", error),
                    Ok(()) => prop_assert!(config.to_toml().contains("[model.recursion]")),
                }
            }
        }
    }
}

/// Mostly sound recursions over two or three states and one or two networks.
fn random_recursion() -> impl Strategy<Value = String> {
    let state = prop_oneof![4 => Just("y"), 4 => Just("z"), 1 => Just("w")];
    let input = prop_oneof![4 => Just("y"), 4 => Just("z"), 3 => Just("x"), 1 => Just("w")];
    let network = prop_oneof![5 => Just("f"), 1 => Just("g")];
    let call = (state, network, proptest::collection::vec(input, 1..5), any::<bool>(), 0..4u8).prop_map(
        |(state, network, inputs, recorded, plain)| {
            let call = format!("\"{state} = {network}({})\"", inputs.join(" + "));
            if plain > 0 { call } else { format!("{{ call = {call}, recorded = {recorded} }}") }
        },
    );
    let count = prop_oneof![Just("\"h_cycles\""), Just("\"l_cycles\""), Just("1"), Just("2"), Just("3")];
    let mark = prop_oneof![6 => Just(""), 1 => Just("recorded = true, "), 1 => Just("recorded = \"last\", ")];
    let step = call.prop_recursive(3, 24, 4, move |inner| {
        let key = prop_oneof![3 => Just("repeat"), 1 => Just("first")];
        (key, count.clone(), mark.clone(), proptest::collection::vec(inner, 1..4)).prop_map(
            |(key, count, mark, steps)| format!("{{ {key} = {count}, {mark}steps = [{}] }}", steps.join(", ")),
        )
    });
    let networks = prop_oneof![
        3 => Just(r#"["f"]"#),
        1 => Just(r#"["f", { symbol = "g", name = "G", layers = "h_layers" }]"#),
        1 => Just(r#"[{ name = "f", layers = 3 }]"#),
    ];
    let states = prop_oneof![3 => Just(r#"["y", "z"]"#), 1 => Just(r#"["y"]"#), 1 => Just(r#"["y", "z", "w"]"#)];
    (states, networks, proptest::collection::vec(step, 1..4)).prop_map(|(states, networks, steps)| {
        format!("states = {states}\nnetworks = {networks}\nanswer = \"y\"\nsteps = [{}]\n", steps.join(", "))
    })
}
