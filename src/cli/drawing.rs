//! The schedule of one supervision step, drawn as text: states, networks, calls, and what each costs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::Config;
use crate::model::{Method, Model, further_flops, model_flops, network_flops};
use crate::report::{Table, engineering, grouped};

/// What `trm info --model` prints.
#[derive(Serialize)]
pub struct Drawing {
    pub model: String,
    /// L × D: the size of each state of one sequence.
    pub state_shape: [usize; 2],
    pub states: Vec<State>,
    pub nets: Vec<Net>,
    /// Everything trained: networks, embedding, heads.
    pub parameters: usize,
    pub puzzle_table_parameters: usize,
    pub calls: Vec<Line>,
    /// Model FLOPs of the heads, forward.
    pub heads_flops: f64,
    /// Model FLOPs of the second forward pass, which the continue loss needs.
    pub further_flops: f64,
    /// Model FLOPs of one sequence's supervision step, all of these together.
    pub forward_flops: f64,
    pub backward_flops: f64,
    /// What stops the detached cycles early.
    pub iteration: Option<String>,
}

#[derive(Serialize)]
pub struct State {
    name: String,
    /// The published name of its start vector.
    start: String,
    is_answer: bool,
}

#[derive(Serialize)]
pub struct Net {
    name: String,
    /// The published prefix of its tensors.
    tensors: String,
    layers: usize,
    parameters: usize,
    /// Model FLOPs of one call, forward, for one sequence.
    flops_per_call: f64,
}

/// Equal calls in a row.
#[derive(Serialize, PartialEq, Clone)]
pub struct Line {
    call: String,
    times: usize,
    recorded: bool,
    forward_flops: f64,
    backward_flops: f64,
}

impl Drawing {
    /// The schedule of a complete experiment.
    pub fn new(config: &Config) -> Self {
        let model = Model::new(&config.model, &config.task);
        let schedule = &model.schedule;
        let recursion = config.model.recursion();
        let size = |prefix: &str| {
            let own = model.layout.tensors().iter().filter(|t| t.name.starts_with(prefix));
            own.map(|t| t.rows * t.cols).sum()
        };
        let nets = recursion.networks().iter().enumerate().map(|(i, net)| {
            let tensors = format!("inner.{}.", net.name);
            let (parameters, layers) = (size(&tensors), model.nets[i].blocks.len());
            Net { name: net.symbol.clone(), tensors, layers, parameters, flops_per_call: network_flops(&model, i) }
        });
        let states = recursion.states().iter().enumerate().map(|(i, state)| State {
            name: state.symbol.clone(),
            start: format!("inner.{}_init", state.name),
            is_answer: i == recursion.answer(),
        });
        let flops = model_flops(&model);
        let calls = lines(&model, config);
        let further_flops = further_flops(&model, &config.train);
        Self {
            model: description(config),
            state_shape: [model.len, model.hidden],
            states: states.collect(),
            nets: nets.collect(),
            parameters: model.layout.n_weights(),
            puzzle_table_parameters: config.task.num_puzzle_identifiers * config.model.puzzle_emb_ndim,
            heads_flops: flops.forward - calls.iter().map(|line| line.forward_flops).sum::<f64>(),
            calls,
            further_flops,
            forward_flops: flops.forward + further_flops,
            backward_flops: flops.backward,
            iteration: schedule.iteration.as_ref().map(|iteration| {
                let method = if iteration.method == Method::Plain { "plain iteration" } else { "Anderson's method" };
                format!(
                    "the first {} calls are repeated at most {} times, by {method}, until the states change by ≤ {:e}",
                    iteration.cycle, iteration.most, iteration.tolerance
                )
            }),
        }
    }
}

