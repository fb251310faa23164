//! Entries as bytes: descriptors (`.torrent`), nodes (`.node`), directories (`%dir`).
//!
//! A bencoded dictionary with two keys: `delugefs`, ours, and, for a file whose bytes are in the swarm,
//! `info`, kept byte for byte, so that any `BitTorrent` client takes the file (BEP 3). The same bytes are
//! used in journal records, where `info` may be absent.
//!
//! Encoding is canonical and decoding accepts nothing else: a key that this version does not know is an
//! error, since a later version that adds one also raises [`FORMAT`]. So what is decoded and encoded again
//! is the same blob, on every node.

use crate::bencode::{self, BencodeError, Build, Dictionary, Value};
use crate::escape::{Shape, is_cut};
use delugefs_core::entry::{Attributes, Content, ContentRef, Entry, File, Kind, Written};
use delugefs_core::ids::{EntryId, InfoHash};
use delugefs_core::limits::{
    INLINE_BYTES_MAX, LABEL_BYTES_MAX, LINKS_MERGED_MAX, PREVIOUS_MAX, SYMLINK_BYTES_MAX,
    XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX,
};
use delugefs_core::name::Name;
use delugefs_core::time::Timestamp;
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, BTreeSet};

mod fields;
pub mod settings;

use fields::Fields;

/// Version of the format of descriptors, nodes and directories.
pub const FORMAT: u32 = 1;

/// Bytes of an encoded entry: 131,072 pieces of 20 bytes, 256 KiB of extended attributes, 64 KiB inline.
pub const ENCODED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most bits of a name's hash that spread a directory over subtrees: 65,536 of them.
pub const FAN_OUT_BITS_MAX: u8 = 16;

