//! `trm info`.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::common::{DeviceName, not_built_in};
use super::drawing::Drawing;
use super::{print, print_json};
use crate::config::{Config, Preset};
use crate::engine::Lanes;
use crate::error::Result;
use crate::perf::MemoryLimits;
use crate::report::Table;
use crate::simd::{self, ISA_VARIABLE, Isa, KeptRates, Precision, Rates};

/// Show what the engine found: processor, SIMD path, threads, memory, version
///
/// These are the facts that belong next to any measurement, and the first thing to look at when one is a surprise:
/// threads and memory are what this process may use, which in a container is often less than the machine has. The SIMD
/// path is the fastest by a measurement of ten milliseconds, which is kept: GFLOP/s of one core in products of each kind.
/// It can be forced with the environment variable TRM_SIMD: portable, avx2, avx512, avx512-nobf16 (without bf16 dot products), amx,
/// or amx-twin (AMX's arithmetic without AMX, slow).
///
/// With --model or --config: the recursion of one supervision step instead. States, networks, every call with what it adds up, which
/// calls are recorded, parameters and model FLOPs of each.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm info
  trm info --json | jq -r .simd_path
  trm info --model sudoku-extreme
  trm info --model table1-hrm --set l_cycles=4
  trm info --config data/experiments/slow-memory.toml")]
pub struct Args {
    /// Draw the model of this preset
    #[arg(long, value_name = "PRESET", group = "drawn")]
    model: Option<String>,
    /// Draw the model of this experiment file
    #[arg(long, value_name = "FILE", group = "drawn")]
    config: Option<PathBuf>,
    /// With --model or --config: change one setting, e.g. --set h_cycles=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "drawn")]
    set: Vec<String>,
    /// Print one JSON object; sizes are in bytes, and null is what could not be found out
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Machine {
    version: &'static str,
    target: String,
    processor: Option<String>,
    simd_path: &'static str,
    /// Whether `TRM_SIMD` says so.
    simd_forced: bool,
    /// What `precision = "auto"` means.
    auto_precision: &'static str,
    products: Products,
    /// Why AMX cannot be used; null where it can.
    amx_missing: Option<&'static str>,
    simd_features: Vec<&'static str>,
    threads: usize,
    /// What commands take of them without `--threads`.
    default_threads: usize,
    memory: MemoryLimits,
    devices: Vec<Accelerator>,
}

/// GFLOP/s of one core in products whose operands are in its first cache.
#[derive(Serialize)]
struct Products {
    f32: f64,
    bf16_dot_products: Option<f64>,
    bf16_amx: Option<f64>,
    /// Of operands in registers, on the path that is taken.
    int8: f64,
    /// Whether the first three, by which the path is chosen, have been measured just now.
    measured_now: bool,
    /// Where they are kept for the next process.
    kept_in: Option<PathBuf>,
}

impl Products {
    fn of(kept: &KeptRates) -> Self {
        let Rates { plain: (_, f32), dots, tiles } = kept.rates;
        let int8 = simd::int8_limit(INT8_SECONDS);
        let (measured_now, kept_in) = (kept.is_new, kept.file.clone());
        Self { f32, bf16_dot_products: dots, bf16_amx: tiles, int8, measured_now, kept_in }
    }

    fn line(&self) -> String {
        let Self { f32, bf16_dot_products, bf16_amx, int8, .. } = self;
        let pairs = [("bf16 dot products", bf16_dot_products), ("bf16 in AMX", bf16_amx)];
        let pairs = pairs.into_iter().filter_map(|(name, rate)| rate.map(|rate| format!(", {name} {rate:.0}")));
        format!("GFLOP/s a core: f32 {f32:.0}{}, int8 {int8:.0}", pairs.collect::<String>())
    }

