//! Golden records: what the first version of a record's kind wrote decodes to the same value for
//! ever.
//!
//! The files of `tests/golden` are hexadecimal text with comments. With `FANFARE_WRITE_GOLDEN`
//! set, samples that have no file yet get one; an existing file is never written again. A field
//! that is added to a domain type is given, in the samples, the value that its absence means.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::samples;

const COLUMNS: usize = 32;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn file_name(sample: &str) -> String {
    format!("{sample}.v1.hex")
}

fn to_text(sample: &str, bytes: &Bytes) -> String {
    let mut text = format!("# {sample}, as version 1 wrote it. Never changed.\n");
    for row in bytes.chunks(COLUMNS) {
        writeln!(text, "{}", HEXLOWER.encode(row)).unwrap();
    }
    text
}

fn from_text(text: &str) -> Bytes {
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    let digits: String = rows.map(str::trim).collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap().into()
}

#[test]
fn golden_records_decode_to_what_they_meant() {
    let write = std::env::var_os("FANFARE_WRITE_GOLDEN").is_some();
    for (name, sample) in samples::all() {
        let path = folder().join(file_name(name));
        if write && !path.exists() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, to_text(name, &sample.encode())).unwrap();
        }
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{name} has no golden record: {error}"));
        sample.assert_decodes_from(from_text(&text));
    }
    assert_eq!(files(), samples::all().iter().map(|(name, _)| file_name(name)).collect());
}

/// Every file in the folder: one that no sample reads would prove nothing.
fn files() -> BTreeSet<String> {
    let files = fs::read_dir(folder()).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}
