//! Identities: fixed-size byte strings, one type each, shown in lower-case hex.

use std::fmt;
use std::str::FromStr;

/// A text that is not the lower- or upper-case hex form of an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hex digits, found {found:?}")]
pub struct ParseIdError {
    /// How many hex digits the identity has.
    pub expected: usize,
    /// The text that was given.
    pub found: String,
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// Wraps raw bytes.
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// Wraps a slice, if it has the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                decode_hex(text).map(Self).ok_or_else(|| ParseIdError {
                    expected: 2 * $bytes,
                    found: text.chars().take(80).collect(),
                })
            }
        }
    };
}

fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

identity!(
    /// `BitTorrent` v1 info-hash: SHA-1 of a content's `info` dictionary (BEP 3). Names a content.
    InfoHash,
    20
);
identity!(
    /// A file, directory or node for its whole life, through renames, the same on every node.
    EntryId,
    16
);
identity!(
    /// A volume: a UUID minted by `--create`.
    VolumeId,
    16
);
identity!(
    /// A node, which is a disk: random, kept for the disk's life.
    NodeId,
    16
);
identity!(
    /// One unbroken life of a node's state: the first 16 bytes of BLAKE3 of its ed25519 public key.
    /// A disk that was copied or restored continues as a new incarnation.
    IncarnationId,
    16
);
identity!(
    /// An incarnation's ed25519 public key (RFC 8032).
    PublicKey,
    32
);
identity!(
    /// A Git commit (SHA-1).
    CommitId,
    20
);
identity!(
    /// A Git tree (SHA-1).
    TreeId,
    20
);
identity!(
    /// A Git blob (SHA-1).
    BlobId,
    20
);

impl EntryId {
    /// The root directory of every volume.
    pub const ROOT: Self = Self::new([0; 16]);

    /// The directory of files with several names ([`crate::links`]).
    pub const SHARED: Self = Self::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

impl PublicKey {
    /// The incarnation that has this key.
    pub fn incarnation(&self) -> IncarnationId {
        IncarnationId::of_key(self.as_bytes())
    }
}

impl IncarnationId {
    /// The incarnation that an ed25519 public key is: whoever has the key can be told by the id alone.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        let hash = blake3::hash(public_key);
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&hash.as_bytes()[..Self::LEN]);
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_the_rest() {
        let id = InfoHash::new([0xa7; 20]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "a7", "zz", &"a7".repeat(21), &"é".repeat(20)] {
            assert!(bad.parse::<InfoHash>().is_err(), "{bad:?}");
        }
    }
}
