use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::{TensorFile, save_weights};

/// A file that PyTorch wrote (`tests/torch/make.py`).
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

/// What the script calls `numbers`.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 * 0.5 - 1.0).collect()
}

fn open_bytes(bytes: &[u8]) -> Result<TorchFile> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("w.pt");
    std::fs::write(&path, bytes).expect("write");
    TorchFile::open(&path)
}

#[test]
fn types_views_and_wrapped_names_are_read_as_pytorch_has_them() {
    let file = TorchFile::open(&fixture("state.pt")).expect("PyTorch's own");
    let found: Vec<NamedTensor> = file.tensors().map(|(name, ..)| file.read(name).expect(name)).collect();
    let base = numbers(12);
    let transposed = (0..12).map(|i| base[i % 4 * 3 + i / 4]).collect();
    let expected = vec![
        NamedTensor::new("brain", [5], numbers(5)),
        NamedTensor::new("column", [2], vec![base[4], base[7]]),
        NamedTensor::new("double", [2, 2, 2], numbers(8)),
        NamedTensor::new("empty", [0, 3], vec![]),
        NamedTensor::new("half", [5], numbers(5)),
        NamedTensor::new("parameter", [2], numbers(2)),
        NamedTensor::new("plain", [4, 3], base.clone()),
        NamedTensor::new("scalar", [], vec![7.5]),
        NamedTensor::new("transposed", [3, 4], transposed),
    ];
    assert_eq!(found, expected);
    assert_eq!(file.left_out(), ["steps"]);
    let elements: Vec<&str> = file.tensors().map(|(.., element)| element.name()).take(3).collect();
    assert_eq!(elements, ["bfloat16", "float32", "float64"]);
}

#[test]
fn a_state_dict_among_other_things_is_found() {
    let file = TorchFile::open(&fixture("nested.pt")).expect("PyTorch's own");
    let found: Vec<NamedTensor> = file.tensors().map(|(name, ..)| file.read(name).expect(name)).collect();
    assert_eq!(found, [NamedTensor::new("bias", [2], numbers(2)), NamedTensor::new("weight", [2, 3], numbers(6))]);
}

#[test]
fn what_is_no_checkpoint_of_tensors_is_refused_in_one_line_that_says_what_to_do() {
    let zip = |name: &str, content: &[u8]| {
        let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
        let (mut entry, config) = archive.new_file(name).start().expect("entry");
        let mut writer = config.wrap(&mut entry);
        std::io::Write::write_all(&mut writer, content).expect("content");
        let (_, descriptor) = writer.finish().expect("content");
        entry.finish(descriptor).expect("entry");
        archive.finish().expect("archive")
    };
    let system = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.";
    let whole = std::fs::read(fixture("state.pt")).expect("fixture");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("old format", std::fs::read(fixture("old.pt")).expect("fixture"), "before 1.6; save it again"),
        ("an object", std::fs::read(fixture("object.pt")).expect("fixture"), "`argparse.Namespace`"),
        ("a function", zip("archive/data.pkl", system), "`posix.system`"),
        ("nothing", zip("archive/data.pkl", b"\x80\x02}."), "no dict of tensors"),
        ("another archive", zip("mimetype", b"x"), "no data.pkl"),
        ("torn", whole[..whole.len() / 2].to_vec(), "not a whole PyTorch checkpoint"),
        ("empty", Vec::new(), "not a whole PyTorch checkpoint"),
        ("text", b"hello".to_vec(), "not a PyTorch checkpoint"),
        ("torn pickle", zip("a/data.pkl", b"\x80\x02}X\xff\xff\xff\xff"), "ends in the middle"),
    ];
    for (name, bytes, words) in cases {
        let line = open_bytes(&bytes).err().unwrap_or_else(|| panic!("{name}: accepted")).to_string();
        assert!(line.contains("w.pt") && line.contains(words), "{name}: {line}");
        assert!(!line.contains('\n') && line.len() < 500, "{name}: {line}");
    }
    for name in ["state.pt", "old.pt"] {
        let line = TensorFile::open(&fixture(name)).err().expect("no safetensors").to_string();
        assert!(line.contains("a PyTorch checkpoint") && line.contains("trm weights import"), "{line}");
    }
}

#[test]
fn a_storage_whose_bytes_changed_is_refused() {
    let mut bytes = std::fs::read(fixture("nested.pt")).expect("fixture");
    let value: Vec<u8> = numbers(2).iter().flat_map(|v| v.to_le_bytes()).collect();
    let at = bytes.windows(8).position(|window| window == value).expect("the bias is in it");
    bytes[at + 1] ^= 1;
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("w.pt");
    std::fs::write(&path, bytes).expect("write");
    let file = TorchFile::open(&path).expect("the pickle is whole");
    let broken = file.tensors().filter(|(name, ..)| file.read(name).is_err()).count();
    assert!(broken >= 1, "the checksum is looked at");
}

