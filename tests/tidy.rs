//! Holds the structure: which crate may name which, where foreign types stop, how long a file may be.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files want splitting.
const LINES_MAX: usize = 600;

/// A foreign crate and the only places that may name it.
const DOORS: [(&str, &[&str]); 6] = [
    ("gix", &["metadata-repo"]),
    ("librqbit", &["tests/interop"]),
    ("fuser", &["src/fuse", "tests/power"]),
    ("mdns_sd", &["discovery/src/mdns.rs", "discovery/tests"]),
    ("zeroconf", &["discovery/src/avahi/session.rs"]),
    ("snow", &["src/link"]),
];

/// Adapters never import one another.
const STRANGERS: [(&str, &[&str]); 4] = [
    (
        "core/",
        &[
            "delugefs_metadata_repo",
            "delugefs_torrent",
            "delugefs_discovery",
            "tokio",
            "std::fs",
            "std::net::Tcp",
            "std::thread",
            "Instant::now",
            "SystemTime",
        ],
    ),
    (
        "metadata-repo/",
        &["delugefs_torrent", "delugefs_discovery", "tokio"],
    ),
    (
        "torrent/",
        &["delugefs_metadata_repo", "delugefs_discovery"],
    ),
    (
        "discovery/",
        &["delugefs_metadata_repo", "delugefs_torrent"],
    ),
];

fn sources() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in [
        "core",
        "metadata-repo",
        "torrent",
        "discovery",
        "src",
        "tests",
        "xtask",
        "benches",
        "fuzz",
    ] {
        collect(&top.join(folder), &mut files);
    }
    let relative = |path: &PathBuf| path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
    files
        .iter()
        .map(|path| (relative(path), fs::read_to_string(path).unwrap()))
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && path.file_name().unwrap() != "target" {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Lines of code that name a crate, as a path or in a `use`.
fn names(text: &str, name: &str) -> bool {
    let uses = |line: &str| {
        let code = line.split("//").next().unwrap_or("").trim();
        code.match_indices(name).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = &code[at + name.len()..];
            let word_starts = before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"');
            word_starts
                && (after.starts_with("::")
                    || after.starts_with('_')
                    || (code.starts_with("use ") && after.starts_with(';')))
        })
    };
    text.lines().any(uses)
}

#[test]
fn foreign_types_stop_at_their_door() {
    for (path, text) in sources() {
        for (name, places) in DOORS {
            let allowed =
                places.iter().any(|place| path.starts_with(place)) || path == "tests/tidy.rs";
            assert!(
                allowed || !names(&text, name),
                "{path} names {name}, which only {places:?} may"
            );
        }
    }
}

#[test]
fn adapters_do_not_know_one_another_and_the_core_knows_nobody() {
    for (path, text) in sources() {
        for (part, strangers) in STRANGERS {
            let product = path.starts_with(part) && !path.contains("/tests/");
            let tests_start = text.find("#[cfg(test)]").unwrap_or(text.len());
            for stranger in strangers.iter().filter(|_| product) {
                assert!(
                    !text[..tests_start].contains(stranger),
                    "{path} names {stranger}"
                );
            }
        }
    }
}

#[test]
fn files_are_short_and_have_no_leftovers() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines");
        let leftover = ["dbg!(", "todo!(", "unimplemented!("]
            .into_iter()
            .find(|word| text.contains(word));
        assert!(
            path == "tests/tidy.rs" || leftover.is_none(),
            "{path} has {leftover:?}"
        );
    }
}
