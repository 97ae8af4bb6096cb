//! Rates that were measured once, kept in a file for the next process on a processor of this kind: whatever else a machine is
//! doing when a process starts, all of them take the same path.
//!
//! A line is the processor and the paths it can run, then each path's rate in GFLOP/s, tab by tab. What cannot be read or
//! written is measured again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::choice::Rates;
use super::isa::Isa;

/// A file that is longer is not one of these.
const MOST_BYTES: u64 = 1 << 16;

/// The rates that a process decides by.
#[derive(Clone, Debug)]
pub struct KeptRates {
    /// What they are.
    pub rates: Rates,
    /// Where they are kept; `None` where they cannot be.
    pub file: Option<PathBuf>,
    /// Whether this process has measured them.
    pub is_new: bool,
}

impl KeptRates {
    /// Those of this process: read, or measured the first time that they are wanted.
    pub fn get() -> &'static Self {
        static KEPT: OnceLock<KeptRates> = OnceLock::new();
        KEPT.get_or_init(|| Self::of(file(), &processor(), Rates::measure))
    }

    #[doc(hidden)]
    pub fn of(file: Option<PathBuf>, processor: &str, measure: impl FnOnce() -> Rates) -> Self {
        if let Some(rates) = file.as_deref().and_then(|file| read(file, processor)) {
            return Self { rates, file, is_new: false };
        }
        let rates = measure();
        let file = file.filter(|file| keep(file, processor, &rates).is_ok());
        Self { rates, file, is_new: true }
    }
}

/// `trm/paths` in the user's folder for what can be made again.
fn file() -> Option<PathBuf> {
    let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(caches.join("trm").join("paths"))
}

/// The processor's kind, the paths that it can run and the program's build, in one line without tabs.
pub fn processor() -> String {
    let paths: Vec<&str> = Isa::available().map(Isa::name).collect();
    // Kernels with checks in them have other rates.
    let checked = if cfg!(debug_assertions) { " checked" } else { "" };
    format!("{} [{}] {}{checked}", kind(), paths.join(" "), env!("CARGO_PKG_VERSION"))
}

/// Name, family, model and stepping.
#[cfg(target_arch = "x86_64")]
fn kind() -> String {
    use std::arch::x86_64::__cpuid;
    #[allow(unused_unsafe)]
    // SAFETY: every x86-64 processor has CPUID.
    let leaf = |leaf: u32| unsafe { __cpuid(leaf) };
    let has_name = leaf(0x8000_0000).eax >= 0x8000_0004;
    let bytes = (0x8000_0002..=0x8000_0004).filter(|_| has_name).flat_map(|part| {
        let registers = leaf(part);
        [registers.eax, registers.ebx, registers.ecx, registers.edx].map(u32::to_le_bytes).concat()
    });
    let name = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).replace(|c: char| c.is_control(), " ");
    format!("{} {:x}", name.trim(), leaf(1).eax)
}

#[cfg(not(target_arch = "x86_64"))]
fn kind() -> String {
    std::env::consts::ARCH.to_owned()
}

/// The rates of this processor, where the file has them and they fit the paths that there are.
fn read(file: &Path, processor: &str) -> Option<Rates> {
    if !fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() <= MOST_BYTES) {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let mut fields = text.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let of_processor = fields.find(|fields| fields.len() == 4 && fields[0] == processor)?;
    let rate = |i: usize, isa: Isa| match of_processor[i] {
        "-" => (!isa.is_available()).then_some(None),
        text => text.parse::<f64>().ok().filter(|rate| isa.is_available() && rate.is_finite() && *rate > 0.0).map(Some),
    };
    let plain = Rates::plain_path();
    Some(Rates { plain: (plain, rate(1, plain)??), dots: rate(2, Isa::Avx512Bf16)?, tiles: rate(3, Isa::Amx)? })
}

/// Adds a line to the file, whole or not at all; lines of other processors stay.
fn keep(file: &Path, processor: &str, rates: &Rates) -> std::io::Result<()> {
    let folder = file.parent().expect("a file in a folder");
    fs::create_dir_all(folder)?;
    let before = if fs::metadata(file).is_ok_and(|meta| meta.len() <= MOST_BYTES / 2) {
        fs::read_to_string(file).unwrap_or_default()
    } else {
        String::new()
    };
    let own = format!("{processor}\t");
    let others = before.lines().filter(|line| line.split('\t').count() == 4 && !line.starts_with(&own));
    let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.1}"));
    let line = format!("{own}{:.1}\t{}\t{}", rates.plain.1, rate(rates.dots), rate(rates.tiles));
    let text: String = others.chain([line.as_str()]).flat_map(|line| [line, "\n"]).collect();
    let new = folder.join(format!(".paths-{}", std::process::id()));
    let written =
        fs::File::create(&new).and_then(|mut to| to.write_all(text.as_bytes())).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}
