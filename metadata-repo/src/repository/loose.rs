//! Objects in files of their own (gitrepository-layout, "objects/[0-9a-f][0-9a-f]").

use crate::error::{Result, git, io};
use gix::ObjectId;
use gix::objs::Kind;
use gix::zlib::stream::deflate::{Compress, FlushCompress};
use gix::zlib::{Compression, Status};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes that deflate hands over at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// Writes loose objects, one by one.
///
/// Kept from one to the next: what deflate needs is 300 KB, and taken anew for each object it leaves holes among what
/// is remembered of that object, gigabytes in the end.
pub(super) struct LooseWriter {
    deflate: Compress,
    chunk: Vec<u8>,
    out: Vec<u8>,
}

impl std::fmt::Debug for LooseWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LooseWriter").finish_non_exhaustive()
    }
}

impl Default for LooseWriter {
    fn default() -> Self {
        Self {
            deflate: Compress::new(Compression::BEST_SPEED),
            chunk: vec![0; CHUNK_BYTES],
            out: Vec::new(),
        }
    }
}

impl LooseWriter {
    /// Writes an object, and gives its file, which is not synced.
    pub(super) fn write(
        &mut self,
        objects: &Path,
        id: ObjectId,
        (kind, data): (Kind, &[u8]),
    ) -> Result<PathBuf> {
        self.deflate.reset();
        self.out.clear();
        let header = gix::objs::encode::loose_header(kind, data.len() as u64);
        self.compress(&header, FlushCompress::None)?;
        self.compress(data, FlushCompress::Finish)?;
        let hex = id.to_string();
        let directory = objects.join(&hex[..2]);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(io("create a directory of objects")(error));
            }
            _ => {}
        }
        let path = directory.join(&hex[2..]);
        let doing = || io("write an object");
        let mut file = tempfile::Builder::new()
            .prefix(".tmp-object-")
            .permissions(Permissions::from_mode(0o444))
            .tempfile_in(&directory)
            .map_err(doing())?;
        file.write_all(&self.out).map_err(doing())?;
        file.persist(&path).map_err(|error| doing()(error.error))?;
        Ok(path)
    }

    fn compress(&mut self, mut data: &[u8], flush: FlushCompress) -> Result<()> {
        loop {
            let (taken, made) = (self.deflate.total_in(), self.deflate.total_out());
            let status = self.deflate.compress(data, &mut self.chunk, flush);
            let status = status.map_err(git("compress an object"))?;
            data = &data[(self.deflate.total_in() - taken) as usize..];
            let made = (self.deflate.total_out() - made) as usize;
            self.out.extend_from_slice(&self.chunk[..made]);
            let is_over = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                _ => data.is_empty() && made < self.chunk.len(),
            };
            if is_over {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_by_others() {
        let scratch = tempfile::tempdir().unwrap();
        let mut writer = LooseWriter::default();
        let hash = gix::hash::Kind::Sha1;
        let store = gix::odb::loose::Store::at(scratch.path(), hash);
        let noise = blake3::Hasher::new().finalize_xof();
        let mut large = vec![0; 300_000];
        std::io::Read::read_exact(&mut { noise }, &mut large).unwrap();
        let even = vec![7; 100_000];
        for data in [&b""[..], b"a", &even, &large] {
            let id = gix::objs::compute_hash(hash, Kind::Blob, data).unwrap();
            for _ in 0..2 {
                let file = writer.write(scratch.path(), id, (Kind::Blob, data));
                assert_eq!(file.unwrap(), store.object_path(&id));
            }
            let mut buffer = Vec::new();
            let found = store.try_find(&id, &mut buffer).unwrap().unwrap();
            assert_eq!((found.kind, found.data), (Kind::Blob, data));
        }
    }
}