impl std::fmt::Display for Drawing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [len, hidden] = self.state_shape;
        writeln!(f, "{}\n", self.model)?;
        for state in &self.states {
            let note = if state.is_answer { "  ─▶ heads: logits, q_halt" } else { "" };
            writeln!(f, "state  {:3} [{len}, {hidden}]  starts as {}{note}", state.name, state.start)?;
        }
        writeln!(f, "       x   [{len}, {hidden}]  the embedded question")?;
        for net in &self.nets {
            let Net { name, tensors, layers, parameters, flops_per_call } = net;
            let size = format!("{} parameters", grouped(*parameters));
            writeln!(
                f,
                "net    {name:3} {tensors}*  {layers} layers, {size}, {} a call",
                engineering(*flops_per_call)
            )?;
        }
        let total: usize = self.calls.iter().map(|line| line.times).sum();
        let recorded: usize = self.calls.iter().filter(|l| l.recorded).map(|l| l.times).sum();
        let mut from_the_first = self.calls.iter().skip_while(|l| !l.recorded);
        let recorded = match from_the_first.all(|l| l.recorded) {
            true => format!("the last {recorded}"),
            false => recorded.to_string(),
        };
        writeln!(
            f,
            "\none supervision step of one puzzle: {total} calls, {recorded} recorded (●), the others detached (○)\n"
        )?;
        if let Some(iteration) = &self.iteration {
            writeln!(f, "{iteration}\n")?;
        }
        let mut table = Table::new(["", "call", "times", "forward FLOPs", "backward FLOPs"]);
        for (block, repeats) in folded(&self.calls) {
            for (i, line) in block.iter().enumerate() {
                let mut mark = String::from(if line.recorded { "●" } else { "○" });
                if repeats > 1 {
                    let _ = write!(mark, " {}", if i == 0 { format!("{repeats} × ┐") } else { "    │".to_owned() });
                }
                let all = repeats as f64;
                let backward = if line.recorded { engineering(line.backward_flops) } else { "–".to_owned() };
                let times = line.times.to_string();
                table.row([mark, line.call.clone(), times, engineering(all * line.forward_flops), backward]);
            }
        }
        table.row(["●", "heads", "1", &engineering(self.heads_flops), &engineering(2.0 * self.heads_flops)]);
        if self.further_flops > 0.0 {
            table.row(["○", "all again, for the continue loss", "1", &engineering(self.further_flops), "–"]);
        }
        table.row(["", "all", "", &engineering(self.forward_flops), &engineering(self.backward_flops)]);
        write!(f, "{table}")?;
        write!(f, "\n{} parameters with embedding and heads", grouped(self.parameters))?;
        match self.puzzle_table_parameters {
            0 => writeln!(f),
            table => writeln!(f, ", and {} in the puzzle table", grouped(table)),
        }
    }
}

/// The calls in order, equal ones in a row as one line.
fn lines(model: &Model, config: &Config) -> Vec<Line> {
    let recursion = config.model.recursion();
    let per_net: Vec<f64> = (0..model.nets.len()).map(|net| network_flops(model, net)).collect();
    let mut lines: Vec<Line> = Vec::new();
    for (call, (step, _)) in model.schedule.calls.iter().zip(recursion.unrolled(&config.model)) {
        let (formula, flops) = (recursion.formula(step, "←"), per_net[call.net]);
        let backward = if call.recorded { 2.0 * flops } else { 0.0 };
        match lines.last_mut() {
            Some(last) if last.call == formula && last.recorded == call.recorded => {
                last.times += 1;
                last.forward_flops += flops;
                last.backward_flops += backward;
            }
            _ => lines.push(Line {
                call: formula,
                times: 1,
                recorded: call.recorded,
                forward_flops: flops,
                backward_flops: backward,
            }),
        }
    }
    lines
}

/// Lines that repeat as a block at the start (whole detached cycles), and how often; then the others, once.
fn folded(lines: &[Line]) -> Vec<(&[Line], usize)> {
    for size in 1..=lines.len() / 2 {
        let block = &lines[..size];
        let repeats = lines.chunks(size).take_while(|chunk| *chunk == block).count();
        if repeats > 1 {
            return vec![(block, repeats), (&lines[repeats * size..], 1)];
        }
    }
    vec![(lines, 1)]
}

/// What the model is, in one line.
fn description(config: &Config) -> String {
    let m = &config.model;
    let mut text = format!("{}, positions mixed by {}", m.recursion().name(), word(&m.mixing));
    if m.experts > 0 {
        let _ = write!(text, ", {} of {} experts", m.experts_per_token, m.experts);
    }
    if m.tied_embeddings {
        text += ", tied embeddings";
    }
    text
}

/// A setting's value as it is written in files.
fn word(value: &impl Serialize) -> String {
    toml::Value::try_from(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}
