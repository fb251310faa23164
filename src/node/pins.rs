//! Which link key belongs to which node: the first one seen is kept, in `holdings/pins`, a line each.

use crate::link::{PinError, Pins};
use crate::sync_ext::lock;
use delugefs_core::ids::NodeId;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

/// First line of the file.
const HEADER: &str = "delugefs pins 1\n";

/// Nodes whose key is remembered; a volume has far fewer disks.
const PINS_MAX: usize = 10_000;

/// Pins that survive a restart.
pub(super) struct PinFile {
    state: Mutex<State>,
}

struct State {
    pins: BTreeMap<NodeId, [u8; 32]>,
    file: File,
}

impl PinFile {
    /// Reads the pins of a root; lines that make no sense are passed over.
    pub(super) fn open(holdings: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(holdings)?;
        let path = holdings.join("pins");
        let mut file = File::options().create(true).append(true).open(&path)?;
        let bytes = std::fs::read(&path)?;
        let text = String::from_utf8_lossy(&bytes);
        if HEADER.starts_with(text.trim_end_matches('\0')) {
            // new, or cut off while it was
            file.set_len(0)?;
            file.write_all(HEADER.as_bytes())?;
            file.sync_all()?;
        } else if !text.starts_with(HEADER) {
            let text = format!("{} is not in the format {HEADER:?}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        } else if !text.ends_with('\n') {
            // a line that was cut off does not spoil the next
            file.write_all(b"\n")?;
        }
        let pins = text.lines().skip(1).filter_map(parse).collect();
        let state = Mutex::new(State { pins, file });
        Ok(Self { state })
    }
}

fn parse(line: &str) -> Option<(NodeId, [u8; 32])> {
    let (node, key) = line.split_once(' ')?;
    let key: blake3::Hash = key.parse().ok()?;
    Some((node.parse().ok()?, *key.as_bytes()))
}

impl Pins for PinFile {
    fn check(&self, node: NodeId, static_key: &[u8; 32]) -> Result<(), PinError> {
        let mut state = lock(&self.state);
        match state.pins.get(&node) {
            Some(pinned) if pinned == static_key => Ok(()),
            Some(_) => Err(PinError { node }),
            None if state.pins.len() >= PINS_MAX => Ok(()),
            None => {
                state.pins.insert(node, *static_key);
                let line = format!(
                    "{node} {}\n",
                    blake3::Hash::from_bytes(*static_key).to_hex()
                );
                let written = state.file.write_all(line.as_bytes());
                if let Err(error) = written.and_then(|()| state.file.sync_data()) {
                    tracing::warn!(
                        "the key of node {node} is remembered only until the next start: {error}"
                    );
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        let (one, seven) = ("01".repeat(16), "07".repeat(32));
        std::fs::write(&path, format!("delugefs pins 1\n{one} {seven}\n{one} 07")).unwrap();
        let pins = PinFile::open(folder.path()).unwrap();
        assert!(pins.check(NodeId::new([1; 16]), &[7; 32]).is_ok());
        assert!(pins.check(NodeId::new([1; 16]), &[8; 32]).is_err());
        assert!(pins.check(NodeId::new([2; 16]), &[8; 32]).is_ok());
        let (two, eight) = ("02".repeat(16), "08".repeat(32));
        let expected = format!("delugefs pins 1\n{one} {seven}\n{one} 07\n{two} {eight}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn beyond_the_limit_newcomers_are_not_pinned_and_known_nodes_stay() {
        let folder = tempfile::tempdir().unwrap();
        let key = "07".repeat(32);
        let lines = (0..PINS_MAX).map(|number| format!("{number:032x} {key}\n"));
        let full: String = std::iter::once(HEADER.to_owned()).chain(lines).collect();
        let path = folder.path().join("pins");
        std::fs::write(&path, &full).unwrap();
        let pins = PinFile::open(folder.path()).unwrap();
        for other in [[8; 32], [9; 32]] {
            assert!(pins.check(NodeId::new([1; 16]), &other).is_ok());
            assert!(pins.check(NodeId::new([0; 16]), &other).is_err());
        }
        assert!(pins.check(NodeId::new([0; 16]), &[7; 32]).is_ok());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), full);
    }

    #[test]
    fn what_is_no_file_of_pins_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pins");
        for (text, is_taken) in [
            ("", true),
            ("delugefs pi", true),
            ("delugefs pins 2\n", false),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(PinFile::open(folder.path()).is_ok(), is_taken, "{text:?}");
            let now = std::fs::read_to_string(&path).unwrap();
            assert_eq!(now, if is_taken { HEADER } else { text });
        }
    }

    #[test]
    fn the_first_key_is_kept_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeId::new([1; 16]);
        assert!(
            PinFile::open(folder.path())
                .unwrap()
                .check(node, &[7; 32])
                .is_ok()
        );
        let pins = PinFile::open(folder.path()).unwrap();
        assert!(pins.check(node, &[7; 32]).is_ok());
        assert_eq!(pins.check(node, &[8; 32]), Err(PinError { node }));
    }
}
