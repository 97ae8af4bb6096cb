//! Interrupts a save at every step of its sequence, as an error and as the death of the process, and shows that a
//! whole state is always there.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeSeq as _};

use super::row_file::tests::{Rows, WIDE};
use super::{RowFile, load_latest, save, save_rows};
use crate::files::crash::{How, Interrupted, die, interrupt, survive, temporaries};

/// Big enough to leave the write buffer before it is whole; dies half-way through when told to.
#[derive(Debug, PartialEq, Deserialize)]
struct Big {
    #[serde(rename = "v")]
    values: Vec<u64>,
}

struct DiesHalfway<'a>(&'a [u64]);

impl Serialize for DiesHalfway<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for value in &self.0[..self.0.len() / 2] {
            seq.serialize_element(value)?;
        }
        die()
    }
}

fn values(step: u64) -> Vec<u64> {
    (0..300_000).map(|i| i ^ step).collect()
}

fn assert_whole(dir: &Path, allowed: &[u64], when: &str) -> u64 {
    let loaded = load_latest::<Big, Big, Big, ()>(dir, |_| Ok(())).expect(when).expect("there was a checkpoint");
    assert!(allowed.contains(&loaded.step), "{when}: step {}", loaded.step);
    assert!(loaded.value.values == values(loaded.step), "{when}: wrong content");
    assert!(loaded.warnings.is_empty(), "{when}: {:?}", loaded.warnings);
    loaded.step
}

#[test]
fn a_save_interrupted_at_any_step_leaves_a_whole_state() {
    for how in [How::Fail, How::Die] {
        let mut interrupted = 0;
        for at in 0.. {
            let dir = tempfile::tempdir().expect("temporary folder");
            let dir = dir.path();
            save(dir, 1, &[], &values(1)).expect("first");
            save(dir, 2, &[], &values(2)).expect("second");

            let when = format!("{how:?} at step {at}");
            match interrupt(at, how, || save(dir, 3, &[], &values(3))) {
                Interrupted::Finished(saved) => {
                    saved.expect("no step was left to interrupt");
                    break;
                }
                Interrupted::Failed(saved) => {
                    let line = saved.expect_err(&when).to_string();
                    assert!(!line.contains('\n'), "{line}");
                    assert_eq!(temporaries(dir), 0, "{when}: an error leaves no temporary");
                }
                Interrupted::Died => {}
            }
            interrupted += 1;
            assert_whole(dir, &[2, 3], &when);

            save(dir, 4, &[], &values(4)).expect("the next save works");
            assert_eq!(assert_whole(dir, &[4], &when), 4);
            assert_eq!(temporaries(dir), 0, "{when}: leftovers are cleared");
        }
        assert!(interrupted >= 7, "only {interrupted} steps were interrupted");
    }
}

#[test]
fn death_in_the_middle_of_the_payload_leaves_the_state_before() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let dir = dir.path();
    save(dir, 1, &[], &values(1)).expect("first");
    let big = values(2);
    assert!(survive(|| save(dir, 2, &[], &DiesHalfway(&big))).is_none());
    assert_eq!(temporaries(dir), 1);
    assert_whole(dir, &[1], "death in the payload");
}

/// A table whose row `update` and those of half of the updates before it changed at `update`.
fn touched(table: &mut Rows, update: u64) {
    table.touch(update, (0..update as u32).filter(|id| (id + update as u32).is_multiple_of(2)));
}

/// Saves table and state after update `update`, as a run does.
fn save_both(dir: &Path, chain: &[RowFile], update: u64, table: &Rows) -> crate::Result<Vec<RowFile>> {
    let chain = save_rows(dir, chain, update, table)?;
    save(dir, update, &chain, &update)?;
    Ok(chain)
}

/// What a run finds when it goes on: its update, its table, and the files it is in.
fn load_both(dir: &Path, when: &str) -> (u64, Rows, Vec<RowFile>) {
    let read = |files: &[RowFile]| Rows::read(dir, files, WIDE);
    let loaded = load_latest::<u64, u64, u64, Rows>(dir, read).expect(when).expect("there was a checkpoint");
    assert_eq!(loaded.value, loaded.step, "{when}");
    (loaded.step, loaded.rows, loaded.row_files)
}

/// The files of a folder that are row files.
fn row_files(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("list").map(|e| e.expect("entry").file_name().into_string().expect("name"));
    names.filter(|name| RowFile::is_name(name)).collect()
}

#[test]
fn a_save_of_a_table_interrupted_at_any_step_leaves_the_old_table_or_the_new_one() {
    for how in [How::Fail, How::Die] {
        for last in [4, 7, 8] {
            let mut interrupted = 0;
            for at in 0.. {
                let dir = tempfile::tempdir().expect("temporary folder");
                let dir = dir.path();
                let (mut table, mut chain) = (Rows::new(WIDE), Vec::new());
                for update in 1..last {
                    touched(&mut table, update);
                    chain = save_both(dir, &chain, update, &table).expect("save");
                }
                let before = table.clone();
                touched(&mut table, last);
                if let Interrupted::Finished(saved) = interrupt(at, how, || save_both(dir, &chain, last, &table)) {
                    saved.expect("no step was left to interrupt");
                    break;
                }
                interrupted += 1;
                let when = format!("update {last}, step {at}");
                let (step, found, chain) = load_both(dir, &when);
                let expected = if step == last { &table } else { &before };
                assert!([last - 1, last].contains(&step), "{when}: {step}");
                assert!(found.values() == expected.values(), "{when}: another table");

                // Going on from there comes to the same table, and nothing is left over.
                let mut resumed = found;
                for update in step + 1..=last + 1 {
                    touched(&mut resumed, update);
                }
                let chain = save_both(dir, &chain, last + 1, &resumed).expect("the next save works");
                touched(&mut table, last + 1);
                assert!(load_both(dir, &when).1.values() == table.values(), "{when}");
                assert!(row_files(dir).len() <= 3 * chain.len() + 3, "{when}: {:?}", row_files(dir));
                assert_eq!(temporaries(dir), 0, "{when}");
            }
            assert!(interrupted >= 9, "only {interrupted} steps were interrupted");
        }
    }
}

#[test]
fn any_one_damaged_row_file_leaves_a_state_to_go_on_from() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let dir = dir.path();
    let (mut table, mut chain, mut tables) = (Rows::new(WIDE), Vec::new(), vec![Rows::new(WIDE)]);
    for update in 1..=24 {
        touched(&mut table, update);
        chain = save_both(dir, &chain, update, &table).expect("save");
        tables.push(table.clone());
        if update < 6 {
            continue;
        }
        for name in row_files(dir) {
            let path = dir.join(&name);
            let good = fs::read(&path).expect("read");
            fs::write(&path, &good[..good.len() - 4]).expect("write");
            let (step, found, _) = load_both(dir, &name);
            assert!(found.values() == tables[step as usize].values(), "{name}: another table");
            fs::write(&path, good).expect("write");
        }
    }
}
