//! Stacking settings: preset, file, `--set`; each value remembers where it came from, so that an error can say so.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{Config, Recursion, check, presets, recursion};
use crate::error::{Error, Result, did_you_mean, nearest};
use crate::puzzle::games;

/// A settings file is short; anything longer is not one.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The one key whose value may be a table.
const RECURSION: &str = "model.recursion";
/// Settings of `[train]` that came after runs had been stored without them, and what such a run was trained by.
const LATER: [(&str, &str); 6] = [
    ("ema_warmup", "false"),
    ("train_only", "all"),
    ("eval_split", "test"),
    ("keep_best", ""),
    ("stop_after", "0"),
    ("detached_precision", "same"),
];
/// What the origin of a preset's values begins with.
const PRESET_ORIGIN: &str = "preset ";
/// What the origin of an argument's value begins with.
const SET_ORIGIN: &str = "--set ";
/// Keys beside the sections at the top of a file.
const TOP_KEYS: [&str; 4] = ["preset", "description", "source", "published_accuracy"];

impl Config {
    /// The settings of a run: `preset` (else the file's own `preset = "…"`, else the default), then the file's
    /// differences, then every `key=value` of `sets` in order. The result is validated.
    pub fn resolve(preset: Option<&str>, file: Option<&Path>, sets: &[String]) -> Result<Self> {
        Stack::of(preset, file, sets)?.finish()
    }

    /// The quick start's settings with `sets` over them, without the checks that compare one setting with another. Each
    /// `key=value` is still checked alone: its key exists, its value has the key's type. For overrides of settings that
    /// are not known before the data set is read.
    pub fn resolve_apart(sets: &[String]) -> Result<Self> {
        Stack::of(None, None, sets)?.read()
    }

    /// The keys (`section.key`) to which `file` and `sets` give another value than the base of all presets has: what somebody
    /// has chosen for this run, as far as the settings tell. A file with every key, such as a run is stored with, chooses none.
    pub fn said(preset: Option<&str>, file: Option<&Path>, sets: &[String]) -> Result<BTreeSet<String>> {
        let stack = Stack::of(preset, file, sets)?;
        let (base, chosen) = (leaves(&Self::default()), leaves(&stack.read()?));
        let from = |key: &str, start: &str| stack.origins.get(key).is_some_and(|(_, origin)| origin.starts_with(start));
        let given = |key: &str| stack.origins.contains_key(key) && !from(key, PRESET_ORIGIN);
        let has_every_key = base.keys().all(|key| key == RECURSION || given(key));
        let is_said = |key: &str| if has_every_key { from(key, SET_ORIGIN) } else { given(key) };
        Ok(base
            .iter()
            .filter(|(key, value)| is_said(key) && chosen.get(*key) != Some(value))
            .map(|(key, _)| key.clone())
            .collect())
    }

    /// The settings of one preset.
    pub fn preset(name: &str) -> Result<Self> {
        Self::resolve(Some(name), None, &[])
    }

    /// Every setting, as TOML, with the whole recursion even where `arch` names it: what a run is stored with does not
    /// depend on the files below `data/recursions`. [`Config::resolve`] of it gives back the same bits.
    pub fn to_toml(&self) -> String {
        let mut scalars = self.clone();
        scalars.model.recursion = None;
        let settings = toml::to_string(&scalars).expect("validated settings are TOML");
        let settings = settings.replacen("recursion = \"\"\n", "", 1);
        let recursion = self.model.recursion();
        format!("# Every setting of this run.\n\n{settings}\n[model.recursion]\n{recursion}")
    }