#[test]
fn what_is_written_is_read_back_and_shares_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("w.pt");
    let tensors = [
        NamedTensor::new("a", [2, 0], vec![]),
        NamedTensor::new("b.weight", [40, 1000], (0..40_000).map(|i| i as f32).collect()),
        NamedTensor::new("c", [], vec![-0.0]),
    ];
    save_torch(&path, &tensors, "_orig_mod.model.").expect("save");
    let file = TorchFile::open(&path).expect("our own");
    let back: Vec<NamedTensor> = file.tensors().map(|(name, ..)| file.read(name).expect(name)).collect();
    assert_eq!(back, tensors);
    let bytes = std::fs::read(&path).expect("read");
    let first = bytes.windows(8).position(|w| w == [0, 0, 0, 0, 0, 0, 0x80, 0x3f]).expect("0 and 1");
    assert_eq!(first % 64, 0, "storages are aligned");
    save_torch(&dir.path().join("again.pt"), &tensors, "_orig_mod.model.").expect("save");
    assert!(std::fs::read(dir.path().join("again.pt")).expect("read") == bytes, "equal weights give equal bytes");
}

#[test]
fn wrapped_names_of_a_safetensors_file_are_read_without_the_wrappers() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("w.safetensors");
    let names = |prefixes: [&str; 2]| prefixes.map(|prefix| format!("{prefix}inner.x")).to_vec();
    for (prefixes, read) in [
        (["_orig_mod.model.", "_orig_mod.model.a."], ["inner.x", "a.inner.x"]),
        (["module._orig_mod.", "module._orig_mod.b."], ["inner.x", "b.inner.x"]),
        (["model.", "b."], ["model.inner.x", "b.inner.x"]),
    ] {
        let tensors: Vec<_> = names(prefixes).into_iter().map(|name| NamedTensor::new(name, [1], vec![2.0])).collect();
        save_weights(&path, &tensors).expect("save");
        let file = TensorFile::open(&path).expect("open");
        for name in read {
            assert_eq!(file.f32(name).expect(name).name, name, "{:?}", file.names());
        }
    }
}

/// The pickle of a file that PyTorch wrote.
fn pickle_of(name: &str) -> Vec<u8> {
    Archive::open(&fixture(name)).expect("archive").read("data.pkl", pickle::MAX_BYTES).expect("pickle")
}

proptest! {
    #[test]
    fn changed_bytes_of_an_archive_never_panic(
        which in 0..2usize, changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let mut bytes = std::fs::read(fixture(["state.pt", "nested.pt"][which])).expect("fixture");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w.pt");
        std::fs::write(&path, bytes).expect("write");
        if let Ok(file) = TorchFile::open(&path) {
            let names: Vec<String> = file.tensors().map(|(name, ..)| name.to_owned()).collect();
            names.iter().for_each(|name| drop(file.read(name)));
        }
    }

    #[test]
    fn changed_bytes_of_a_pickle_never_panic_and_views_stay_inside(
        which in 0..2usize, changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = pickle_of(["state.pt", "nested.pt"][which]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(found) = Pickle::read(&bytes).and_then(|pickle| weights_in(&pickle)) {
            for view in found.values().filter(|view| view.storage.len < 1_000) {
                if !matches!(view.storage.element, Element::Integer(_)) {
                    let bytes = vec![0; view.storage.len as usize * view.storage.element.bytes()];
                    prop_assert_eq!(values(view, &bytes).len(), view.shape.iter().product::<usize>());
                }
            }
        }
    }

    #[test]
    fn random_instructions_never_panic(
        program in proptest::collection::vec(proptest::sample::select(&b"\x80\x02(N\x88GJKM\x8aX\x8c)]}t\x85\x86\x87aesuqr\x94hjc\x93QRb.\x00\x01\n"[..]), 0..200),
    ) {
        if let Err(line) = Pickle::read(&program).and_then(|pickle| weights_in(&pickle)) {
            prop_assert!(!line.contains('\n'), "{}", line);
        }
    }
}

/// A chain of lists in lists, and dicts that hold each other twice: no deeper, and no larger, than the pickle is long.
#[test]
fn depth_and_sharing_cost_no_more_than_the_pickle_is_long() {
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(std::iter::repeat_n(b']', 100_000));
    deep.extend(std::iter::repeat_n(b'a', 99_999));
    deep.push(b'.');
    assert!(weights_in(&Pickle::read(&deep).expect("lists")).is_err());
    let mut wide = b"\x80\x02}q\x00".to_vec();
    for level in 0..200u8 {
        wide.extend(b"}(X\x01\x00\x00\x00ah");
        wide.push(level);
        wide.extend(b"X\x01\x00\x00\x00bh");
        wide.push(level);
        wide.push(b'u');
        wide.extend([b'q', level + 1]);
    }
    wide.push(b'.');
    assert!(weights_in(&Pickle::read(&wide).expect("dicts")).is_err());
}
