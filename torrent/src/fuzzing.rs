//! One function for each parser of foreign bytes, for the fuzz targets and the mutation tests.

use crate::metainfo::Info;

/// Whatever [`Info::parse`] takes, [`Info::encode`] gives back.
pub fn info(bytes: &[u8]) {
    if let Ok(info) = Info::parse(bytes) {
        assert_eq!(info.encode(), bytes);
    }
}