const ATTRIBUTE_BITS: u16 = 0o7777;

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`ENCODED_BYTES_MAX`].
    #[error("longer than {ENCODED_BYTES_MAX} bytes")]
    TooLarge,
    /// Not bencode, or not in its canonical form.
    #[error(transparent)]
    Bencode(#[from] BencodeError),
    /// Written by a later version of this program.
    #[error("format {found} is newer than this program, which knows up to {known}")]
    Newer {
        /// The format that was found.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// A key that has to be there is not.
    #[error("the key {0:?} is missing")]
    Missing(&'static str),
    /// A key that this format does not have, or not here.
    #[error("the key {0:?} is not expected here")]
    Unexpected(String),
    /// A value of the wrong type, or out of its range.
    #[error("the value of {0:?} is of the wrong type or out of range")]
    Invalid(&'static str),
}

/// What an encoded entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The entry.
    pub entry: Entry,
    /// Its name, when that is too long for a name in a Git tree.
    pub name: Option<Name>,
    /// The raw `info` dictionary of a file in the swarm; `None` where it was not at hand to the encoder.
    pub info: Option<Vec<u8>>,
    /// Bits of the names' hashes that spread a directory over subtrees; 0 for all else.
    pub fan_out: u8,
}

/// Encodes an entry called `name`. `info` is the raw `info` dictionary of a file in the swarm; without it the
/// result holds only the reference, which a journal may keep but no tree.
pub fn encode(entry: &Entry, name: &Name, info: Option<&[u8]>) -> Vec<u8> {
    let whole = is_cut(name, Shape::of(&entry.kind)).then_some(name);
    encode_parts(entry, whole, info, 0)
}

/// Encodes a directory's own blob; the root has no name.
pub(crate) fn encode_directory(entry: &Entry, name: Option<&Name>, fan_out: u8) -> Vec<u8> {
    let whole = name.filter(|name| is_cut(name, Shape::Directory));
    encode_parts(entry, whole, None, fan_out)
}

fn encode_parts(entry: &Entry, whole: Option<&Name>, info: Option<&[u8]>, fan_out: u8) -> Vec<u8> {
    let device;
    let mut ours = BTreeMap::new();
    put_attributes(&mut ours, &entry.attributes);
    ours.insert(&b"format"[..], Build::Integer(FORMAT.into()));
    ours.insert(b"id", Build::Bytes(entry.id.as_bytes()));
    ours.insert(b"kind", Build::Bytes(kind_word(&entry.kind).as_bytes()));
    ours.insert(b"written", build_written(&entry.written));
    if let Some(name) = whole {
        ours.insert(b"name", Build::Bytes(name.as_bytes()));
    }
    if fan_out > 0 {
        ours.insert(b"fanout", Build::Integer(fan_out.into()));
    }
    let mut outer = BTreeMap::new();
    match &entry.kind {
        Kind::File(file) => {
            put_file(&mut ours, file, info.is_some());
            if let (Content::Swarm(_), Some(info)) = (&file.content, info) {
                outer.insert(&b"info"[..], Build::Raw(info));
            }
        }
        Kind::Symlink(target) => {
            ours.insert(b"target", Build::Bytes(target));
        }
        Kind::CharacterDevice(rdev) | Kind::BlockDevice(rdev) => {
            device = i128::from(*rdev);
            ours.insert(b"device", Build::Integer(device));
        }
        Kind::Link(shared) => {
            ours.insert(b"target", Build::Bytes(shared.as_bytes()));
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    outer.insert(b"delugefs", Build::Dictionary(ours));
    let mut out = Vec::with_capacity(512 + info.map_or(0, <[u8]>::len));
    Build::Dictionary(outer).write(&mut out);
    out
}

fn kind_word(kind: &Kind) -> &'static str {
    match kind {
        Kind::File(_) => "file",
        Kind::Directory => "directory",
        Kind::Symlink(_) => "symlink",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharacterDevice(_) => "character device",
        Kind::BlockDevice(_) => "block device",
        Kind::Link(_) => "link",
    }
}

fn put_attributes<'a>(ours: &mut BTreeMap<&'a [u8], Build<'a>>, attributes: &'a Attributes) {
    ours.insert(b"accessed", build_time(attributes.accessed));
    ours.insert(b"changed", build_time(attributes.changed));
    ours.insert(b"gid", Build::Integer(attributes.gid.into()));
    ours.insert(b"mode", Build::Integer(attributes.mode.into()));
    ours.insert(b"modified", build_time(attributes.modified));
    ours.insert(b"uid", Build::Integer(attributes.uid.into()));
    if !attributes.xattrs.is_empty() {
        let pairs = attributes.xattrs.iter();
        let xattrs = pairs.map(|(name, value)| (&name[..], Build::Bytes(value)));
        ours.insert(b"xattrs", Build::Dictionary(xattrs.collect()));
    }
    if !attributes.links.is_empty() {
        let links = attributes.links.iter();
        let links = links.map(|link| Build::Bytes(link.as_bytes()));
        ours.insert(b"links", Build::List(links.collect()));
    }
}

fn put_file<'a>(ours: &mut BTreeMap<&'a [u8], Build<'a>>, file: &'a File, has_info: bool) {
    match &file.content {
        Content::Inline(bytes) => {
            ours.insert(b"bytes", Build::Bytes(bytes));
        }
        Content::Swarm(content) if !has_info => {
            let length = Build::Integer(content.length.into());
            let hash = Build::Bytes(content.info_hash.as_bytes());
            let content = BTreeMap::from([(&b"hash"[..], hash), (b"length", length)]);
            ours.insert(b"content", Build::Dictionary(content));
        }
        Content::Swarm(_) => {}
    }
    if !file.previous.is_empty() {
        let hashes = file
            .previous
            .iter()
            .map(|hash| Build::Bytes(hash.as_bytes()));
        ours.insert(b"previous", Build::List(hashes.collect()));
    }
}

fn build_time<'a>(time: Timestamp) -> Build<'a> {
    Build::List(vec![
        Build::Integer(time.seconds.into()),
        Build::Integer(time.nanoseconds.into()),
    ])
}

fn build_written(written: &Written) -> Build<'_> {
    Build::Dictionary(BTreeMap::from([
        (&b"at"[..], build_time(written.at)),
        (b"by", Build::Bytes(written.by.as_bytes())),
        (b"edits", Build::Integer(written.edits.into())),
    ]))
}

