//! Words and the list of them as bytes, version 1; all numbers little-endian.
//!
//! ```text
//! word = key:32 number:u64 count:u16 commit:20… count:u16 incarnation:16… signature:64
//! list = "DFSREST" version:u8=1 own:16 since:i64 full:u8 count:u32 known… count:u32 met:16… check:32
//! known = incarnation:16 seen:i64 length:u32 word
//! ```
//!
//! The heads and incarnations of a word ascend. It is signed (ed25519) over `"delugefs rests on v1" volume:16` and the
//! bytes before the signature; `check` is the BLAKE3 of what is before it.

use super::{HEADS_MAX, Known, Rest, Rests, WORDS_BYTES_MAX};
use crate::ids::{CommitId, IncarnationId, VolumeId};
use crate::input::{Input, TooShort};
use crate::limits::INCARNATIONS_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// The version of a list that this code writes, and the only one it reads.
pub const VERSION: u8 = 1;

/// Longest word in bytes.
pub const WORD_BYTES_MAX: usize = KEY_BYTES
    + 8
    + 2
    + HEADS_MAX * CommitId::LEN
    + 2
    + INCARNATIONS_MAX * IncarnationId::LEN
    + SIGNATURE_BYTES;

/// Longest list in bytes.
pub const LIST_BYTES_MAX: usize = WORDS_BYTES_MAX + INCARNATIONS_MAX * 64 + 1024;

const MAGIC: &[u8; 7] = b"DFSREST";
const DOMAIN: &[u8] = b"delugefs rests on v1";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
const CHECK_BYTES: usize = 32;

/// Why bytes are not a word or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends too early, goes on too long, or breaks the format's rules.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The incarnation has not signed this for this volume.
    #[error("its signature is wrong")]
    Signature,
    /// Written by a newer program.
    #[error("version {0} is not known here (this program knows {VERSION})")]
    Version(u8),
}

impl From<TooShort> for CodecError {
    fn from(_: TooShort) -> Self {
        Self::Malformed("length")
    }
}

/// The public half of signing (ed25519, RFC 8032), which is not this crate's.
pub trait Keys {
    /// Whether a key has signed these bytes.
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool;
}

/// The secret half: an ed25519 signature of these bytes.
pub type Sign<'a> = dyn Fn(&[u8]) -> [u8; 64] + 'a;

/// What an incarnation has said and signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    incarnation: IncarnationId,
    rest: Rest,
    bytes: Vec<u8>,
}

impl Word {
    /// Signs what the incarnation of a public key has to say.
    pub fn sign(rest: &Rest, volume: VolumeId, (key, sign): (&[u8; 32], &Sign<'_>)) -> Self {
        let mut bytes = key.to_vec();
        bytes.extend(rest.number.to_le_bytes());
        bytes.extend((rest.heads.len() as u16).to_le_bytes());
        bytes.extend(rest.heads.iter().flat_map(CommitId::as_bytes));
        bytes.extend((rest.met.len() as u16).to_le_bytes());
        bytes.extend(rest.met.iter().flat_map(IncarnationId::as_bytes));
        bytes.extend(sign(&to_be_signed(volume, &bytes)));
        Self {
            incarnation: IncarnationId::of_key(key),
            rest: rest.clone(),
            bytes,
        }
    }

    /// Reads a word and verifies that its incarnation has signed it for this volume.
    pub fn read(bytes: &[u8], volume: VolumeId, keys: &dyn Keys) -> Result<Self, CodecError> {
        let mut input = Input(bytes);
        let key = input.array()?;
        let rest = Rest {
            number: input.u64()?,
            heads: ids(&mut input, HEADS_MAX, CommitId::new)?,
            met: ids(&mut input, INCARNATIONS_MAX, IncarnationId::new)?,
        };
        let signed = &bytes[..bytes.len() - input.0.len()];
        let signature = input.array()?;
        if !input.0.is_empty() {
            return Err(CodecError::Malformed("end"));
        }
        if !keys.verify(&key, &to_be_signed(volume, signed), &signature) {
            return Err(CodecError::Signature);
        }
        Ok(Self {
            incarnation: IncarnationId::of_key(&key),
            rest,
            bytes: bytes.to_vec(),
        })
    }

    /// Who has said it.
    pub fn incarnation(&self) -> IncarnationId {
        self.incarnation
    }

    /// What was said.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// As it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn to_be_signed(volume: VolumeId, bytes: &[u8]) -> Vec<u8> {
    [DOMAIN, volume.as_bytes(), bytes].concat()
}

/// Encodes a list.
pub fn encode(rests: &Rests) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend(rests.own.as_bytes());
    out.extend(rests.since.to_le_bytes());
    out.push(u8::from(rests.full));
    out.extend((rests.nodes.len() as u32).to_le_bytes());
    for (incarnation, known) in &rests.nodes {
        let word = known.word.as_ref().map_or(&[][..], Word::bytes);
        out.extend(incarnation.as_bytes());
        out.extend(known.seen.to_le_bytes());
        out.extend((word.len() as u32).to_le_bytes());
        out.extend(word);
    }
    out.extend((rests.met.len() as u32).to_le_bytes());
    out.extend(rests.met.iter().flat_map(IncarnationId::as_bytes));
    out.extend(blake3::hash(&out).as_bytes());
    out
}