    /// The keys whose values differ, as `section.key: mine -> theirs`; empty when the settings are equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (mine, theirs) = (leaves(self), leaves(other));
        // A generator's setting may be missing on one side, where its puzzle was registered in between.
        let shown = |value: Option<&Value>| value.map_or_else(|| "not set".into(), ToString::to_string);
        let keys: BTreeSet<&String> = mine.keys().chain(theirs.keys()).collect();
        let differing = keys.into_iter().filter(|key| mine.get(*key) != theirs.get(*key));
        differing
            .map(|key| {
                if key == RECURSION {
                    return format!("{key}: {} -> {}", self.model.recursion().name(), other.model.recursion().name());
                }
                format!("{key}: {} -> {}", shown(mine.get(key)), shown(theirs.get(key)))
            })
            .collect()
    }
}

impl Default for Config {
    /// The quick start's settings.
    fn default() -> Self {
        Self::preset(presets::DEFAULT_PRESET).expect("the default preset is valid")
    }
}

fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let table = Table::try_from(config).expect("settings are a table");
    let mut all = BTreeMap::new();
    for (section, inner) in table {
        let Value::Table(inner) = inner else { continue };
        all.extend(inner.into_iter().map(|(leaf, value)| (format!("{section}.{leaf}"), value)));
    }
    all
}

/// A TOML text and the name it goes by in errors.
struct Source {
    name: String,
    text: String,
    /// What names of files in it are relative to.
    folder: PathBuf,
}

impl Source {
    fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::input(format!("{name}: larger than 1 MiB, so not a settings file; give a TOML file")));
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::input(format!("{name}: not UTF-8 (byte {}); give a TOML file", e.utf8_error().valid_up_to()))
        })?;
        Ok(Self { name, text, folder: path.parent().map_or_else(PathBuf::new, Path::to_path_buf) })
    }

    /// `name:line` of the byte `offset`.
    fn at(&self, offset: usize) -> String {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        format!("{}:{}", self.name, 1 + before.iter().filter(|&&b| b == b'\n').count())
    }
}

/// The settings so far, and where each that is not the base's came from.
struct Stack {
    table: Table,
    /// `section.leaf` → (layer number, origin as an error prefix).
    origins: BTreeMap<String, (usize, String)>,
    layer: usize,
}

impl Stack {
    fn base() -> Self {
        let text = presets::text(presets::DEFAULT_PRESET).expect("the base is embedded");
        let mut table: Table = text.parse().expect("the base is TOML");
        TOP_KEYS.iter().for_each(|top| drop(table.remove(*top)));
        if let Some(data) = table.get_mut("data").and_then(Value::as_table_mut) {
            for setting in games().into_iter().flat_map(|game| game.settings()) {
                let default = Value::try_from(setting.default).expect("a setting is a plain value");
                data.entry(setting.key).or_insert(default);
            }
        }
        Self { table, origins: BTreeMap::new(), layer: 0 }
    }

    fn preset(&mut self, name: &str, origin: &str) -> Result<()> {
        let Some(text) = presets::text(name) else {
            let hint = did_you_mean(name, presets::names());
            return Err(Error::input(format!(
                "{origin}: unknown preset {}{hint} (`trm presets` lists them)",
                shown(name)
            )));
        };
        if name == presets::DEFAULT_PRESET {
            return Ok(());
        }
        self.file(
            &Source { name: format!("{PRESET_ORIGIN}{name}"), text: text.to_owned(), folder: PathBuf::new() },
            None,
        )
    }

