//! Deltas between two objects (gitformat-pack, "Deltified representation"): copies from the base, and inserts.

/// Bytes that a copy has at least, and that the base is indexed by: an id in a tree has 20.
const BLOCK: usize = 16;

/// Most bytes of one copy: what every reader takes.
const COPY_MAX: usize = 0xffff;

/// Most bytes of one insert.
const INSERT_MAX: usize = 0x7f;

/// Why a delta cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeltaError {
    /// It ends in the middle.
    #[error("the delta is cut off")]
    Cut,
    /// It is for a base of another length.
    #[error("the delta is for another base")]
    OtherBase,
    /// It copies what the base does not have.
    #[error("the delta copies from beyond its base")]
    Beyond,
    /// The result is not as long as announced, or longer than allowed.
    #[error("the delta's result is not as long as it should be")]
    Length,
    /// An instruction that is reserved.
    #[error("the delta has an unknown instruction")]
    Unknown,
}

/// The delta that makes `target` from `base`, unless it would take `limit` bytes or more.
pub(crate) fn encode(base: &[u8], target: &[u8], limit: usize) -> Option<Vec<u8>> {
    let index = Index::new(base);
    let mut out = Vec::with_capacity(128);
    put_length(base.len(), &mut out);
    put_length(target.len(), &mut out);
    let (mut at, mut pending) = (0, 0);
    while let Some(block) = target.get(at..at + BLOCK) {
        let Some(found) = index.find(block) else {
            at += 1;
            if out.len() + (at - pending) >= limit {
                return None;
            }
            continue;
        };
        let back = common_suffix(&base[..found], &target[pending..at]);
        let (from, start) = (found - back, at - back);
        let length = common_prefix(&base[from..], &target[start..]);
        put_insert(&target[pending..start], &mut out);
        put_copy(from, length, &mut out);
        at = start + length;
        pending = at;
    }
    put_insert(&target[pending..], &mut out);
    (out.len() < limit).then_some(out)
}

/// What `delta` makes of `base`: at most `limit` bytes.
pub(crate) fn apply(base: &[u8], delta: &[u8], limit: usize) -> Result<Vec<u8>, DeltaError> {
    let mut rest = delta;
    if take_length(&mut rest)? != base.len() {
        return Err(DeltaError::OtherBase);
    }
    let length = take_length(&mut rest)?;
    if length > limit {
        return Err(DeltaError::Length);
    }
    let mut out = Vec::with_capacity(length);
    while let Some((code, after)) = rest.split_first() {
        rest = after;
        let piece = match *code {
            0 => return Err(DeltaError::Unknown),
            code if code & 0x80 != 0 => {
                let (from, count) = take_copy(code, &mut rest)?;
                let end = from.checked_add(count).ok_or(DeltaError::Beyond)?;
                base.get(from..end).ok_or(DeltaError::Beyond)?
            }
            count => {
                let split = rest.split_at_checked(usize::from(count));
                let (piece, after) = split.ok_or(DeltaError::Cut)?;
                rest = after;
                piece
            }
        };
        if out.len() + piece.len() > length {
            return Err(DeltaError::Length);
        }
        out.extend_from_slice(piece);
    }
    if out.len() == length {
        Ok(out)
    } else {
        Err(DeltaError::Length)
    }
}

/// How many bytes a delta says that it makes.
pub(crate) fn length(delta: &[u8]) -> Result<usize, DeltaError> {
    let mut rest = delta;
    take_length(&mut rest)?;
    take_length(&mut rest)
}

/// Where each block of a base is; of several that fall together, the first.
struct Index<'b> {
    base: &'b [u8],
    /// One past each block's place, 0 for none.
    places: Vec<u32>,
    shift: u32,
}

impl<'b> Index<'b> {
    fn new(base: &'b [u8]) -> Self {
        let slots = (base.len() / BLOCK * 4).next_power_of_two().max(64);
        let shift = u64::BITS - slots.trailing_zeros();
        let mut places = vec![0; slots];
        for (number, block) in base.chunks_exact(BLOCK).enumerate() {
            let place = &mut places[slot(block, shift)];
            // A base beyond 4 GiB is not an object here; its far blocks are merely not found.
            if let (0, Ok(at)) = (*place, u32::try_from(number * BLOCK + 1)) {
                *place = at;
            }
        }
        Self {
            base,
            places,
            shift,
        }
    }

    fn find(&self, block: &[u8]) -> Option<usize> {
        let place = self.places[slot(block, self.shift)].checked_sub(1)? as usize;
        (self.base[place..place + BLOCK] == *block).then_some(place)
    }
}