/// Decodes a list that [`encode`] wrote, whole.
pub fn decode(bytes: &[u8], volume: VolumeId, keys: &dyn Keys) -> Result<Rests, CodecError> {
    let mut input = Input(bytes);
    if input.array()? != *MAGIC {
        return Err(CodecError::Malformed("start"));
    }
    match input.array()? {
        [VERSION] => {}
        [version] => return Err(CodecError::Version(version)),
    }
    let end = bytes.len().checked_sub(CHECK_BYTES);
    let (all, check) = bytes.split_at(end.ok_or(CodecError::Malformed("check"))?);
    if blake3::hash(all).as_bytes() != check {
        return Err(CodecError::Malformed("check"));
    }
    let own = IncarnationId::new(input.array()?);
    let since = i64::from_le_bytes(input.array()?);
    let full = input.array()? == [1];
    let mut nodes = BTreeMap::new();
    for _ in 0..input.u32()? {
        let incarnation = IncarnationId::new(input.array()?);
        let seen = i64::from_le_bytes(input.array()?);
        let length = input.u32()?;
        let word = match input.take(length as usize)? {
            [] => None,
            word => Some(Word::read(word, volume, keys)?),
        };
        nodes.insert(incarnation, Known { seen, word });
    }
    let mut met = BTreeSet::new();
    for _ in 0..input.u32()? {
        met.insert(IncarnationId::new(input.array()?));
    }
    let rests = Rests {
        own,
        since,
        full,
        nodes,
        met,
    };
    // one encoding, so that nothing is passed over
    match encode(&rests) == bytes {
        true => Ok(rests),
        false => Err(CodecError::Malformed("list")),
    }
}

/// Ascending ones.
fn ids<const N: usize, T: Ord>(
    input: &mut Input<'_>,
    most: usize,
    new: fn([u8; N]) -> T,
) -> Result<BTreeSet<T>, CodecError> {
    let count = usize::from(input.u16()?);
    if count > most {
        return Err(CodecError::Malformed("count"));
    }
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        let id = new(input.array()?);
        if ids.last().is_some_and(|last| *last >= id) {
            return Err(CodecError::Malformed("order"));
        }
        ids.insert(id);
    }
    Ok(ids)
}

/// Takes whatever is said for signed.
pub(super) struct Anyone;

impl Keys for Anyone {
    fn verify(&self, _: &[u8; KEY_BYTES], _: &[u8], _: &[u8; SIGNATURE_BYTES]) -> bool {
        true
    }
}

/// Any bytes as a word and as a list, for the fuzz target, which cannot sign: what is taken is written back the same.
pub fn fuzz(bytes: &[u8]) {
    let volume = VolumeId::new([1; VolumeId::LEN]);
    if let Ok(word) = Word::read(bytes, volume, &Anyone)
        && let Some((key, _)) = bytes.split_first_chunk()
        && let Some((_, signature)) = bytes.split_last_chunk()
    {
        let again = Word::sign(word.rest(), volume, (key, &|_| *signature));
        assert_eq!(again, word);
    }
    let list = [bytes, blake3::hash(bytes).as_bytes()].concat();
    if let Ok(rests) = decode(&list, volume, &Anyone) {
        assert_eq!(encode(&rests), list);
    }
}
