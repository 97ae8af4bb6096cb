//! Numbers as tables show them.

/// 12345678 as 12,345,678.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// FLOPs with a unit: 1.23 GFLOP.
pub fn engineering(flops: f64) -> String {
    let units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"];
    let step = ((flops.max(1.0).log10() / 3.0) as usize).min(units.len() - 1);
    format!("{:.3} {}", flops / 1000f64.powi(step as i32), units[step])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped_and_flops_get_the_unit_that_leaves_one_to_three_digits() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(n), text);
        }
        for (flops, text) in [(0.0, "0.000 FLOP"), (1.23e9, "1.230 GFLOP"), (2e24, "2000000.000 EFLOP")] {
            assert_eq!(engineering(flops), text);
        }
    }
}