fn slot(block: &[u8], shift: u32) -> usize {
    let half = |bytes: &[u8]| {
        let bytes: [u8; 8] = bytes.try_into().unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let (first, second) = (half(&block[..8]), half(&block[8..]));
    let mixed = first.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ second.rotate_left(29);
    (mixed.wrapping_mul(0xd6e8_feb8_6659_fd93) >> shift) as usize
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let pairs = a.iter().rev().zip(b.iter().rev());
    pairs.take_while(|(a, b)| a == b).count()
}

/// Seven bits in each byte, the lowest first.
fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length > 0x7f {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn take_length(rest: &mut &[u8]) -> Result<usize, DeltaError> {
    let mut length = 0;
    for shift in (0..usize::BITS - 7).step_by(7) {
        let byte = take(rest)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(DeltaError::Length)
}

fn put_insert(bytes: &[u8], out: &mut Vec<u8>) {
    for some in bytes.chunks(INSERT_MAX) {
        out.push(some.len() as u8);
        out.extend_from_slice(some);
    }
}

fn put_copy(mut from: usize, mut length: usize, out: &mut Vec<u8>) {
    while length > 0 {
        let some = length.min(COPY_MAX);
        let code = out.len();
        out.push(0x80);
        for (bit, byte) in (from as u32).to_le_bytes().into_iter().enumerate() {
            put_part(byte, 1 << bit, code, out);
        }
        for (bit, byte) in (some as u16).to_le_bytes().into_iter().enumerate() {
            put_part(byte, 0x10 << bit, code, out);
        }
        from += some;
        length -= some;
    }
}

/// A byte that is zero is left out, which its bit in the instruction says.
fn put_part(byte: u8, bit: u8, code: usize, out: &mut Vec<u8>) {
    if byte != 0 {
        out[code] |= bit;
        out.push(byte);
    }
}

/// From where and how much.
fn take_copy(code: u8, rest: &mut &[u8]) -> Result<(usize, usize), DeltaError> {
    let mut value = [0; 7];
    for (bit, byte) in value.iter_mut().enumerate() {
        if code & 1 << bit != 0 {
            *byte = take(rest)?;
        }
    }
    let number = |bytes: &[u8]| {
        let high_first = bytes.iter().rev();
        high_first.fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (from, length) = (number(&value[..4]), number(&value[4..]));
    Ok((from, if length == 0 { 0x1_0000 } else { length }))
}

fn take(rest: &mut &[u8]) -> Result<u8, DeltaError> {
    let (byte, after) = rest.split_first().ok_or(DeltaError::Cut)?;
    *rest = after;
    Ok(*byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// A tree as Git writes it, some ids of which are of another version.
    fn tree(changed: &[usize]) -> Vec<u8> {
        let mut data = Vec::new();
        for number in 0..100 {
            let version = u8::from(changed.contains(&number));
            data.extend(format!("100644 file {number}.torrent\0").bytes());
            data.extend(&blake3::hash(&[number as u8, version]).as_bytes()[..20]);
        }
        data
    }

    #[test]
    fn golden() {
        let base = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let target = b"0123456789abcdefXYZghijklmnopqrstuvwxyz";
        let delta = encode(base, target, 1000).unwrap();
        // 36 bytes become 39: 16 from the start, three new ones, 20 from 16 on
        let expected = b"\x24\x27\x90\x10\x03XYZ\x91\x10\x14";
        assert_eq!(delta, expected);
        assert_eq!(apply(base, &delta, 39).unwrap(), target);
    }

    #[test]
    fn a_changed_id_costs_little_more_than_itself() {
        let (old, new) = (tree(&[]), tree(&[40]));
        let delta = encode(&old, &new, usize::MAX).unwrap();
        assert!(delta.len() <= 36, "{}", delta.len());
        let three = encode(&old, &tree(&[0, 50, 99]), usize::MAX).unwrap();
        assert!(three.len() <= 90, "{}", three.len());
    }

    #[test]
    fn what_does_not_pay_is_given_up() {
        let (old, other) = (tree(&[]), blake3::hash(b"x").as_bytes().repeat(40));
        assert_eq!(encode(&old, &other[..700], 100), None);
    }

    #[test]
    fn long_copies_are_split() {
        let base: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let mut target = base.clone();
        target.splice(400_000..400_000, *b"in between");
        let delta = encode(&base, &target, usize::MAX).unwrap();
        assert!(delta.len() < 200, "{}", delta.len());
        assert_eq!(apply(&base, &delta, target.len()).unwrap(), target);
        assert_eq!(
            apply(&base, &delta, target.len() - 1),
            Err(DeltaError::Length)
        );
    }

    #[test]
    fn wrong_deltas_are_refused() {
        for (delta, error) in [
            (&b""[..], DeltaError::Cut),
            (b"\x03\x01\x01a", DeltaError::OtherBase),
            (b"\x04\x01\x00", DeltaError::Unknown),
            (b"\x04\x02\x02a", DeltaError::Cut),
            (b"\x04\x05\x90\x05", DeltaError::Beyond),
            (b"\x04\x01\x90\x04", DeltaError::Length),
            (b"\x04\x05\x90\x04", DeltaError::Length),
            (b"\x04\x01\x91\x04", DeltaError::Cut),
        ] {
            assert_eq!(apply(b"base", delta, 100), Err(error), "{delta:?}");
        }
    }

    proptest! {
        #[test]
        fn applied_it_gives_the_target(
            base in prop::collection::vec(0..3u8, 0..600),
            edits in prop::collection::vec((any::<usize>(), any::<usize>(), any::<Vec<u8>>()), 0..6),
        ) {
            let mut target = base.clone();
            for (from, length, with) in edits {
                let from = from % (target.len() + 1);
                let to = from + length % (target.len() - from + 1);
                target.splice(from..to, with);
            }
            let delta = encode(&base, &target, usize::MAX).unwrap();
            prop_assert_eq!(apply(&base, &delta, target.len()), Ok(target.clone()));
            prop_assert!(encode(&base, &target, delta.len()).is_none());
        }
    }
}
