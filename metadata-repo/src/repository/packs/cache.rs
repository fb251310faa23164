//! Objects that deltas rest on, kept while neighbours are read.

use crate::cache::Cache;
use gix::objs::Kind;
use std::sync::Arc;

/// Bytes of each of two generations.
const BYTES_MAX: usize = 8 << 20;

/// A larger object would push out many that are of more use.
const OBJECT_BYTES_MAX: usize = 256 << 10;

type Decoded = (Kind, usize, Arc<[u8]>);

/// By pack and offset.
pub(crate) struct DeltaBases(Cache<(u32, u64), Decoded>);

impl DeltaBases {
    pub(crate) fn new() -> Self {
        Self(Cache::new(BYTES_MAX))
    }
}

impl gix_pack::cache::DecodeEntry for DeltaBases {
    fn put(&mut self, pack: u32, offset: u64, data: &[u8], kind: Kind, compressed: usize) {
        if data.len() <= OBJECT_BYTES_MAX {
            let decoded = (kind, compressed, Arc::from(data));
            self.0.insert((pack, offset), decoded, data.len());
        }
    }

    fn get(&mut self, pack: u32, offset: u64, out: &mut Vec<u8>) -> Option<(Kind, usize)> {
        let found = self.0.get(&(pack, offset), |(_, _, data)| data.len());
        let (kind, compressed, data) = found?;
        out.clear();
        out.extend_from_slice(&data);
        Some((kind, compressed))
    }
}
