//! What the source of a split says of each group beside its rows: a rating, where it is from, an id.
//!
//! ```text
//! <split>/columns.csv      rating,source       a header, then one line a group
//!                          0,puzzles.csv
//!                          41,""
//! ```

use std::path::Path;

use crate::files::atomic;
use crate::{Error, Result};

/// The file of a split that holds them.
const FILE: &str = "columns.csv";

/// Most columns of a split; a file with more has its data in its keys.
const MOST: usize = 100;

/// Columns of text, one value a group; nothing where the source says nothing. Equal when the columns are.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    groups: usize,
    columns: Vec<Column>,
}

/// One text and where each value ends in it: a set has millions of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    name: String,
    text: String,
    ends: Vec<usize>,
}

impl Column {
    fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(self.text.len());
    }

    fn value(&self, group: usize) -> Option<&str> {
        let end = *self.ends.get(group)?;
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[start..end])
    }
}

impl Columns {
    /// The names, in the order of the source.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// What the column `name` says of a group; `None` where it says nothing, or there is no such column.
    pub fn get(&self, name: &str, group: usize) -> Option<&str> {
        let column = self.columns.iter().find(|column| column.name == name)?;
        column.value(group).filter(|value| !value.is_empty())
    }

    /// Whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// How many groups they say something of.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Appends a group and what is said of it, by column; of what other groups have and it has not, nothing is said.
    ///
    /// # Errors
    /// What is wrong with a name that is new.
    pub fn push<'a>(&mut self, values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), String> {
        for (name, value) in values {
            let known = self.columns.iter().position(|column| column.name == name);
            let at = match known {
                Some(at) => at,
                None => self.add(name)?,
            };
            if self.columns[at].ends.len() > self.groups {
                return Err(format!("has the column {name:?} twice; rename one of the two"));
            }
            self.columns[at].push(value);
        }
        self.groups += 1;
        let groups = self.groups;
        self.columns.iter_mut().filter(|column| column.ends.len() < groups).for_each(|column| column.push(""));
        Ok(())
    }

    /// Starts a column that says nothing of the groups so far.
    fn add(&mut self, name: &str) -> Result<usize, String> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(format!("has a column called {name:?}; give it a name of visible characters"));
        }
        if self.columns.len() == MOST {
            return Err(format!("has more than {MOST} columns beside its grids, {name:?} the next; leave some out"));
        }
        self.columns.push(Column { name: name.into(), text: String::new(), ends: vec![0; self.groups] });
        Ok(self.columns.len() - 1)
    }

    /// What is said of some of the groups, in the given order.
    pub fn of(&self, groups: impl Iterator<Item = usize> + Clone) -> Self {
        let taken = |column: &Column| {
            let mut taken = Column { name: column.name.clone(), text: String::new(), ends: Vec::new() };
            groups.clone().for_each(|group| taken.push(column.value(group).unwrap_or_default()));
            taken
        };
        Self { groups: groups.clone().count(), columns: self.columns.iter().map(taken).collect() }
    }

    /// Reads those of the split in `folder`; a split without the file has none.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let bad = |line: u64, what: String| Error::input(format!("{}:{line}: {what}", path.display()));
        if !path.exists() {
            return Ok(Self::default());
        }
        if !path.is_file() {
            return Err(Error::input(format!("{}: is not a regular file; remove it", path.display())));
        }
        let fault = |error: csv::Error| {
            let line = error.position().map_or(1, csv::Position::line);
            match error.into_kind() {
                csv::ErrorKind::Io(e) => Error::io(&path, e),
                csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                    bad(line, format!("has {len} fields, the header has {expected_len}; is the file cut off?"))
                }
                csv::ErrorKind::Utf8 { .. } => bad(line, "is not UTF-8; save it as UTF-8".into()),
                _ => bad(line, "is no line of CSV".into()),
            }
        };
        let mut reader = csv::Reader::from_path(&path).map_err(fault)?;
        let header = reader.headers().map_err(fault)?.clone();
        let mut columns = Self::default();
        // The names without a value, so that a file of no groups is refused for its names too.
        for name in &header {
            if columns.names().any(|known| known == name) {
                return Err(bad(1, format!("has the column {name:?} twice; rename one of the two")));
            }
            columns.add(name).map_err(|what| bad(1, what))?;
        }
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(fault)? {
            columns.columns.iter_mut().zip(&record).for_each(|(column, value)| column.push(value));
            columns.groups += 1;
        }
        Ok(columns)
    }

    /// Writes them into the folder of a split, if there are any.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let path = folder.join(FILE);
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut write = || -> csv::Result<()> {
            writer.write_record(self.names())?;
            (0..self.groups).try_for_each(|group| {
                writer.write_record(self.columns.iter().map(|column| column.value(group).unwrap_or_default()))
            })
        };
        write().map_err(|e| Error::io(&path, e.into()))?;
        let bytes = writer.into_inner().map_err(|e| Error::io(&path, e.into_error()))?;
        atomic::write_new(&path, &bytes)
    }

    /// What is wrong with them, if something is: every group has a line.
    pub(super) fn check(&self, groups: usize) -> Result<(), String> {
        match self.is_empty() || self.groups == groups {
            true => Ok(()),
            false => Err(format!("{FILE} holds {} lines under its header for {groups} groups", self.groups)),
        }
    }
}

