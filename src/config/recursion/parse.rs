//! From TOML to a [`Recursion`], and what is wrong with it, in one line.

use std::str::FromStr;

use toml::{Table, Value};

use super::{
    CallStep, Count, Input, MAX_INPUTS, MAX_STATES, NetworkName, Prefix, Recorded, Recursion, StateName, Step, Take,
};
use crate::config::Mixing;
use crate::error::did_you_mean;

/// What is wrong.
type Result<T> = std::result::Result<T, String>;

/// Most networks.
const MAX_NETWORKS: usize = 16;

/// Most tables of steps in one another.
const MAX_DEPTH: usize = 8;

/// Longest name.
const MAX_NAME: usize = 32;

/// Most layers and most repetitions, as of the settings that are such counts.
const MAX_COUNT: i64 = 1_000;

/// The question in sums.
const QUESTION: &str = "x";

impl FromStr for Recursion {
    type Err = String;

    /// A recursion's table as TOML text.
    fn from_str(text: &str) -> Result<Self> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = 1 + text[..e.span().map_or(0, |s| s.start.min(text.len()))].matches('\n').count();
            format!("line {line}: not TOML: {}", e.message().replace('\n', ", "))
        })?;
        Self::from_value(&Value::Table(table))
    }
}

impl Recursion {
    /// The recursion in a table.
    pub(in crate::config) fn from_value(value: &Value) -> Result<Self> {
        const KEYS: [&str; 9] =
            ["name", "states", "networks", "answer", "steps", "prefix", "compares_q", "continue_loss", "mixing"];
        let table = keyed(value, "a recursion", &KEYS)?;
        let need = |key: &str| table.get(key).ok_or_else(|| format!("a recursion needs {key}"));
        let flag = |key: &str| match table.get(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| format!("{key} needs true or false")),
        };
        let (states, networks) = (states(need("states")?)?, networks(need("networks")?)?);
        let names = Names { states: &states, networks: &networks };
        let answer = names.state(string(need("answer")?, "answer")?).map_err(|why| format!("answer: {why}"))?;
        let recursion = Self {
            name: match table.get("name") {
                None => "own".to_owned(),
                Some(name) => printable(string(name, "name")?)?,
            },
            answer,
            steps: steps(need("steps")?, &names, 0)?,
            prefix: match table.get("prefix").map(|prefix| string(prefix, "prefix")).transpose()? {
                None | Some("puzzle_emb_len") => Prefix::Setting,
                Some("fit") => Prefix::Fit,
                Some(other) => {
                    return Err(format!("prefix = {}: give \"puzzle_emb_len\" or \"fit\"", shown(other)));
                }
            },
            compares_q: flag("compares_q")?,
            continue_loss: flag("continue_loss")?,
            mixing: match table.get("mixing").map(|mixing| string(mixing, "mixing")).transpose()? {
                None => None,
                Some("attention") => Some(Mixing::Attention),
                Some("mlp_t") => Some(Mixing::MlpT),
                Some(other) => return Err(format!("mixing = {}: give \"attention\" or \"mlp_t\"", shown(other))),
            },
            states,
            networks,
        };
        recursion.uses_all_it_has().map(|()| recursion)
    }

    /// Every state is written and read, every network called.
    fn uses_all_it_has(&self) -> Result<()> {
        let calls = self.calls();
        for (i, state) in self.states.iter().enumerate() {
            let symbol = &state.symbol;
            if !calls.iter().any(|call| call.target == i) {
                return Err(match i == self.answer {
                    true => format!("no step writes the answer {symbol}"),
                    false => format!("no step writes {symbol}, which would stay at its start vector; leave it out"),
                });
            }
            if i != self.answer && !calls.iter().any(|call| call.inputs.contains(&Input::State(i))) {
                return Err(format!("no step reads {symbol}, and it is not the answer; leave it out"));
            }
        }
        for (i, network) in self.networks.iter().enumerate() {
            if !calls.iter().any(|call| call.network == i) {
                return Err(format!("no step calls the network {}; leave it out", network.symbol));
            }
        }
        Ok(())
    }

    /// Every call as it is written down, once each.
    fn calls(&self) -> Vec<&CallStep> {
        fn collect<'a>(steps: &'a [Step], calls: &mut Vec<&'a CallStep>) {
            for step in steps {
                match step {
                    Step::Call { call, .. } => calls.push(call),
                    Step::Steps { steps, .. } => collect(steps, calls),
                }
            }
        }
        let mut calls = Vec::new();
        collect(&self.steps, &mut calls);
        calls
    }
}