    /// Puts the differences of a TOML text on the preset it names (or on `preset`, which must not contradict it).
    fn file(&mut self, source: &Source, preset: Option<&str>) -> Result<()> {
        let document = DeTable::parse(&source.text).map_err(|e| {
            let at = source.at(e.span().map_or(0, |s| s.start));
            Error::input(format!("{at}: not TOML: {}", e.message().replace('\n', ", ")))
        })?;
        let document = document.get_ref();
        for top in TOP_KEYS {
            let Some(value) = document.get(top) else { continue };
            let (fits, needs) = match top {
                "published_accuracy" => (value.get_ref().is_float(), "a number with a point"),
                _ => (value.get_ref().is_str(), "a string"),
            };
            if !fits {
                return Err(Error::input(format!("{}: {top} needs {needs}", source.at(value.span().start))));
            }
        }
        let own = document.get("preset").map(|v| (v.get_ref().as_str().unwrap_or_default(), v.span().start));
        match (preset, own) {
            (Some(asked), Some((own, at))) if asked != own => {
                return Err(Error::input(format!(
                    "{}: the file builds on preset `{own}` but --preset asks for {}; give one of them",
                    source.at(at),
                    shown(asked)
                )));
            }
            (_, Some((own, at))) => self.preset(own, &source.at(at))?,
            (Some(asked), None) => self.preset(asked, "--preset")?,
            (None, None) => {}
        }

        self.layer += 1;
        let mut recursion = None;
        for (section, value) in document {
            let at = source.at(section.span().start);
            let section = section.get_ref().as_ref();
            if TOP_KEYS.contains(&section) {
                continue;
            }
            let inner = match value.get_ref() {
                DeValue::Table(inner) if self.section(section).is_some() => inner,
                _ => return Err(Error::input(format!("{at}: {}", self.not_a_section(section)))),
            };
            for (leaf, value) in inner {
                let at = source.at(leaf.span().start);
                let leaf = leaf.get_ref().as_ref();
                let key = format!("{section}.{leaf}");
                if self.find(&key).is_none() {
                    let message = self.unknown_key(&key);
                    return Err(Error::input(format!("{at}: {message}")));
                }
                // A recursion goes by the settings around it, wherever it stands among them.
                if key == RECURSION {
                    recursion = Some((value.get_ref(), inner.contains_key("arch"), at));
                    continue;
                }
                let value = plain(value.get_ref()).map_err(|e| Error::input(format!("{at}: {key} {e}")))?;
                self.put(section, leaf, value, at)?;
            }
        }
        if let Some(DeValue::Table(train)) = document.get("train").map(|train| train.get_ref()) {
            self.fill_in_later(|key| train.contains_key(key), &source.name)?;
        }
        let Some((value, arch_is_said, at)) = recursion else { return Ok(()) };
        match value {
            DeValue::String(file) => self.put_recursion_file(file, &source.folder, arch_is_said, at),
            DeValue::Table(_) => {
                let document: Table = source.text.parse().expect("it was read above");
                let recursion = Recursion::from_value(&document["model"]["recursion"])
                    .map_err(|why| Error::input(format!("{at}: {RECURSION}: {why}")))?;
                self.put_recursion(Some(recursion), arch_is_said, at)
            }
            _ => Err(Error::input(format!("{at}: {RECURSION} needs a table, or the name of a file that holds one"))),
        }
    }

    /// Where a file `says` every setting of `[train]` but some that came later, it is that of a run from before them: it goes
    /// on by the rules it had.
    fn fill_in_later(&mut self, says: impl Fn(&str) -> bool, origin: &str) -> Result<()> {
        let is_later = |key: &str| LATER.iter().any(|(later, _)| *later == key);
        if self.section("train").is_none_or(|train| train.keys().any(|key| !says(key) && !is_later(key))) {
            return Ok(());
        }
        for (key, before) in LATER.iter().filter(|(key, _)| !says(key)) {
            let value = match &self.table["train"][*key] {
                Value::Boolean(_) => Value::Boolean(*before == "true"),
                Value::Integer(_) => Value::Integer(before.parse().expect("a whole number")),
                _ => Value::String((*before).to_owned()),
            };
            self.put("train", key, value, origin.to_owned())?;
        }
        Ok(())
    }