impl PartialEq for Columns {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_column_that_begins_late_or_ends_early_says_nothing_of_the_other_groups() {
        let mut columns = Columns::default();
        columns.push([]).unwrap();
        columns.push([("rating", "3"), ("from", "é")]).unwrap();
        columns.push([("rating", "")]).unwrap();
        assert_eq!(columns.names().collect::<Vec<_>>(), ["rating", "from"]);
        let ratings: Vec<_> = (0..4).map(|group| columns.get("rating", group)).collect();
        assert_eq!(ratings, [None, Some("3"), None, None]);
        assert_eq!((columns.get("from", 1), columns.get("from", 2), columns.get("id", 1)), (Some("é"), None, None));
        let turned = columns.of([1, 1, 0].into_iter());
        assert_eq!((turned.get("rating", 1), turned.get("rating", 2), turned.groups()), (Some("3"), None, 3));
    }

    #[test]
    fn names_that_cannot_be_told_apart_or_shown_are_refused() {
        let push = |names: &[&str]| Columns::default().push(names.iter().map(|name| (*name, "1")));
        assert!(push(&["a", "b", "a"]).unwrap_err().contains("\"a\" twice"));
        assert!(push(&[""]).unwrap_err().contains("a column called \"\""));
        assert!(push(&["a\nb"]).unwrap_err().contains("visible"));
        let many: Vec<String> = (0..=MOST).map(|i| i.to_string()).collect();
        assert!(push(&many.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err().contains("\"100\" the next"));
    }

    #[test]
    fn a_file_that_was_damaged_is_one_line_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, said) in [
            (&b"a,b\n1,2\n3\n"[..], "columns.csv:3: has 1 fields, the header has 2"),
            (b"a,a\n1,2\n", "columns.csv:1: has the column \"a\" twice"),
            (b"a,\n1,2\n", "columns.csv:1: has a column called \"\""),
            (b"a\n\xff\n", "columns.csv:2: is not UTF-8"),
        ] {
            fs::write(dir.path().join(FILE), bytes).unwrap();
            let error = Columns::read(dir.path()).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(said) && message.lines().count() == 1, "{message}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn any_text_comes_back_from_the_disk(rows in prop::collection::vec((".*", "[\",\n\r ]*"), 1..6), one in any::<bool>()) {
            let mut columns = Columns::default();
            for (a, b) in &rows {
                let both = [("a, \"quoted\"", a.as_str()), ("b", b.as_str())];
                columns.push(both.into_iter().skip(usize::from(one))).unwrap();
            }
            let dir = tempfile::tempdir().unwrap();
            columns.write(dir.path()).unwrap();
            prop_assert_eq!(&Columns::read(dir.path()).unwrap(), &columns);
        }

        #[test]
        fn garbage_is_columns_or_one_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), bytes).unwrap();
            if let Err(error) = Columns::read(dir.path()) {
                prop_assert_eq!((error.to_string().lines().count(), error.exit_code()), (1, 2));
            }
        }
    }
}