fn states(value: &Value) -> Result<Vec<StateName>> {
    let mut states: Vec<StateName> = Vec::new();
    for state in list(value, "states")? {
        let (symbol, name, _) = symbol_and_name(state, "a state", &["symbol", "name"])?;
        if symbol == QUESTION {
            return Err("a state cannot be x, which is the question".to_owned());
        }
        if states.iter().any(|known| known.symbol == symbol || known.name == name) {
            return Err(format!("two states are {}", shown(&symbol)));
        }
        states.push(StateName { symbol, name });
    }
    match states.len() {
        0 => Err("states: there are none; give one at least".to_owned()),
        n if n > MAX_STATES => Err(format!("{n} states are too many; give at most {MAX_STATES}")),
        _ => Ok(states),
    }
}

fn networks(value: &Value) -> Result<Vec<NetworkName>> {
    let mut networks: Vec<NetworkName> = Vec::new();
    for network in list(value, "networks")? {
        let (symbol, name, table) = symbol_and_name(network, "a network", &["symbol", "name", "layers"])?;
        if networks.iter().any(|known| known.symbol == symbol || known.name == name) {
            return Err(format!("two networks are {}", shown(&symbol)));
        }
        let layers = match table.and_then(|table| table.get("layers")) {
            None => Count::NLayers,
            Some(layers) => count(layers, "layers", &["n_layers", "h_layers", "l_layers"])?,
        };
        networks.push(NetworkName { symbol, name, layers });
    }
    match networks.len() {
        0 => Err("networks: there are none; give one at least".to_owned()),
        n if n > MAX_NETWORKS => Err(format!("{n} networks are too many; give at most {MAX_NETWORKS}")),
        _ => Ok(networks),
    }
}

/// Of a string that is both, or a table.
fn symbol_and_name<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<(String, String, Option<&'a Table>)> {
    if let Value::String(both) = value {
        let both = identifier(both)?;
        return Ok((both.clone(), both, None));
    }
    let table = keyed(value, what, known)?;
    let name = identifier(string(table.get("name").ok_or_else(|| format!("{what} needs a name"))?, "name")?)?;
    let symbol = match table.get("symbol") {
        None => name.clone(),
        Some(symbol) => identifier(string(symbol, "symbol")?)?,
    };
    Ok((symbol, name, Some(table)))
}

fn steps(value: &Value, names: &Names<'_>, depth: usize) -> Result<Vec<Step>> {
    if depth == MAX_DEPTH {
        return Err(format!("steps lie deeper than {MAX_DEPTH} tables in one another"));
    }
    let steps = list(value, "steps")?.iter().map(|value| step(value, names, depth)).collect::<Result<Vec<_>>>()?;
    if steps.is_empty() { Err("steps = [] does nothing; give one at least".to_owned()) } else { Ok(steps) }
}

fn step(value: &Value, names: &Names<'_>, depth: usize) -> Result<Step> {
    if let Value::String(text) = value {
        return Ok(Step::Call { call: names.call(text)?, recorded: false });
    }
    let table = keyed(value, "a step", &["call", "repeat", "first", "steps", "recorded"])?;
    let recorded = match table.get("recorded") {
        None => Recorded::No,
        Some(Value::Boolean(recorded)) => {
            if *recorded {
                Recorded::All
            } else {
                Recorded::No
            }
        }
        Some(Value::String(last)) if last == "last" && table.contains_key("repeat") => Recorded::Last,
        Some(other) => {
            return Err(format!(
                "recorded = {}: give true or false, or \"last\" beside repeat",
                shown(&other.to_string())
            ));
        }
    };
    let cycles = ["h_cycles", "l_cycles"];
    let take = match (table.get("call"), table.get("repeat"), table.get("first"), table.get("steps")) {
        (Some(call), None, None, None) => {
            let call = names.call(string(call, "call")?)?;
            return Ok(Step::Call { call, recorded: recorded == Recorded::All });
        }
        (None, Some(times), None, Some(_)) => Take::Repeat(count(times, "repeat", &cycles)?),
        (None, None, Some(many), Some(_)) => Take::First(count(many, "first", &cycles)?),
        _ => return Err("a step has call, or steps with either repeat or first".to_owned()),
    };
    let steps = steps(&table["steps"], names, depth + 1)?;
    if let Take::First(Count::Number(n)) = take
        && n > steps.len()
    {
        return Err(format!("first = {n} is more than the {} steps there are", steps.len()));
    }
    Ok(Step::Steps { take, steps, recorded })
}

