//! Unreachable objects in a pack of their own, each with the time since when it is there (gitformat-pack,
//! "pack-*.mtimes"): stock git knows such packs as cruft packs.

use crate::error::{RepositoryError, Result, git, io};
use gix::ObjectId;
use std::fs;
use std::path::Path;

/// Of the file beside the pack.
pub(in super::super) const EXTENSION: &str = "mtimes";

/// Signature, version 1, SHA-1.
const HEADER: &[u8; 12] = b"MTME\0\0\0\x01\0\0\0\x01";

/// The file's bytes, for times in the order of the pack's index.
pub(in super::super) fn encode(times: &[u32], pack: ObjectId) -> Result<Vec<u8>> {
    let mut out = HEADER.to_vec();
    out.extend(times.iter().flat_map(|time| time.to_be_bytes()));
    out.extend_from_slice(pack.as_slice());
    let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
    hasher.update(&out);
    let checksum = hasher.try_finalize().map_err(git("hash times"))?;
    out.extend_from_slice(checksum.as_slice());
    Ok(out)
}

/// The times in such a file, of `objects` objects.
fn decode(bytes: &[u8], objects: usize) -> Option<Vec<u32>> {
    let rest = bytes.strip_prefix(HEADER)?;
    let (times, rest) = rest.split_at_checked(objects * 4)?;
    let checksum = gix::hash::Kind::Sha1.len_in_bytes();
    (rest.len() == 2 * checksum).then(|| {
        let (times, _) = times.as_chunks::<4>();
        times.iter().map(|time| u32::from_be_bytes(*time)).collect()
    })
}

/// Objects of a cruft pack, by id, with their times. Nothing where the file cannot be understood: then all of them
/// count as found just now.
pub(in super::super) fn read(pack: &Path) -> Result<Vec<(ObjectId, u32)>> {
    let index = gix_pack::index::File::at(pack.with_extension("idx"), gix::hash::Kind::Sha1);
    let index = index.map_err(git("open a pack's index"))?;
    let bytes = fs::read(pack.with_extension(EXTENSION)).map_err(io("read a pack's times"))?;
    let times = decode(&bytes, index.num_objects() as usize).unwrap_or_default();
    let ids = index.iter().map(|entry| entry.oid);
    Ok(ids.zip(times).collect())
}

/// Seconds since the epoch as these files have them.
pub(in super::super) fn time(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

/// Whether a pack is one of these.
pub(in super::super) fn is_cruft(pack: &Path) -> Result<bool> {
    let file = pack.with_extension(EXTENSION);
    file.try_exists().map_err(|source| RepositoryError::Io {
        doing: format!("look for {}", file.display()),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn golden() {
        let pack = ObjectId::Sha1([7; 20]);
        let bytes = encode(&[1, 0x0102_0304], pack).unwrap();
        let start = b"MTME\0\0\0\x01\0\0\0\x01\0\0\0\x01\x01\x02\x03\x04";
        assert_eq!(bytes[..20], start[..]);
        assert_eq!(bytes[20..40], [7; 20]);
        assert_eq!(bytes.len(), 60);
        assert_eq!(decode(&bytes, 2), Some(vec![1, 0x0102_0304]));
        assert_eq!(decode(&bytes, 1), None);
        assert_eq!(decode(&bytes[..59], 2), None);
        assert_eq!((time(-5), time(i64::MAX)), (0, u32::MAX));
    }
}