    /// The recursion in a file; of an empty name, that of `arch`.
    fn put_recursion_file(&mut self, file: &str, folder: &Path, arch_is_said: bool, origin: String) -> Result<()> {
        if file.is_empty() {
            return self.put_recursion(None, arch_is_said, origin);
        }
        let fail = |why: &dyn std::fmt::Display| Error::input(format!("{origin}: {RECURSION}: {why}"));
        let path = folder.join(file);
        if !path.exists() {
            let path = path.display();
            return Err(fail(&format!(
                "{path}: no such file; give a recursion's file, or name a built-in one by arch"
            )));
        }
        let source = Source::read(&path).map_err(|error| fail(&error))?;
        let recursion = source.text.parse().map_err(|why| fail(&format!("{}: {why}", source.name)))?;
        self.put_recursion(Some(recursion), arch_is_said, origin)
    }

    /// Whoever gives a recursion and no `arch` beside it has one of his own. One that is that of `arch` is not kept apart.
    fn put_recursion(&mut self, recursion: Option<Recursion>, arch_is_said: bool, origin: String) -> Result<()> {
        if recursion.is_some() && !arch_is_said {
            self.put("model", "arch", Value::String("own".to_owned()), origin.clone())?;
        }
        let config = self.read()?;
        let known = recursion::embedded(config.model.arch, config.model.separate_nets);
        let text = recursion.filter(|own| Some(own) != known).map_or_else(String::new, |own| own.to_string());
        self.put("model", "recursion", Value::String(text), origin)
    }

