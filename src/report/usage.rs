//! What this process has used: memory, and its processors' time.

/// The largest resident size so far, in bytes; `None` where the system does not say.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Seconds that all threads together have run so far, in hundredths; `None` where the system does not say.
pub fn processor_seconds() -> Option<f64> {
    /// What Linux counts in, whatever its timer's rate, on all processors that trm has kernels for.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may have anything in it. Behind it the state is field 3; utime and stime are 14 and 15.
    let fields = stat.rsplit_once(')')?.1;
    let ticks: Vec<u64> =
        fields.split_whitespace().skip(14 - 3).take(2).map_while(|ticks| ticks.parse().ok()).collect();
    (ticks.len() == 2).then(|| ticks.iter().sum::<u64>() as f64 / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_time_of_a_busy_thread_is_counted() {
        let Some(before) = processor_seconds() else { return };
        let start = Instant::now();
        let mut x = 1u64;
        // Until a tenth of a second is counted, of other threads too; where nothing is, this ends after half a minute.
        while processor_seconds().is_some_and(|now| now < before + 0.1) {
            assert!(start.elapsed() < Duration::from_secs(30), "no time is counted");
            for _ in 0..1_000_000 {
                x = std::hint::black_box(x.wrapping_mul(3));
            }
        }
    }
}
