//! Which link key belongs to which node: the first one seen is kept, in `holdings/pins`, a line each.

use crate::link::{PinError, Pins};
use crate::sync_ext::lock;
use delugefs_core::ids::NodeId;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

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
        let file = File::options().create(true).append(true).open(&path)?;
        let text = std::fs::read_to_string(&path)?;
        let pins = text.lines().filter_map(parse).collect();
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
                if let Err(error) = state.file.write_all(line.as_bytes()) {
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
