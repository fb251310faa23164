//! One function for each parser of foreign bytes, for the fuzz targets. Each takes any bytes; what a parser
//! takes must be what is written.

use crate::codec::{self, Decoded, settings};
use crate::escape::{Shape, Unescaped, escape, is_cut, unescape_blob, unescape_directory};
use delugefs_core::entry::Kind;
use delugefs_core::name::Name;

pub use crate::exchange::{
    fuzz_advertisement as git_advertisement, fuzz_pack as git_pack, fuzz_pktline as git_pktline,
    fuzz_refs as git_refs, fuzz_request as git_request, fuzz_tree as git_tree,
};

/// Whatever [`codec::decode`] takes is written back the same.
pub fn descriptor(bytes: &[u8]) {
    if let Ok(decoded) = codec::decode(bytes) {
        assert_eq!(encode_again(&decoded), Some(bytes.to_vec()));
    }
    // foreign as well: what describes a content outside of a descriptor
    let _ = codec::content_of_info(bytes);
}

fn encode_again(decoded: &Decoded) -> Option<Vec<u8>> {
    if decoded.entry.kind == Kind::Directory {
        let name = decoded.name.as_ref();
        return Some(codec::encode_directory(
            &decoded.entry,
            name,
            decoded.fan_out,
        ));
    }
    let short = Name::parse(b"a").ok();
    let name = decoded.name.clone().or(short)?;
    Some(codec::encode(
        &decoded.entry,
        &name,
        decoded.info.as_deref(),
    ))
}

/// Whatever [`settings::decode`] takes is written back the same.
pub fn volume_settings(bytes: &[u8]) {
    if let Ok(decoded) = settings::decode(bytes) {
        assert_eq!(settings::encode(&decoded), bytes);
    }
}

/// Any bytes as a name in a tree, and as a name of the volume.
pub fn names(bytes: &[u8]) {
    if let Some((shape, Unescaped::Whole(name))) = unescape_blob(bytes) {
        assert_eq!(escape(&name, shape), bytes);
    }
    if let Some(Unescaped::Whole(name)) = unescape_directory(bytes) {
        assert_eq!(escape(&name, Shape::Directory), bytes);
    }
    if let Ok(name) = Name::parse(bytes) {
        for shape in [Shape::File, Shape::Node, Shape::Directory] {
            comes_back(&name, shape);
        }
    }
}

fn comes_back(name: &Name, shape: Shape) {
    let escaped = escape(name, shape);
    assert!(escaped.len() <= crate::escape::ESCAPED_BYTES_MAX);
    // a name that peers refuse would keep the whole volume from them
    assert!(
        crate::exchange::takes_name(&escaped),
        "{}",
        escaped.escape_ascii()
    );
    let found = match shape {
        Shape::Directory => unescape_directory(&escaped),
        Shape::File | Shape::Node => unescape_blob(&escaped)
            .filter(|(found, _)| *found == shape)
            .map(|(_, unescaped)| unescaped),
    };
    let whole = || Unescaped::Whole(name.clone());
    let expected = if is_cut(name, shape) {
        Unescaped::Cut
    } else {
        whole()
    };
    assert_eq!(found, Some(expected));
}

/// Any bytes as a commit: no panic.
pub fn commit(bytes: &[u8]) {
    let _ = crate::commit::parse(gix::ObjectId::Sha1([1; 20]), bytes);
}

/// Any bytes as two objects and a delta: what is encoded gives the same again, what is applied keeps its limit.
pub fn delta(bytes: &[u8]) {
    use crate::repository::packs::delta::{apply, encode};
    const LIMIT: usize = 1 << 16;
    let Some((cut, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let cut = usize::from(u16::from_le_bytes(*cut)).min(rest.len());
    let (base, other) = rest.split_at(cut);
    if let Some(delta) = encode(base, other, usize::MAX) {
        assert_eq!(apply(base, &delta, other.len()), Ok(other.to_vec()));
    }
    if let Ok(made) = apply(base, other, LIMIT) {
        assert!(made.len() <= LIMIT);
    }
}

/// Any bytes as a commit that has to be signed, and as the header that holds a signature: a fuzzer has no keys, so
/// that whatever is taken for signed is a way in.
pub fn signed_commit(bytes: &[u8]) {
    if let Ok(key) = crate::signature::verify(bytes) {
        assert!(
            KEYS.contains(&key),
            "signed by a key that a fuzzer does not have"
        );
    }
    crate::signature::fuzz_header(bytes);
}

/// The key of the seeds: 32 bytes of 7.
const KEYS: [[u8; 32]; 1] = [[
    0xea, 0x4a, 0x6c, 0x63, 0xe2, 0x9c, 0x52, 0x0a, 0xbe, 0xf5, 0x50, 0x7b, 0x13, 0x2e, 0xc5, 0xf9,
    0x95, 0x47, 0x76, 0xae, 0xbe, 0xbe, 0x7b, 0x92, 0x42, 0x1e, 0xea, 0x69, 0x14, 0x46, 0xd2, 0x2c,
]];
