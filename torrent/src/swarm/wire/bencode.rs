//! The little of bencoding that extension messages need: a flat view of a dictionary, without recursion.

/// Containers inside containers: peers send two or three levels.
const DEPTH_MAX: usize = 16;

/// A value's form; containers keep their bytes, undecoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(i64),
    Text(&'a [u8]),
    /// A list or dictionary, whole.
    Container(&'a [u8]),
}

/// A dictionary's keys and values, in the order of the bytes.
pub(super) type Pairs<'a> = Vec<(&'a [u8], Value<'a>)>;

/// The pairs of the dictionary that `bytes` begin with, and how many bytes it takes. `None` when malformed.
pub(super) fn dictionary(bytes: &[u8]) -> Option<(Pairs<'_>, usize)> {
    let mut rest = bytes.strip_prefix(b"d")?;
    let mut pairs = Vec::new();
    while *rest.first()? != b'e' {
        let (Value::Text(key), used) = value(rest)? else {
            return None;
        };
        rest = &rest[used..];
        let (value, used) = value(rest)?;
        rest = &rest[used..];
        pairs.push((key, value));
    }
    Some((pairs, bytes.len() - rest.len() + 1))
}

/// The value that `bytes` begin with, and how many bytes it takes.
fn value(bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    match bytes.first()? {
        b'i' | b'0'..=b'9' => scalar(bytes),
        b'l' | b'd' => container(bytes).map(|used| (Value::Container(&bytes[..used]), used)),
        _ => None,
    }
}

fn scalar(bytes: &[u8]) -> Option<(Value<'_>, usize)> {
    if bytes.first() == Some(&b'i') {
        let end = bytes.iter().take(24).position(|byte| *byte == b'e')?;
        let digits = std::str::from_utf8(&bytes[1..end]).ok()?;
        return Some((Value::Integer(digits.parse().ok()?), end + 1));
    }
    let colon = bytes.iter().take(10).position(|byte| *byte == b':')?;
    let digits = std::str::from_utf8(&bytes[..colon]).ok()?;
    let length: usize = digits.parse().ok()?;
    let text = bytes[colon + 1..].get(..length)?;
    Some((Value::Text(text), colon + 1 + length))
}

fn container(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0);
    loop {
        match bytes.get(at)? {
            b'l' | b'd' => (at, depth) = (at + 1, depth + 1),
            b'e' => (at, depth) = (at + 1, depth - 1),
            _ => at += scalar(&bytes[at..])?.1,
        }
        match depth {
            0 => return Some(at),
            deep if deep > DEPTH_MAX => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dictionary_is_read_with_what_follows() {
        let bytes = b"d1:ad1:xi1ee1:bi-7e1:c3:abc1:dlleeetail";
        let (pairs, used) = dictionary(bytes).unwrap();
        assert_eq!(&bytes[used..], b"tail");
        assert_eq!(
            pairs,
            [
                (&b"a"[..], Value::Container(b"d1:xi1ee")),
                (b"b", Value::Integer(-7)),
                (b"c", Value::Text(b"abc")),
                (b"d", Value::Container(b"llee")),
            ]
        );
    }

    #[test]
    fn malformed_or_deep_is_refused() {
        let deep = [b"d1:a".as_slice(), &[b'l'; 5000]].concat();
        for bad in [
            &b""[..],
            b"d",
            b"de1"[..1].as_ref(),
            b"d1:ae",
            b"di1ei2ee",
            b"d1:ai99999999999999999999999e",
            b"d9999999:a",
            &deep,
        ] {
            assert_eq!(dictionary(bad), None, "{:?}", bad.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in "d[dlei0-9:a]{0,60}") {
            let _ = dictionary(bytes.as_bytes());
        }
    }
}
