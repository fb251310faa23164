//! What a connection is, from its first bytes. Pure.

use super::ask::QUESTION;
use crate::link::handshake::MAGIC;

/// A `BitTorrent` handshake's beginning (BEP 3).
const BITTORRENT: [u8; 20] = *b"\x13BitTorrent protocol";

/// Hex digits of a pkt-line's length.
const PKT_LENGTH_DIGITS: usize = 4;

/// After them, the only request that a Git daemon serves to clone and fetch.
const GIT_REQUEST: &[u8] = b"git-upload-pack ";

/// Most bytes needed to tell.
pub const PREFIX_BYTES_MAX: usize = 20;

/// What speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A node's link.
    Link,
    /// A stock Git client (`git://`).
    Git,
    /// A `BitTorrent` client.
    BitTorrent,
    /// Somebody who wants to know which volume this is.
    Question,
}

/// What the bytes so far tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is this.
    Is(Protocol),
    /// It may become one of them.
    Undecided,
    /// It is none of them.
    Unknown,
}

/// Judges the first bytes of a connection. Takes any bytes (a fuzz target's entry).
pub fn sniff(bytes: &[u8]) -> Verdict {
    let candidates = [
        (begins(bytes, &MAGIC), Protocol::Link),
        (begins(bytes, &BITTORRENT), Protocol::BitTorrent),
        (begins_git(bytes), Protocol::Git),
        (begins(bytes, QUESTION), Protocol::Question),
    ];
    for (begins, protocol) in candidates {
        match begins {
            Some(true) => return Verdict::Is(protocol),
            None => return Verdict::Undecided,
            Some(false) => {}
        }
    }
    Verdict::Unknown
}

/// `None`: as far as there are bytes, yes.
fn begins(bytes: &[u8], pattern: &[u8]) -> Option<bool> {
    let count = bytes.len().min(pattern.len());
    if bytes[..count] != pattern[..count] {
        return Some(false);
    }
    (count == pattern.len()).then_some(true)
}

fn begins_git(bytes: &[u8]) -> Option<bool> {
    let digits = bytes.len().min(PKT_LENGTH_DIGITS);
    if !bytes[..digits].iter().all(u8::is_ascii_hexdigit) {
        return Some(false);
    }
    begins(&bytes[digits..], GIT_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_four_apart_at_the_last_needed_byte_and_not_before() {
        let cases: [(&[u8], Protocol); 4] = [
            (b"DELUGE-ID\n", Protocol::Question),
            (b"DELUGEFS", Protocol::Link),
            (b"\x13BitTorrent protocol", Protocol::BitTorrent),
            (b"0032git-upload-pack ", Protocol::Git),
        ];
        for (bytes, protocol) in cases {
            assert!(bytes.len() <= PREFIX_BYTES_MAX);
            for end in 0..bytes.len() {
                assert_eq!(
                    sniff(&bytes[..end]),
                    Verdict::Undecided,
                    "{protocol:?} {end}"
                );
            }
            assert_eq!(sniff(bytes), Verdict::Is(protocol));
            assert_eq!(sniff(&[bytes, b"more"].concat()), Verdict::Is(protocol));
        }
    }

    #[test]
    fn the_rest_is_unknown_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1"[..],
            b"\x16\x03\x01",
            b"SSH-2.0",
            b"\0",
            b"DELUGE!",
            b"\x13BitTorrenT",
            b"0032git-receive-pack ",
            b"00g",
            b"\xff\xff\xff\xff",
        ] {
            assert_eq!(sniff(bytes), Verdict::Unknown, "{bytes:?}");
        }
    }
}
