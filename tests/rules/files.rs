//! Rules that hold for every source file and manifest.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// The longest source file, in lines.
const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below the folders that hold code, without what is built.
fn files(extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders: Vec<_> =
        ["crates", "proto", "services", "tests"].map(|name| root().join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !["target", "node_modules"].contains(&name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no {extension} files below {}", root().display());
    Ok(found)
}

#[test]
fn every_source_file_says_what_it_is_for_and_stays_short() -> Result<()> {
    for path in files("rs")? {
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().count();
        assert!(text.starts_with("//!"), "{} has no module doc", path.display());
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
    Ok(())
}

#[test]
fn every_crate_follows_the_lints_of_the_workspace() -> Result<()> {
    for path in files("toml")?.iter().filter(|path| path.ends_with("Cargo.toml")) {
        let manifest: toml::Table = fs::read_to_string(path)?.parse()?;
        let follows = manifest
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        assert_eq!(follows, Some(true), "{}", path.display());
    }
    Ok(())
}

#[test]
fn tests_wait_for_states_and_are_never_ignored() -> Result<()> {
    for path in files("rs")? {
        // The rule itself names what it forbids.
        if path.ends_with("rules/files.rs") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        assert!(!text.contains("#[ignore"), "{} ignores a test", path.display());
        let inside = path.strip_prefix(root())?;
        let is_test = inside.components().any(|part| part.as_os_str() == "tests");
        assert!(!is_test || !text.contains("thread::sleep("), "{} sleeps", path.display());
    }
    Ok(())
}