    /// Since when the path is what it is.
    fn origin(&self) -> String {
        match (&self.kept_in, self.measured_now) {
            (None, _) => "measured now; there is no folder to keep that in".to_owned(),
            (Some(file), true) => format!("measured now, kept in {}", file.display()),
            (Some(file), false) => format!("measured before, kept in {}; delete it to measure again", file.display()),
        }
    }
}

/// Seconds for which products in eight bits are measured.
const INT8_SECONDS: f64 = 0.002;

/// An accelerator, or why there is none.
#[derive(Serialize)]
struct Accelerator {
    /// The name under which `--device` knows it.
    device: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<AcceleratorFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

#[cfg(cuda)]
type AcceleratorFacts = crate::cuda::DeviceDescription;
/// None is built in.
#[cfg(not(cuda))]
type AcceleratorFacts = ();

pub fn run(args: Args) -> Result<()> {
    let preset = args.model.as_deref().map(Preset::named).transpose()?;
    if preset.is_some() || args.config.is_some() {
        let preset = preset.map(|preset| preset.name);
        let drawing = Drawing::new(&Config::resolve(preset, args.config.as_deref(), &args.set)?);
        return if args.json { print_json(&drawing) } else { print(&drawing.to_string()) };
    }
    let choice = simd::chosen()?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let machine = Machine {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        processor: processor(&cpuinfo),
        simd_path: choice.isa.name(),
        simd_forced: std::env::var_os(ISA_VARIABLE).is_some_and(|name| !name.is_empty()),
        auto_precision: if choice.precision == Precision::Bf16 { "bf16" } else { "f32" },
        products: Products::of(KeptRates::get()),
        amx_missing: Isa::Amx.obstacle(),
        simd_features: simd_features(),
        threads: crate::device::available(),
        default_threads: Lanes::default_threads(),
        memory: MemoryLimits::read(),
        devices: vec![accelerator(DeviceName::Cuda), accelerator(DeviceName::CudaTwin)],
    };
    if args.json { print_json(&machine) } else { print(&table(&machine).to_string()) }
}

/// What there is under that name.
fn accelerator(device: DeviceName) -> Accelerator {
    let found: Result<AcceleratorFacts> = match device {
        #[cfg(cuda_gpu)]
        DeviceName::Cuda => crate::cuda::Queue::<crate::cuda::Gpu>::open().map(|queue| queue.description().clone()),
        #[cfg(cuda_twin)]
        DeviceName::CudaTwin => {
            crate::cuda::Queue::<crate::cuda::Twin>::open().map(|queue| queue.description().clone())
        }
        other => Err(not_built_in(other)),
    };
    let (found, missing) = match found {
        Ok(found) => (Some(found), None),
        Err(error) => (None, Some(error.to_string())),
    };
    Accelerator { device: device.name(), found, missing }
}

impl Accelerator {
    fn line(&self) -> String {
        #[cfg(cuda)]
        if let Some(found) = &self.found {
            let (major, minor) = found.compute_capability;
            let version = |version: u64| format!("{}.{}", version / 1000, version % 1000 / 10);
            return format!(
                "{}, {:.1} GiB, compute capability {major}.{minor}, driver for CUDA {}, kernels by CUDA {}",
                found.name,
                found.memory as f64 / f64::from(1 << 30),
                version(found.driver),
                version(found.runtime)
            );
        }
        self.missing.clone().unwrap_or_default()
    }
}

fn table(machine: &Machine) -> Table {
    let Machine { version, target, processor, simd_path, auto_precision, .. } = machine;
    let Machine { simd_features, threads, default_threads, memory, devices, .. } = machine;
    let bytes = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        None => "unknown".into(),
    };
    let limit = memory.cgroup_limit.map_or_else(String::new, |limit| format!(", limited to {}", bytes(Some(limit))));
    let features = if simd_features.is_empty() { "none known".into() } else { simd_features.join(" ") };
    let mut table = Table::default();
    table
        .row(["trm", &format!("{version} ({target})")])
        .row(["processor", processor.as_deref().unwrap_or("unknown")])
        .row([
            "SIMD path",
            &format!("{simd_path} ({})", if machine.simd_forced { ISA_VARIABLE } else { "the fastest" }),
        ])
        .row(["products", &machine.products.line()])
        .row(["", &machine.products.origin()])
        .row(["precision auto", auto_precision])
        .row(["AMX", machine.amx_missing.unwrap_or("passed its self-test")])
        .row(["SIMD features", &features])
        .row(["threads", &format!("{default_threads} without --threads; {threads} processors this process may use")])
        .row(["memory", &format!("{}, {} available{limit}", bytes(memory.total), bytes(memory.available))]);
    for device in devices {
        table.row([device.device, &device.line()]);
    }
    table
}

/// The processor's name from the text of `/proc/cpuinfo`; not every architecture gives one.
fn processor(cpuinfo: &str) -> Option<String> {
    let value = |key: &str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim().to_owned()).find(|v| !v.is_empty())
    };
    ["model name", "Processor", "cpu model", "Hardware", "uarch"].into_iter().find_map(value)
}

/// Vector extensions of the processor that a kernel could make use of.
fn simd_features() -> Vec<&'static str> {
    macro_rules! detected {
        ($detect:ident, $($feature:tt),*) => {
            [$(($feature, std::arch::$detect!($feature))),*].into_iter().filter(|(_, has)| *has).map(|(f, _)| f).collect()
        };
    }
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return detected!(
        is_x86_feature_detected,
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avxvnni",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512bf16",
        "avx512fp16"
    );
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected, "neon", "fp16", "dotprod", "bf16", "i8mm", "sve", "sve2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found_where_it_has_a_name() {
        let text = "processor\t: 0\nmodel name\t: \nmodel name\t: Fast 9000 @ 3:2 GHz\n";
        assert_eq!(processor(text).as_deref(), Some("Fast 9000 @ 3:2 GHz"));
        assert_eq!(processor("processor\t: 0\nBogoMIPS\t: 50\n"), None);
        assert_eq!(processor(""), None);
    }

    #[test]
    fn what_is_unknown_is_said_to_be_unknown() {
        let machine = Machine {
            version: "1.2.3",
            target: "odd-os".into(),
            processor: None,
            simd_path: "portable",
            simd_forced: true,
            auto_precision: "f32",
            products: Products {
                f32: 7.0,
                bf16_dot_products: None,
                bf16_amx: None,
                int8: 9.0,
                measured_now: true,
                kept_in: None,
            },
            amx_missing: Some("this processor has no AMX with bf16"),
            simd_features: Vec::new(),
            threads: 3,
            default_threads: 2,
            memory: MemoryLimits {
                total: Some(8 << 30),
                available: None,
                cgroup_limit: Some(1 << 30),
                process_limit: None,
            },
            devices: Vec::new(),
        };
        let text = table(&machine).to_string();
        assert!(text.contains("8.0 GiB, unknown available, limited to 1.0 GiB"), "{text}");
        assert!(text.contains("none known"), "{text}");
    }
}
