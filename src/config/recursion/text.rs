//! A [`Recursion`] as the TOML it is read from.

use std::fmt::{self, Display, Formatter};

use super::{CallStep, Count, Input, Prefix, Recorded, Recursion, Step, Take};
use crate::config::Mixing;

/// The keys of its table, a line each, every default spelled out.
impl Display for Recursion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, states, networks, answer, prefix, compares_q, continue_loss, mixing, .. } = self;
        writeln!(f, "name = \"{name}\"")?;
        let pairs = states.iter().map(|s| format!("{{ symbol = \"{}\", name = \"{}\" }}", s.symbol, s.name));
        writeln!(f, "states = [{}]", pairs.collect::<Vec<_>>().join(", "))?;
        let triples = networks.iter().map(|net| {
            let (symbol, name, layers) = (&net.symbol, &net.name, net.layers);
            format!("{{ symbol = \"{symbol}\", name = \"{name}\", layers = {layers} }}")
        });
        writeln!(f, "networks = [{}]", triples.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "answer = \"{}\"", states[*answer].symbol)?;
        let prefix = if *prefix == Prefix::Fit { "fit" } else { "puzzle_emb_len" };
        writeln!(f, "prefix = \"{prefix}\"\ncompares_q = {compares_q}\ncontinue_loss = {continue_loss}")?;
        if let Some(mixing) = mixing {
            writeln!(f, "mixing = \"{}\"", if *mixing == Mixing::Attention { "attention" } else { "mlp_t" })?;
        }
        writeln!(f, "steps = [")?;
        self.write_steps(f, &self.steps, 1)?;
        writeln!(f, "]")
    }
}

impl Recursion {
    fn write_steps(&self, f: &mut Formatter<'_>, steps: &[Step], depth: usize) -> fmt::Result {
        let indent = "    ".repeat(depth);
        for step in steps {
            match step {
                Step::Call { call, recorded: false } => writeln!(f, "{indent}\"{}\",", self.formula(call, "="))?,
                Step::Call { call, recorded: true } => {
                    writeln!(f, "{indent}{{ call = \"{}\", recorded = true }},", self.formula(call, "="))?;
                }
                Step::Steps { take, steps, recorded } => {
                    let (key, count) = match take {
                        Take::Repeat(count) => ("repeat", count),
                        Take::First(count) => ("first", count),
                    };
                    let recorded = match recorded {
                        Recorded::No => "",
                        Recorded::Last => ", recorded = \"last\"",
                        Recorded::All => ", recorded = true",
                    };
                    writeln!(f, "{indent}{{ {key} = {count}{recorded}, steps = [")?;
                    self.write_steps(f, steps, depth + 1)?;
                    writeln!(f, "{indent}] }},")?;
                }
            }
        }
        Ok(())
    }

    /// `z = f(z + y + x)`, with `arrow` for `=`.
    pub fn formula(&self, call: &CallStep, arrow: &str) -> String {
        let symbol = |input: &Input| match input {
            Input::State(state) => self.states[*state].symbol.as_str(),
            Input::Question => "x",
        };
        let sum: Vec<&str> = call.inputs.iter().map(symbol).collect();
        let (target, network) = (&self.states[call.target].symbol, &self.networks[call.network].symbol);
        format!("{target} {arrow} {network}({})", sum.join(" + "))
    }
}

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(_, count)| count == self) {
            Some((name, _)) => write!(f, "\"{name}\""),
            None => match self {
                Self::Number(n) => write!(f, "{n}"),
                _ => unreachable!("every setting is named"),
            },
        }
    }
}
