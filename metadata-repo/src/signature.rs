//! SSH signatures of commits: what `git log --show-signature` verifies, with ed25519 keys.
//!
//! A signed commit is the unsigned one with the header `gpgsig` after all others (git's commit.c,
//! `sign_commit_to_strbuf`), which holds an armoured signature of the rest (OpenSSH's PROTOCOL.sshsig; namespace
//! `git`, hash SHA-512). There is one encoding for each key and signature, and nothing else is taken: a commit's
//! signature has a fixed length, and whoever changes any byte of it has another commit that is refused.

use delugefs_core::ids::IncarnationId;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha512};

/// Who signs this node's commits: has the incarnation's ed25519 key, or can ask for signatures with it.
pub trait Signer {
    /// The public half, whose hash is the incarnation.
    fn public_key(&self) -> [u8; 32];
    /// An ed25519 signature (RFC 8032) of these bytes.
    fn sign(&self, bytes: &[u8]) -> [u8; 64];

    /// Whose commits it signs.
    fn incarnation(&self) -> IncarnationId {
        IncarnationId::of_key(&self.public_key())
    }
}

impl Signer for SigningKey {
    fn public_key(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }

    fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        ed25519_dalek::Signer::sign(self, bytes).to_bytes()
    }
}

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const KEY_TYPE: &[u8] = b"ssh-ed25519";
const NAMESPACE: &[u8] = b"git";
const HASH: &[u8] = b"sha512";
const BEGIN: &str = "gpgsig -----BEGIN SSH SIGNATURE-----\n ";
const END: &str = "\n -----END SSH SIGNATURE-----\n";

/// Characters in a line of the armour, as ssh-keygen writes them.
const LINE: usize = 70;

/// Bytes of a signature before it is armoured.
const BLOB_BYTES: usize = 173;

/// Where the key and the signature are in it.
const KEY_AT: usize = 33;
const SIGNATURE_AT: usize = BLOB_BYTES - 64;

/// Bytes of the armoured header.
const HEADER_BYTES: usize = BEGIN.len() + ARMOUR_BYTES + END.len();
const BASE64_BYTES: usize = BLOB_BYTES.div_ceil(3) * 4;
const ARMOUR_BYTES: usize = BASE64_BYTES + 2 * (BASE64_BYTES.div_ceil(LINE) - 1);

/// Why a commit does not count as signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("it is not signed")]
    Missing,
    #[error("its signature is not written as this program writes one")]
    Malformed,
    #[error("its signature is not of this commit")]
    Wrong,
}

/// A commit with the signature that it lacks.
pub(crate) fn signed(commit: &[u8], signer: &dyn Signer) -> Option<Vec<u8>> {
    let end = header_end(commit)?;
    let signature = signer.sign(&to_be_signed(&[commit]));
    let header = armoured(&signer.public_key(), &signature);
    let mut signed = Vec::with_capacity(commit.len() + HEADER_BYTES);
    signed.extend_from_slice(&commit[..end]);
    signed.extend_from_slice(header.as_bytes());
    signed.extend_from_slice(&commit[end..]);
    Some(signed)
}

/// The public key that has signed a commit.
pub(crate) fn verify(commit: &[u8]) -> Result<[u8; 32], SignatureError> {
    let (parts, header) = split(commit)?;
    let (key, signature) = parse(header).ok_or(SignatureError::Malformed)?;
    VerifyingKey::from_bytes(&key)
        .and_then(|key| {
            key.verify_strict(&to_be_signed(&parts), &Signature::from_bytes(&signature))
        })
        .map_err(|_| SignatureError::Wrong)?;
    Ok(key)
}

/// A public key as in `~/.ssh/*.pub` and in files of allowed signers.
pub fn openssh_key(public_key: &[u8; 32]) -> String {
    format!("ssh-ed25519 {}", base64(&key_blob(public_key)))
}

/// Where the empty line is that ends the headers.
fn header_end(commit: &[u8]) -> Option<usize> {
    let end = commit.windows(2).position(|pair| pair == b"\n\n")?;
    Some(end + 1)
}

/// What is signed, in two parts, and the header between them.
fn split(commit: &[u8]) -> Result<([&[u8]; 2], &[u8]), SignatureError> {
    let end = header_end(commit).ok_or(SignatureError::Missing)?;
    let (headers, rest) = commit.split_at(end);
    if !headers.windows(8).any(|bytes| bytes == b"\ngpgsig ") {
        return Err(SignatureError::Missing);
    }
    let at = headers.len().checked_sub(HEADER_BYTES);
    let (before, header) = headers.split_at(at.ok_or(SignatureError::Malformed)?);
    // git leaves out every signature when it verifies: there must be no other, nor anything else it does not know
    let last = before.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    match last {
        Some(line) if line.starts_with(b"committer ") && before.ends_with(b"\n") => {
            Ok(([before, rest], header))
        }
        _ => Err(SignatureError::Malformed),
    }
}

/// The header's key and signature.
fn parse(header: &[u8]) -> Option<([u8; 32], [u8; 64])> {
    let text = std::str::from_utf8(header).ok()?;
    let armour = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let blob: [u8; BLOB_BYTES] = unbase64(&armour.replace("\n ", ""))?.try_into().ok()?;
    let key = blob[KEY_AT..].first_chunk()?;
    let signature = blob[SIGNATURE_AT..].first_chunk()?;
    // the one encoding of these two
    (armoured(key, signature) == text).then_some((*key, *signature))
}

/// Any bytes as a signature's header: what is read is written the same, and nothing else means it.
pub(crate) fn fuzz_header(bytes: &[u8]) {
    if let Some((key, signature)) = parse(bytes) {
        assert_eq!(armoured(&key, &signature).as_bytes(), bytes);
    }
}

fn armoured(public_key: &[u8; 32], signature: &[u8; 64]) -> String {
    let text = base64(&blob(public_key, signature));
    let mut header = String::with_capacity(HEADER_BYTES);
    header.push_str(BEGIN);
    for (index, character) in text.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            header.push_str("\n ");
        }
        header.push(character);
    }
    header.push_str(END);
    header
}

fn blob(public_key: &[u8; 32], signature: &[u8; 64]) -> Vec<u8> {
    let mut blob = MAGIC.to_vec();
    blob.extend(VERSION.to_be_bytes());
    string(&mut blob, &key_blob(public_key));
    for field in [NAMESPACE, b"", HASH] {
        string(&mut blob, field);
    }
    let mut inner = Vec::new();
    string(&mut inner, KEY_TYPE);
    string(&mut inner, signature);
    string(&mut blob, &inner);
    blob
}

fn key_blob(public_key: &[u8; 32]) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, KEY_TYPE);
    string(&mut blob, public_key);
    blob
}

/// What the key signs, of a commit in parts.
fn to_be_signed(commit: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha512::new();
    for part in commit {
        hash.update(part);
    }
    let mut bytes = MAGIC.to_vec();
    for field in [NAMESPACE, b"", HASH, &hash.finalize()] {
        string(&mut bytes, field);
    }
    bytes
}

/// RFC 4251's `string`.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let character = match digit <= chunk.len() {
                true => ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63],
                false => b'=',
            };
            text.push(char::from(character));
        }
    }
    text
}

/// What [`base64`] makes, and perhaps more: the caller compares.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').bytes();
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