/// What can be named in a step.
struct Names<'a> {
    states: &'a [StateName],
    networks: &'a [NetworkName],
}

impl Names<'_> {
    /// `state = network(sum)`.
    fn call(&self, text: &str) -> Result<CallStep> {
        let fail = |why: &str| format!("step {}: {why}", shown(text));
        let form = || fail("write it as \"state = network(summand + summand)\"");
        let (target, rest) = text.split_once('=').ok_or_else(form)?;
        let (network, rest) = rest.split_once('(').ok_or_else(form)?;
        let sum = rest.trim_end().strip_suffix(')').ok_or_else(form)?;
        let target = self.state(target.trim()).map_err(|why| fail(&why))?;
        let network = network.trim();
        let known = self.networks.iter().position(|known| known.symbol == network).ok_or_else(|| {
            let symbols: Vec<&str> = self.networks.iter().map(|known| known.symbol.as_str()).collect();
            fail(&format!("unknown network {}; there is {}", shown(network), symbols.join(", ")))
        })?;
        let input = |summand: &str| match summand.trim() {
            QUESTION => Ok(Input::Question),
            state => self.state(state).map(Input::State),
        };
        let inputs = sum.split('+').map(input).collect::<Result<Vec<_>>>().map_err(|why| fail(&why))?;
        if inputs.len() > MAX_INPUTS {
            return Err(fail(&format!("{} summands are too many; give at most {MAX_INPUTS}", inputs.len())));
        }
        Ok(CallStep { target, network: known, inputs })
    }

    fn state(&self, symbol: &str) -> Result<usize> {
        if symbol == QUESTION {
            return Err("x is the question, which can only be read".to_owned());
        }
        self.states.iter().position(|known| known.symbol == symbol).ok_or_else(|| {
            let symbols: Vec<&str> = self.states.iter().map(|known| known.symbol.as_str()).collect();
            format!("unknown state {}; there is {}", shown(symbol), symbols.join(", "))
        })
    }
}

fn count(value: &Value, key: &str, names: &[&str]) -> Result<Count> {
    let expected =
        || format!("{key} = {}: give 1 to {MAX_COUNT}, or one of {}", shown(&value.to_string()), names.join(", "));
    match value {
        Value::Integer(n @ 1..=MAX_COUNT) => Ok(Count::Number(*n as usize)),
        Value::String(name) if names.contains(&name.as_str()) => {
            Count::NAMED.into_iter().find(|(known, _)| known == name).map(|(_, count)| count).ok_or_else(expected)
        }
        _ => Err(expected()),
    }
}

/// The table that `what` is, with known keys only.
fn keyed<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Table> {
    let table = value.as_table().ok_or_else(|| format!("{what} is not {}", shown(&value.to_string())))?;
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(table),
        Some(key) => Err(format!("unknown key {} of {what}{}", shown(key), did_you_mean(key, known.iter().copied()))),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| format!("{key} needs a list"))
}

fn string<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.as_str().ok_or_else(|| format!("{key} needs a string, not {}", shown(&value.to_string())))
}

/// A word that can stand in a step and in a tensor's name.
fn identifier(text: &str) -> Result<String> {
    let good = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() <= MAX_NAME
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!("{} cannot be a name; give letters, digits and _, at most {MAX_NAME}", shown(text))),
    }
}

/// A name for people: one line of moderate length.
fn printable(text: &str) -> Result<String> {
    match !text.is_empty()
        && text.chars().count() <= MAX_NAME
        && !text.chars().any(|c| c.is_control() || c == '"' || c == '\\')
    {
        true => Ok(text.to_owned()),
        false => Err(format!("name = {}: give 1 to {MAX_NAME} characters, no quotes", shown(text))),
    }
}

/// Somebody's text inside an error: one line, not too long.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", short.escape_debug())
}
