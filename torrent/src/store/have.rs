//! The file `<info-hash>.have` beside an incomplete content: all that is needed to go on fetching it.
//!
//! ```text
//! "delugefs have 1\n"   what it is, and the format's version
//! u32, big-endian       length of `info` in bytes
//! info                  the bencoded dictionary, whose SHA-1 is the file's name
//! bitmap                one bit for each piece, as in BEP 3
//! ```
//!
//! It is written whole, synced, then renamed into place; afterwards only bits change, in place. A bit goes
//! from 0 to 1 after its piece was synced, so that a torn write of the bitmap says nothing false.

use super::bitmap::{Bitmap, bitmap_len, is_bitmap};
use crate::metainfo::{INFO_BYTES_MAX, Info, PIECES_MAX};

/// Ends the name of the file.
pub(crate) const SUFFIX: &str = ".have";

const MAGIC: &[u8] = b"delugefs have ";
const VERSION: u32 = 1;
const VERSION_DIGITS_MAX: usize = 9;
const HEADER: &[u8] = b"delugefs have 1\n";

/// Most bytes in such a file.
pub(crate) const HAVE_BYTES_MAX: usize = 64 + INFO_BYTES_MAX + PIECES_MAX as usize / 8;

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Have {
    pub(crate) info: Info,
    pub(crate) bitmap: Vec<u8>,
}

/// Why a file is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HaveError {
    /// Another version than ours.
    Version(u32),
    /// Cut, or not such a file.
    Damaged,
}

impl Have {
    /// No piece is here.
    pub(crate) fn empty(info: &Info) -> Self {
        Self {
            bitmap: vec![0; bitmap_len(info.piece_count())],
            info: info.clone(),
        }
    }

    /// Every piece is here.
    pub(crate) fn full(info: &Info) -> Self {
        let bitmap = Bitmap::full(info.piece_count()).to_bytes();
        let info = info.clone();
        Self { info, bitmap }
    }

    /// A piece is not here.
    pub(crate) fn clear(&mut self, piece: u32) {
        self.bitmap[piece as usize / 8] &= !(0x80 >> (piece % 8));
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HaveError> {
        let rest = after_header(bytes)?;
        let (length, rest) = rest.split_first_chunk().ok_or(HaveError::Damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (info, bitmap) = rest.split_at_checked(length).ok_or(HaveError::Damaged)?;
        let info = Info::parse(info).map_err(|_| HaveError::Damaged)?;
        if !is_bitmap(bitmap, info.piece_count()) {
            return Err(HaveError::Damaged);
        }
        let bitmap = bitmap.to_vec();
        Ok(Self { info, bitmap })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let info = self.info.encode();
        let length = (info.len() as u32).to_be_bytes();
        [HEADER, &length, &info, &self.bitmap].concat()
    }

    /// Where in the file the bits begin.
    pub(crate) fn bitmap_offset(info: &Info) -> u64 {
        (HEADER.len() + size_of::<u32>() + info.encode().len()) as u64
    }
}

fn after_header(bytes: &[u8]) -> Result<&[u8], HaveError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(HaveError::Damaged)?;
    let end = rest.iter().take(VERSION_DIGITS_MAX + 1);
    let end = end.take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at(end);
    let rest = rest.strip_prefix(b"\n").ok_or(HaveError::Damaged)?;
    let text = std::str::from_utf8(digits).map_err(|_| HaveError::Damaged)?;
    match text.parse() {
        Ok(VERSION) if digits == b"1" => Ok(rest),
        Ok(version) if version != VERSION => Err(HaveError::Version(version)),
        _ => Err(HaveError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fuzzing;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    fn sample() -> Have {
        let info = Info::new(9 * 65_536 + 1, vec![[3; 20]; 10], [4; 32]).unwrap();
        let bitmap = vec![0b1010_0000, 0b0100_0000];
        Have { info, bitmap }
    }

    #[test]
    fn golden() {
        let bytes = sample().encode();
        let info = sample().info.encode();
        let mut golden = b"delugefs have 1\n\0\0\x01\x58".to_vec();
        golden.extend_from_slice(&info);
        golden.extend_from_slice(&[0xa0, 0x40]);
        assert_eq!(
            bytes.escape_ascii().to_string(),
            golden.escape_ascii().to_string()
        );
        let offset = Have::bitmap_offset(&sample().info) as usize;
        assert_eq!(bytes[offset..], [0xa0, 0x40]);
        assert_eq!(Have::parse(&bytes).unwrap().bitmap, sample().bitmap);
    }

    #[test]
    fn refuses_other_versions_and_damage() {
        let bytes = sample().encode();
        let error = |bytes: &[u8]| Have::parse(bytes).unwrap_err();
        let newer = [b"delugefs have 2\n", &bytes[16..]].concat();
        assert_eq!(error(&newer), HaveError::Version(2));
        let mut spare_bit = bytes.clone();
        *spare_bit.last_mut().unwrap() |= 1;
        assert_eq!(error(&spare_bit), HaveError::Damaged);
        assert_eq!(error(&[&bytes[..], b"x"].concat()), HaveError::Damaged);
        for end in 0..bytes.len() {
            assert_eq!(error(&bytes[..end]), HaveError::Damaged, "{end}");
        }
    }

    #[test]
    fn random_mutations_never_panic() {
        let mut random = StdRng::seed_from_u64(2);
        let good = sample().encode();
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes[at] = random.random(),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, random.random()),
                }
            }
            fuzzing::have(&bytes);
        }
    }
}