/// Decodes what [`encode`] wrote, wherever it comes from: never panics, never takes more memory than a small
/// multiple of the input.
pub fn decode(bytes: &[u8]) -> Result<Decoded, CodecError> {
    if bytes.len() > ENCODED_BYTES_MAX {
        return Err(CodecError::TooLarge);
    }
    let mut outer = Fields::new(bencode::parse(bytes)?, "the descriptor")?;
    let mut ours = outer.dictionary("delugefs")?;
    ours.check_format(FORMAT)?;
    let info = outer.optional_dictionary("info")?;
    outer.finish()?;
    let entry = Entry {
        id: ours.id("id")?,
        attributes: attributes(&mut ours)?,
        written: written(ours.dictionary("written")?)?,
        kind: kind(&mut ours, info.as_ref())?,
    };
    let decoded = Decoded {
        name: whole_name(&mut ours, &entry.kind)?,
        fan_out: fan_out(&mut ours, &entry.kind)?,
        entry,
        info: info.map(|info| info.raw().to_vec()),
    };
    ours.finish()?;
    Ok(decoded)
}

fn attributes(ours: &mut Fields<'_>) -> Result<Attributes, CodecError> {
    let mode: u16 = ours.integer("mode")?;
    if mode & !ATTRIBUTE_BITS != 0 {
        return Err(CodecError::Invalid("mode"));
    }
    Ok(Attributes {
        mode,
        uid: ours.integer("uid")?,
        gid: ours.integer("gid")?,
        accessed: ours.time("accessed")?,
        modified: ours.time("modified")?,
        changed: ours.time("changed")?,
        xattrs: match ours.optional_dictionary("xattrs")? {
            Some(xattrs) => self::xattrs(xattrs)?,
            None => BTreeMap::new(),
        },
        links: links(ours)?,
    })
}

fn links(ours: &mut Fields<'_>) -> Result<BTreeSet<EntryId>, CodecError> {
    let links = ids(ours, "links", LINKS_MERGED_MAX, EntryId::from_slice)?;
    if !links.is_sorted_by(|one, next| one < next) {
        return Err(CodecError::Invalid("links"));
    }
    Ok(links.into_iter().collect())
}

