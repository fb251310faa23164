//! One function for each parser of foreign bytes, for the fuzz targets.

use crate::link::codec;
use crate::net::sniff::{PREFIX_BYTES_MAX, Verdict, sniff};
use bytes::{Bytes, BytesMut};

/// Any bytes as a journal: `ROOT/journal` may come from another version or a failing disk.
pub fn journal(bytes: &[u8]) {
    let _ = crate::filesystem::journal::fuzz(bytes);
}

/// Any bytes as what a peer sends on a control stream, and as one message: whatever is read can be written,
/// and reads the same again.
pub fn link(bytes: &[u8]) {
    message(Bytes::copy_from_slice(bytes));
    let mut incoming = BytesMut::from(bytes);
    while let Ok(Some(frame)) = codec::split_frame(&mut incoming) {
        message(frame);
    }
}

fn message(frame: Bytes) {
    let Ok(Some(message)) = codec::decode(frame) else {
        return;
    };
    let Ok(again) = codec::encode(&message) else {
        panic!("what was read cannot be written: {message:?}");
    };
    let again = codec::decode(again.slice(codec::FRAME_LENGTH_BYTES..));
    assert_eq!(again.ok().flatten(), Some(message));
}

/// Any bytes as the answer to the question which volume a node is of: no panic, and what is read can be said.
pub fn answer(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(volume) = crate::net::ask::parse(text) {
        let again = crate::net::ask::parse(&format!("{} {}\n", volume.id, volume.name));
        assert_eq!(again, Some(volume));
    }
}

/// The first bytes of a connection, as they come in: the verdict falls within the prefix and then stays.
pub fn first_bytes(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(2 * PREFIX_BYTES_MAX)];
    let mut before = Verdict::Undecided;
    for end in 0..=bytes.len() {
        let now = sniff(&bytes[..end]);
        assert!(before == Verdict::Undecided || now == before);
        assert!(now != Verdict::Undecided || end < PREFIX_BYTES_MAX);
        before = now;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The seeds of a target, which were made from docs/FORMATS.md by another program.
    fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        let files = fs::read_dir(folder.join(target)).unwrap();
        let mut seeds: Vec<_> = files
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        seeds.sort();
        seeds
    }

    #[test]
    fn golden_journal_records_of_every_kind() {
        let records = seeds("journal");
        assert_eq!(records.len(), 8);
        for (path, bytes) in records {
            let same = crate::filesystem::journal::fuzz(&bytes);
            assert!(same, "{}", path.display());
        }
    }

    #[test]
    fn golden_messages_of_every_type() {
        let messages = seeds("link");
        assert_eq!(messages.len(), 15);
        for (path, bytes) in messages {
            let message = codec::decode(bytes.clone().into()).unwrap().unwrap();
            let again = codec::encode(&message).unwrap();
            let (length, frame) = again.split_at(codec::FRAME_LENGTH_BYTES);
            assert_eq!(length, (bytes.len() as u32).to_be_bytes());
            assert_eq!(frame, bytes, "{}", path.display());
        }
    }
}
