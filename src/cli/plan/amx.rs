//! `trm plan PRESET --amx`: what AMX would make of a training step.

use serde::Serialize;

use crate::cli::{print, print_json};
use crate::config::Config;
use crate::error::Result;
use crate::perf::roofline::{Roofline, SERVER_CORE, ServerCore};
use crate::report::Table;

#[derive(Serialize)]
struct Estimate {
    core: ServerCore,
    /// Milliseconds of a training step of one sequence on a core.
    steps: Vec<Roofline>,
}

/// Prints it as a table, or as JSON.
pub fn print_estimate(config: &Config, json: bool) -> Result<()> {
    let estimate = Estimate { core: SERVER_CORE, steps: Roofline::of_shards(config, &SERVER_CORE) };
    if json { print_json(&estimate) } else { print(&text(&estimate)) }
}

fn text(Estimate { core, steps }: &Estimate) -> String {
    let mut table =
        Table::new(["sequences a lane", "products", "vectors", "L2", "L3", "memory", "estimate", "f32 limit"]);
    for step in steps {
        let parts = [step.products, step.vectors, step.l2, step.l3, step.memory, step.estimate, step.f32_limit];
        table.row(std::iter::once(step.sequences.to_string()).chain(parts.map(|ms| format!("{ms:.2}"))));
    }
    let ServerCore { ghz, multiply_adds, l2, l3, memory, .. } = core;
    format!(
        "{table}\nEstimates, not measurements: milliseconds of a core for a training step of one sequence, at {ghz} GHz with \
         {multiply_adds} bf16\nmultiply-adds a cycle in tile registers and {l2}, {l3} and {memory} bytes a cycle from L2, L3 and \
         memory. The estimate is the\nlargest of products and vector work together, L2, L3, memory.\n"
    )
}
