//! Accuracy where it differs: rows in buckets by something that is known of them.

use std::collections::{BTreeMap, HashSet};

use crate::report::wilson_95;

/// Values of numbers that are told apart one by one; of more, ranges are.
const MOST_VALUES: usize = 12;

/// Ranges that many numbers are put into, each with about as many rows.
const RANGES: usize = 10;

/// A row that was evaluated.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is put into a bucket by.
    pub value: String,
    /// Whose copy it is.
    pub group: usize,
    /// Whether the last answer is right; `None`: the right one is not known.
    pub exact: Option<bool>,
}

/// The rows of one value, or of a range of values.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Bucket {
    /// The value, or `first – last` of the range.
    pub value: String,
    /// Rows with a known answer.
    pub rows: usize,
    /// Groups among them, which are independent of each other.
    pub groups: usize,
    /// Those that are right in every labelled token.
    pub exact: usize,
    /// Their share.
    pub exact_accuracy: f64,
    /// Wilson's 95 % interval of the share, for as many trials as there are groups.
    pub exact_accuracy_95: (f64, f64),
}

/// The rows in buckets, in the order of the values: numbers by size, and in ten ranges where there are many; other values by
/// their characters. Rows without a known answer are left out.
pub fn buckets(rows: &[Row]) -> Vec<Bucket> {
    let known: Vec<(&Row, bool)> = rows.iter().filter_map(|row| Some((row, row.exact?))).collect();
    let numbers: Option<Vec<f64>> =
        known.iter().map(|(row, _)| row.value.parse().ok().filter(|number: &f64| number.is_finite())).collect();
    let Some(numbers) = numbers else {
        let mut by_value: BTreeMap<&str, Vec<(&Row, bool)>> = BTreeMap::new();
        known.iter().for_each(|&(row, exact)| by_value.entry(&row.value).or_default().push((row, exact)));
        return by_value.into_iter().map(|(value, rows)| bucket(value.into(), &rows)).collect();
    };
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    let runs: Vec<&[usize]> = order.chunk_by(|&a, &b| numbers[a] == numbers[b]).collect();
    let many = runs.len() > MOST_VALUES;
    let (mut found, mut inside, mut before) = (Vec::new(), Vec::new(), 0);
    for (n, run) in runs.iter().enumerate() {
        inside.extend_from_slice(run);
        // A range ends where the rows until here are the next tenth of all.
        let is_full = (before + inside.len()) * RANGES >= (found.len() + 1) * known.len();
        if !many || is_full || n + 1 == runs.len() {
            before += inside.len();
            let rows: Vec<(&Row, bool)> = inside.iter().map(|&at| known[at]).collect();
            let (first, last) = (&rows[0].0.value, &rows[rows.len() - 1].0.value);
            let value =
                if numbers[inside[0]] == numbers[run[0]] { first.clone() } else { format!("{first} – {last}") };
            found.push(bucket(value, &rows));
            inside.clear();
        }
    }
    found
}

fn bucket(value: String, rows: &[(&Row, bool)]) -> Bucket {
    let groups = rows.iter().map(|(row, _)| row.group).collect::<HashSet<_>>().len();
    let exact = rows.iter().filter(|(_, exact)| *exact).count();
    let exact_accuracy = exact as f64 / rows.len() as f64;
    let exact_accuracy_95 = wilson_95(exact_accuracy, groups as f64);
    Bucket { value, rows: rows.len(), groups, exact, exact_accuracy, exact_accuracy_95 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: impl ToString, exact: bool) -> Row {
        Row { value: value.to_string(), group: 0, exact: Some(exact) }
    }

    #[test]
    fn numbers_stand_by_size_and_words_by_letters() {
        let names = |rows: &[Row]| buckets(rows).into_iter().map(|bucket| bucket.value).collect::<Vec<_>>();
        assert_eq!(names(&[row(10, true), row(9, true), row("9.0", false)]), ["9", "10"]);
        assert_eq!(names(&[row("b", true), row(10, true), row(9, true)]), ["10", "9", "b"]);
        assert_eq!(names(&[]), [""; 0]);
    }

    #[test]
    fn many_numbers_become_ten_ranges_that_hold_every_row_once() {
        let mut rows: Vec<Row> = (0..1000).map(|i| row(i * 7 % 1000, i % 2 == 0)).collect();
        rows.push(Row { exact: None, ..row(5000, true) });
        let found = buckets(&rows);
        assert_eq!(found.len(), 10);
        assert!(found.iter().all(|bucket| bucket.rows == 100), "{found:?}");
        assert_eq!((&*found[0].value, &*found[9].value), ("0 – 99", "900 – 999"));
        // Half of all rows have one value.
        let rows: Vec<Row> = (0..200).map(|i| row(if i < 100 { 0 } else { i }, true)).collect();
        let found = buckets(&rows);
        assert_eq!((&*found[0].value, found[0].rows), ("0", 100));
        assert_eq!(found.iter().map(|bucket| bucket.rows).sum::<usize>(), 200);
    }

    #[test]
    fn copies_of_one_puzzle_are_one_trial() {
        let rows: Vec<Row> = (0..40).map(|i| Row { group: i / 20, ..row("a", i < 20) }).collect();
        let found = &buckets(&rows)[0];
        assert_eq!((found.rows, found.groups, found.exact_accuracy), (40, 2, 0.5));
        assert_eq!(found.exact_accuracy_95, wilson_95(0.5, 2.0));
    }
}