    /// One `key=value` argument.
    fn set(&mut self, argument: &str) -> Result<()> {
        let origin = format!("{SET_ORIGIN}{}", shown(argument));
        let Some((key, text)) = argument.split_once('=') else {
            return Err(Error::input(format!("{origin}: write it as key=value, e.g. --set h_cycles=2")));
        };
        let (key, text) = (key.trim(), text.trim());
        let Some((section, leaf)) = self.find(key) else {
            return Err(Error::input(format!("{origin}: {}", self.unknown_key(key))));
        };
        let fail = |what: &str| Error::input(format!("{origin}: {section}.{leaf} needs {what}"));
        let value = match &self.table[&section][&leaf] {
            Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| fail("true or false"))?),
            Value::Integer(_) => {
                Value::Integer(text.replace('_', "").parse().map_err(|_| fail("a whole number that fits 63 bits"))?)
            }
            Value::Float(_) => Value::Float(text.replace('_', "").parse().map_err(|_| fail("a number"))?),
            _ => Value::String(unquoted(text).to_owned()),
        };
        self.layer += 1;
        match value {
            Value::String(file) if leaf == "recursion" => self.put_recursion_file(&file, Path::new(""), false, origin),
            value => self.put(&section, &leaf, value, origin),
        }
    }

    /// Stores one value after checking its type, alone, against the settings' types.
    fn put(&mut self, section: &str, leaf: &str, value: Value, origin: String) -> Result<()> {
        let key = format!("{section}.{leaf}");
        let fail = |what: String| Error::input(format!("{origin}: {key} {what}"));
        let value = match (&self.table[section][leaf], value) {
            (Value::Float(_), Value::Integer(i)) => Value::Float(i as f64),
            (Value::Integer(_), Value::Integer(i)) if i < 0 => {
                return Err(fail(format!("= {i} is negative; give 0 or more")));
            }
            (old, new) if old.same_type(&new) => new,
            (old, new) => {
                return Err(fail(format!("needs {}, not {} ({})", kind(old), kind(&new), shown(&new.to_string()))));
            }
        };
        // What is said last holds: an `arch` over a file's recursion is that arch's.
        let own = self.table["model"]["arch"].as_str() == Some("own");
        if key == "model.arch" || key == "model.separate_nets" && !own {
            self.table["model"]["recursion"] = Value::String(String::new());
        }
        let old = self.table[section].as_table_mut().and_then(|t| t.insert(leaf.to_owned(), value.clone()));
        if let Err(e) = Config::deserialize(self.table.clone()) {
            if let (Some(old), Some(t)) = (old, self.table[section].as_table_mut()) {
                t.insert(leaf.to_owned(), old);
            }
            return Err(fail(format!("cannot be used: {}", e.message().replace('\n', ", "))));
        }
        self.origins.insert(key, (self.layer, origin));
        Ok(())
    }

    fn of(preset: Option<&str>, file: Option<&Path>, sets: &[String]) -> Result<Self> {
        let file = file.map(Source::read).transpose()?;
        let mut stack = Stack::base();
        match &file {
            None => stack.preset(preset.unwrap_or(presets::DEFAULT_PRESET), "--preset")?,
            Some(source) => stack.file(source, preset)?,
        }
        for set in sets {
            stack.set(set)?;
        }
        Ok(stack)
    }

    fn read(&self) -> Result<Config> {
        Config::deserialize(self.table.clone()).map_err(|e| Error::input(e.message().to_owned()))
    }

    fn finish(self) -> Result<Config> {
        let config = self.read()?;
        check::first_fault(&config).map_err(|fault| {
            let culprit = fault.keys.iter().filter_map(|k| self.origins.get(k)).max_by_key(|(layer, _)| *layer);
            Error::input(match culprit {
                Some((_, origin)) => format!("{origin}: {}", fault.message),
                None => fault.message,
            })
        })?;
        Ok(config)
    }

    fn section(&self, name: &str) -> Option<&Table> {
        self.table.get(name).and_then(Value::as_table)
    }

    /// `(section, leaf)` of `section.leaf` or of a bare leaf.
    fn find(&self, key: &str) -> Option<(String, String)> {
        if let Some((section, leaf)) = key.split_once('.') {
            return self.section(section)?.contains_key(leaf).then(|| (section.to_owned(), leaf.to_owned()));
        }
        let section = self.table.iter().find(|(_, v)| v.as_table().is_some_and(|t| t.contains_key(key)))?.0;
        Some((section.clone(), key.to_owned()))
    }

    fn unknown_key(&self, key: &str) -> String {
        if key == "preset" {
            return "the preset is chosen with --preset, or by `preset = \"…\"` at the top of a file".to_owned();
        }
        let leaf = key.rsplit('.').next().unwrap_or(key);
        let leaves = self.table.values().filter_map(Value::as_table).flat_map(Table::keys).map(String::as_str);
        let hint = nearest(leaf, leaves).and_then(|leaf| self.find(leaf));
        let hint = hint.map_or("; the config.toml of any run has all of them".to_owned(), |(section, leaf)| {
            format!("; did you mean `{section}.{leaf}`?")
        });
        format!("unknown setting {}{hint}", shown(key))
    }

    fn not_a_section(&self, name: &str) -> String {
        if self.section(name).is_some() {
            return format!("{name} is a section: write [{name}] on a line of its own");
        }
        if let Some((section, leaf)) = self.find(name) {
            return format!("{leaf} belongs in the section [{section}]");
        }
        let words = self.table.keys().map(String::as_str).chain(TOP_KEYS);
        let hint = nearest(name, words).map_or_else(
            || format!("; there are {}", self.table.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
            |word| format!("; did you mean `{word}`?"),
        );
        format!("unknown section {}{hint}", shown(name))
    }
}

/// A scalar of a parsed document, or what is wrong with it.
fn plain(value: &DeValue) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(s) => Value::String(s.as_ref().to_owned()),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Integer(i) => Value::Integer(
            i64::from_str_radix(i.as_str(), i.radix()).map_err(|_| format!("= {i} does not fit 63 bits"))?,
        ),
        DeValue::Float(f) => Value::Float(f.as_str().parse().map_err(|_| format!("= {} is no number", f.as_str()))?),
        other => return Err(format!("needs a plain value, not a {}", other.type_str())),
    })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        _ => "a plain value",
    }
}

/// Caller's text inside an error: one line, not too long.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}

fn unquoted(text: &str) -> &str {
    let inner = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}
