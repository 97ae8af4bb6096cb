//! What is wrong with a file of many rows: everything, in one message.

use std::collections::HashMap;
use std::path::Path;

use crate::{Error, Result};

/// Kinds of faults that a message describes; of further ones it says where they are.
const DESCRIBED: usize = 20;

/// Rows that are named where the others are only counted.
const NAMED: usize = 5;

/// In [`Fault::what`]: another row.
pub(super) const THAT: &str = "{that}";

/// What is wrong with a row.
struct Fault {
    at: usize,
    /// What it is or has, [`THAT`] standing for the row before it that it does not agree with.
    what: String,
    /// That row.
    with: Option<usize>,
}

/// The faults of a file.
pub(super) struct Faults {
    /// What a row is called: `line`.
    unit: &'static str,
    list: Vec<Fault>,
}

impl Faults {
    /// None, in rows that are called `unit`.
    pub fn of(unit: &'static str) -> Self {
        Self { unit, list: Vec::new() }
    }

    /// Row `at` is or has `what`.
    pub fn alone(&mut self, at: usize, what: String) {
        self.list.push(Fault { at, what, with: None });
    }

    /// Row `at` does not agree with row `with`.
    pub fn between(&mut self, at: usize, what: &str, with: usize) {
        self.list.push(Fault { at, what: what.into(), with: Some(with) });
    }

    /// One error out of all faults, if there are any: equal ones together, in the order of their first rows, so that a file
    /// with one mistake in every line is a short message, and no row is left out.
    pub fn refuse(mut self, path: &Path) -> Result<()> {
        if self.list.is_empty() {
            return Ok(());
        }
        let count = match self.list.len() {
            1 => "1 fault".to_owned(),
            more => format!("{more} faults"),
        };
        Err(Error::input(format!("{}: {count}: {}", path.display(), self.described(DESCRIBED))))
    }

    /// The same; a single fault stands behind the file and its line, as compilers have it.
    pub fn refuse_by_line(self, path: &Path) -> Result<()> {
        match &self.list[..] {
            [Fault { at, what, with: None }] => Err(Error::input(format!("{}:{at}: {what}", path.display()))),
            _ => self.refuse(path),
        }
    }

    /// What to say of the rows that were left out for them: the first are named.
    pub fn left_out(mut self, path: &Path) -> Option<String> {
        let count = self.list.len();
        if count == 0 {
            return None;
        }
        self.list.sort_by_key(|fault| fault.at);
        self.list.truncate(NAMED);
        let rest = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
        let units = if count == 1 { self.unit.to_owned() } else { format!("{}s", self.unit) };
        Some(format!("{}: {count} {units} left out: {}{rest}", path.display(), self.described(NAMED)))
    }

    /// All of them; more than `most` kinds are not described one by one.
    fn described(&mut self, most: usize) -> String {
        let mut faults = std::mem::take(&mut self.list);
        faults.sort_by_key(|fault| fault.at);
        let mut groups: Vec<Vec<Fault>> = Vec::new();
        let mut at: HashMap<String, usize> = HashMap::new();
        for fault in faults {
            let group = *at.entry(fault.what.clone()).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(fault);
        }
        let others = groups.split_off(groups.len().min(most));
        let mut said: Vec<String> = groups.iter().map(|group| self.together(group)).collect();
        if !others.is_empty() {
            let mut rows: Vec<usize> = others.iter().flatten().map(|fault| fault.at).collect();
            rows.sort_unstable();
            said.push(format!("other faults in {}s {}", self.unit, ranges(rows.into_iter())));
        }
        said.join("; ")
    }

    /// Faults that are alike: `line 3 has …`, `lines 3–7, 9: each has …`.
    fn together(&self, faults: &[Fault]) -> String {
        let (unit, first) = (self.unit, &faults[0]);
        let same = faults.iter().all(|fault| fault.with == first.with);
        let with = match first.with {
            Some(row) if same => format!("{unit} {row}"),
            _ => format!("the {unit} in brackets"),
        };
        let what = if first.with.is_some() { first.what.replace(THAT, &with) } else { first.what.clone() };
        if let [only] = faults {
            return format!("{unit} {} {what}", only.at);
        }
        let rows = match same {
            true => ranges(faults.iter().map(|fault| fault.at)),
            false => {
                let pairs = faults.iter().map(|fault| format!("{} ({})", fault.at, fault.with.unwrap_or(0)));
                pairs.collect::<Vec<_>>().join(", ")
            }
        };
        format!("{unit}s {rows}: each {what}")
    }
}

/// Growing numbers as `3–7, 9`.
fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 >= number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(list: &[(usize, &str)]) -> Faults {
        let mut faults = Faults::of("line");
        list.iter().for_each(|(at, what)| faults.alone(*at, (*what).into()));
        faults
    }

    #[test]
    fn a_message_is_short_whatever_the_number_of_kinds_and_leaves_no_row_out() {
        let path = Path::new("f");
        let many: Vec<(usize, String)> = (1..=1000).map(|at| (at, format!("is {at}"))).collect();
        let many: Vec<(usize, &str)> = many.iter().map(|(at, what)| (*at, what.as_str())).collect();
        let message = faults(&many).refuse(path).unwrap_err().to_string();
        assert!(message.starts_with("f: 1000 faults: line 1 is 1; line 2 is 2;"), "{message}");
        assert!(message.ends_with("; line 20 is 20; other faults in lines 21–1000"), "{message}");
        let one = [(7, "is odd")];
        assert_eq!(faults(&one).refuse_by_line(path).unwrap_err().to_string(), "f:7: is odd");
        assert!(faults(&[]).refuse(path).is_ok() && faults(&[]).left_out(path).is_none());
    }

    #[test]
    fn rows_that_are_left_out_are_counted_and_the_first_named() {
        let path = Path::new("f");
        let some: Vec<(usize, &str)> = (1..=7).rev().map(|at| (2 * at, if at < 3 { "is a" } else { "is b" })).collect();
        let said = faults(&some).left_out(path).unwrap();
        assert_eq!(said, "f: 7 lines left out: lines 2, 4: each is a; lines 6, 8, 10: each is b; and 2 more");
        assert_eq!(faults(&[(3, "is a")]).left_out(path).unwrap(), "f: 1 line left out: line 3 is a");
    }
}