fn xattrs(dictionary: Dictionary<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, CodecError> {
    const INVALID: CodecError = CodecError::Invalid("xattrs");
    let mut xattrs = BTreeMap::new();
    let mut total = 0;
    for (name, value) in dictionary.into_items() {
        let Value::Bytes(value) = value else {
            return Err(INVALID);
        };
        total += name.len() + value.len();
        let named = (1..=XATTR_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(&0);
        if !named || value.len() > XATTR_VALUE_BYTES_MAX || total > XATTRS_BYTES_MAX {
            return Err(INVALID);
        }
        xattrs.insert(name.to_vec(), value.to_vec());
    }
    if xattrs.is_empty() {
        return Err(INVALID);
    }
    Ok(xattrs)
}

fn written(mut fields: Fields<'_>) -> Result<Written, CodecError> {
    let written = Written {
        edits: fields.integer("edits")?,
        at: fields.time("at")?,
        by: fields.text("by", LABEL_BYTES_MAX)?,
    };
    fields.finish()?;
    Ok(written)
}

fn kind(ours: &mut Fields<'_>, info: Option<&Dictionary<'_>>) -> Result<Kind, CodecError> {
    let word = ours.bytes("kind", 32)?;
    if word == b"file" {
        return file(ours, info).map(Kind::File);
    }
    if info.is_some() {
        return Err(CodecError::Unexpected("info".to_owned()));
    }
    match word {
        b"directory" => Ok(Kind::Directory),
        b"symlink" => match ours.bytes("target", SYMLINK_BYTES_MAX)? {
            target if target.is_empty() || target.contains(&0) => {
                Err(CodecError::Invalid("target"))
            }
            target => Ok(Kind::Symlink(target.to_vec())),
        },
        b"fifo" => Ok(Kind::Fifo),
        b"socket" => Ok(Kind::Socket),
        b"character device" => ours.integer("device").map(Kind::CharacterDevice),
        b"block device" => ours.integer("device").map(Kind::BlockDevice),
        b"link" => ours.id("target").map(Kind::Link),
        _ => Err(CodecError::Invalid("kind")),
    }
}

fn file(ours: &mut Fields<'_>, info: Option<&Dictionary<'_>>) -> Result<File, CodecError> {
    let inline = ours.optional_bytes("bytes", INLINE_BYTES_MAX)?;
    let content = ours.optional_dictionary("content")?;
    let content = match (inline, content, info) {
        (Some(bytes), None, None) => Content::Inline(bytes.to_vec()),
        (None, Some(content), None) => Content::Swarm(reference(content)?),
        (None, None, Some(info)) => Content::Swarm(describe(info)?),
        (None, None, None) => return Err(CodecError::Missing("info")),
        _ => return Err(CodecError::Invalid("content")),
    };
    let previous = ids(ours, "previous", PREVIOUS_MAX, InfoHash::from_slice)?;
    Ok(File { content, previous })
}

fn reference(content: Dictionary<'_>) -> Result<ContentRef, CodecError> {
    let mut fields = Fields::of(content);
    let reference = ContentRef {
        info_hash: fields.id("hash")?,
        length: fields.length("length")?,
    };
    fields.finish()?;
    Ok(reference)
}

/// The content that an `info` dictionary describes. Its other keys are for whoever fetches the bytes to judge.
fn describe(info: &Dictionary<'_>) -> Result<ContentRef, CodecError> {
    let length = match info.get("length") {
        Some(Value::Integer(length)) => u64::try_from(*length).ok().filter(|length| *length > 0),
        _ => None,
    };
    Ok(ContentRef {
        info_hash: InfoHash::new(Sha1::digest(info.raw()).into()),
        length: length.ok_or(CodecError::Invalid("length"))?,
    })
}

/// What a raw `info` dictionary describes: its info-hash and length.
pub fn content_of_info(info: &[u8]) -> Result<ContentRef, CodecError> {
    if info.len() > ENCODED_BYTES_MAX {
        return Err(CodecError::TooLarge);
    }
    match bencode::parse(info)? {
        Value::Dictionary(info) => describe(&info),
        _ => Err(CodecError::Invalid("info")),
    }
}

/// A list that is left out where it would be empty.
fn ids<I>(
    ours: &mut Fields<'_>,
    key: &'static str,
    most: usize,
    parse: fn(&[u8]) -> Option<I>,
) -> Result<Vec<I>, CodecError> {
    let Some(items) = ours.optional_list(key)? else {
        return Ok(Vec::new());
    };
    if items.is_empty() || items.len() > most {
        return Err(CodecError::Invalid(key));
    }
    let id = |item: &Value<'_>| match item {
        Value::Bytes(bytes) => parse(bytes),
        _ => None,
    };
    let ids = items.iter().map(id).collect::<Option<_>>();
    ids.ok_or(CodecError::Invalid(key))
}

fn whole_name(ours: &mut Fields<'_>, kind: &Kind) -> Result<Option<Name>, CodecError> {
    let Some(bytes) = ours.optional_bytes("name", usize::MAX)? else {
        return Ok(None);
    };
    let name = Name::parse(bytes).ok();
    match name.filter(|name| is_cut(name, Shape::of(kind))) {
        Some(name) => Ok(Some(name)),
        None => Err(CodecError::Invalid("name")),
    }
}

fn fan_out(ours: &mut Fields<'_>, kind: &Kind) -> Result<u8, CodecError> {
    match (ours.optional_integer::<u8>("fanout")?, kind) {
        (None, _) => Ok(0),
        (Some(bits), Kind::Directory) if (1..=FAN_OUT_BITS_MAX).contains(&bits) => Ok(bits),
        (Some(_), _) => Err(CodecError::Invalid("fanout")),
    }
}

#[cfg(test)]
mod tests;
