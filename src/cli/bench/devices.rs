//! `trm bench --devices`: the same work on several devices, side by side, and how far their results come apart.

use serde::Serialize;

use super::{Args, Measurement, TIMED, measure, precision_name};
use crate::cli::common::{DeviceArg, DeviceName, claim_training, on_device};
use crate::cli::{print, print_json};
use crate::config::Config;
use crate::device::Measured as _;
use crate::engine::{TrainingDevice, precision_for};
use crate::error::{Error, Result};
use crate::files::check_output;
use crate::files::output::PICTURE;
use crate::perf::{Agreement, Trajectory, Work, Workload};
use crate::report::{Bar, BarChart, BarGroup, Table};

/// Updates whose results are compared, before anything is timed.
const COMPARED: usize = 4;

/// What one device did.
#[derive(Serialize)]
struct OnDevice {
    device: &'static str,
    hardware: &'static str,
    precision: &'static str,
    works: Vec<Measurement>,
    #[serde(flatten)]
    trajectory: Trajectory,
    /// With the first device; the first has none.
    agreement: Option<Agreement>,
}

pub fn run(args: &Args, mut config: Config, works: &[(&'static str, Work)]) -> Result<()> {
    check(&args.devices)?;
    args.plot.as_deref().map_or(Ok(()), |path| check_output(path, PICTURE, args.force))?;
    // The learning rate has its full value from the first update: changes as small as those of a warm-up would be lost in the
    // rounding of weights.
    config.train.lr_warmup_steps = 0;
    let mut all: Vec<OnDevice> = Vec::new();
    for &device in &args.devices {
        let mut one = on_device!(device, D => on_one::<D>(args, device, config.clone(), works))?;
        one.agreement = all.first().map(|first| first.trajectory.agreement(&one.trajectory));
        all.push(one);
    }
    if let Some(path) = &args.plot {
        chart(&args.experiment.name(), &all).save(path)?;
    }
    if args.json {
        return print_json(&all);
    }
    let picture = args.plot.as_ref().map_or(String::new(), |path| format!("{}\n", path.display()));
    print(&format!("{}{picture}", text(config.train.batch_size, &all)))
}

/// Refuses lists of which nothing can be compared, and devices that are not there, before the first of them is measured.
fn check(devices: &[DeviceName]) -> Result<()> {
    if let [one] = devices {
        let name = one.name();
        return Err(Error::input(format!(
            "--devices {name}: nothing to compare it with; give two, or --device {name}"
        )));
    }
    if let Some(twice) = devices.iter().enumerate().find(|(i, device)| devices[..*i].contains(device)) {
        return Err(Error::input(format!("--devices: {} is there twice; name each once", twice.1.name())));
    }
    devices.iter().try_for_each(|&device| on_device!(device, D => Ok(D::hardware())).map(|_| ()))
}

fn on_one<D: TrainingDevice<T = f32>>(
    args: &Args,
    device: DeviceName,
    config: Config,
    works: &[(&'static str, Work)],
) -> Result<OnDevice> {
    let lanes = args
        .threads
        .lanes_for::<D>(DeviceArg { device, micro_batch: args.device.micro_batch.filter(|_| D::IS_ACCELERATOR) })?;
    claim_training::<D>(&config, TIMED, lanes.threads())?;
    let precision = precision_for::<D>(config.train.precision);
    let batch = config.train.batch_size;
    let mut workload = Workload::new(&lanes, config)?;
    let trajectory = workload.trajectory(COMPARED)?;
    let mut measured = Vec::new();
    for &(name, work) in works {
        measured.push(measure(&lanes, &mut workload, name, work, args.seconds, precision, batch)?);
    }
    Ok(OnDevice {
        device: D::NAME,
        hardware: D::hardware(),
        precision: precision_name(precision),
        works: measured,
        trajectory,
        agreement: None,
    })
}

fn text(batch: usize, all: &[OnDevice]) -> String {
    let first = &all[0];
    let times = format!("× {}", first.device);
    let mut table = Table::new([
        "device",
        "work",
        "seconds",
        "puzzles/s",
        "GFLOP/s",
        "limit",
        "MFU %",
        times.as_str(),
        "format",
        "hardware",
    ]);
    for (i, of_first) in first.works.iter().enumerate() {
        for one in all {
            let m = &one.works[i];
            table.row([
                one.device.to_owned(),
                m.name.to_owned(),
                format!("{:.4}", m.seconds),
                format!("{:.1}", m.puzzles_per_second()),
                format!("{:.1}", m.gflops),
                format!("{:.1}", m.limit_gflops),
                format!("{:.1}", 100.0 * m.mfu),
                format!("{:.2}", of_first.seconds / m.seconds),
                one.precision.to_owned(),
                one.hardware.to_owned(),
            ]);
        }
    }
    let mut agreement = Table::new(["update", "device", "loss", "difference", "gradient norm", "difference"]);
    for update in 0..COMPARED {
        for one in all {
            let difference = |of: fn(&Agreement) -> &Vec<f64>| match &one.agreement {
                Some(agreement) => format!("{:.1e}", of(agreement)[update]),
                None => String::new(),
            };
            agreement.row([
                (update + 1).to_string(),
                one.device.to_owned(),
                format!("{:.6}", one.trajectory.losses[update] / batch as f64),
                difference(|agreement| &agreement.losses),
                format!("{:.6}", one.trajectory.grad_norms[update]),
                difference(|agreement| &agreement.grad_norms),
            ]);
        }
    }
    let weights = all.iter().filter_map(|one| Some((one, one.agreement.as_ref()?.weights)));
    let a = first.device;
    let weights: String = weights
        .map(|(one, distance)| {
            let b = one.device;
            format!("weights after {COMPARED} updates: ‖{b} − {a}‖ = {distance:.1e} · ‖{a} − start‖\n")
        })
        .collect();
    format!(
        "{table}\nbatch {batch}; the same weights and tokens on each device\n\n{agreement}\nlosses are means over the batch; \
         differences are relative to {}\n{weights}",
        first.device
    )
}

/// Puzzles per second on each device, one group of bars for each work.
fn chart(name: &str, all: &[OnDevice]) -> BarChart {
    let first = &all[0].works;
    let group = |(i, of_first): (usize, &Measurement)| BarGroup {
        name: match of_first.name {
            "train" => "training: puzzles/s".to_owned(),
            _ => "one supervision step without gradient: puzzles/s".to_owned(),
        },
        bars: all
            .iter()
            .map(|one| {
                let m = &one.works[i];
                let (speed, times) = (m.puzzles_per_second(), of_first.seconds / m.seconds);
                let text = format!("{speed:.1} (× {times:.2})");
                Bar { label: format!("{}, {}", one.device, one.precision), value: speed, text }
            })
            .collect(),
    };
    let batch = first.first().map_or(0, |m| m.batch);
    BarChart { title: format!("{name}, batch {batch}"), groups: first.iter().enumerate().map(group).collect() }
}
