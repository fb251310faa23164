//! Canonical bencode (BEP 3), strictly: what is read is exactly what would be written.
//!
//! Keys sorted and unique, integers without leading zeros, nothing after the end. Foreign bytes meet limits
//! on size, depth and number of items before they cost memory.

use std::collections::BTreeMap;

/// Nesting of lists and dictionaries: a descriptor needs four levels.
const DEPTH_MAX: usize = 16;

/// Items of all lists and dictionaries of one value: a descriptor with the most attributes has a few thousand.
const ITEMS_MAX: usize = 262_144;

/// Digits of an integer: `u64::MAX` has twenty.
const DIGITS_MAX: usize = 20;

/// Where, in bytes from the start, the input is not canonical bencode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not canonical bencode at byte {offset}: {problem}")]
pub struct BencodeError {
    /// Bytes from the start of the input.
    pub offset: usize,
    /// What is wrong there.
    pub problem: &'static str,
}

/// A value, borrowing from its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Integer(i128),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Dictionary(Dictionary<'a>),
}

/// A dictionary and the bytes that it was read from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Dictionary<'a> {
    items: BTreeMap<&'a [u8], Value<'a>>,
    raw: &'a [u8],
}

impl<'a> Dictionary<'a> {
    /// The input from `d` to `e`.
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.items.get(key.as_bytes())
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value<'a>> {
        self.items.remove(key.as_bytes())
    }

    /// A key that nobody has taken.
    pub(crate) fn left_over(&self) -> Option<&'a [u8]> {
        self.items.keys().next().copied()
    }

    pub(crate) fn into_items(self) -> BTreeMap<&'a [u8], Value<'a>> {
        self.items
    }
}

/// Reads one value that fills the input.
pub(crate) fn parse(input: &[u8]) -> Result<Value<'_>, BencodeError> {
    let mut parser = Parser {
        input,
        offset: 0,
        items: 0,
    };
    let value = parser.value(DEPTH_MAX)?;
    if parser.offset == input.len() {
        Ok(value)
    } else {
        Err(parser.problem("bytes after the end"))
    }
}

struct Parser<'a> {
    input: &'a [u8],
    offset: usize,
    items: usize,
}

impl<'a> Parser<'a> {
    fn problem(&self, problem: &'static str) -> BencodeError {
        BencodeError {
            offset: self.offset,
            problem,
        }
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        let byte = self.input.get(self.offset).copied();
        byte.ok_or_else(|| self.problem("ends too early"))
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, BencodeError> {
        match self.peek()? {
            b'i' => self.integer().map(Value::Integer),
            b'0'..=b'9' => self.bytes().map(Value::Bytes),
            b'l' if depth > 0 => self.list(depth - 1).map(Value::List),
            b'd' if depth > 0 => self.dictionary(depth - 1).map(Value::Dictionary),
            b'l' | b'd' => Err(self.problem("nested too deeply")),
            _ => Err(self.problem("no value starts so")),
        }
    }

    fn count_item(&mut self) -> Result<(), BencodeError> {
        self.items += 1;
        if self.items > ITEMS_MAX {
            return Err(self.problem("too many items"));
        }
        Ok(())
    }

    /// Decimal digits up to and including `end`.
    fn digits(&mut self, end: u8) -> Result<i128, BencodeError> {
        let start = self.offset;
        let mut number: i128 = 0;
        loop {
            let byte = self.peek()?;
            let length = self.offset - start;
            match byte {
                b'0'..=b'9' if length == DIGITS_MAX => return Err(self.problem("number too long")),
                b'0'..=b'9' if length > 0 && self.input[start] == b'0' => {
                    return Err(self.problem("leading zero"));
                }
                b'0'..=b'9' => number = number * 10 + i128::from(byte - b'0'),
                _ if byte == end && length > 0 => break,
                _ => return Err(self.problem("not a digit")),
            }
            self.offset += 1;
        }
        self.offset += 1;
        Ok(number)
    }

    fn integer(&mut self) -> Result<i128, BencodeError> {
        self.offset += 1;
        if self.peek()? != b'-' {
            return self.digits(b'e');
        }
        self.offset += 1;
        match self.digits(b'e')? {
            0 => Err(self.problem("minus zero")),
            number => Ok(-number),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], BencodeError> {
        let length = self.digits(b':')?;
        let rest = &self.input[self.offset..];
        let bytes = usize::try_from(length).ok().and_then(|n| rest.get(..n));
        let bytes = bytes.ok_or_else(|| self.problem("string ends too early"))?;
        self.offset += bytes.len();
        Ok(bytes)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Value<'a>>, BencodeError> {
        self.offset += 1;
        let mut items = Vec::new();
        while self.peek()? != b'e' {
            self.count_item()?;
            items.push(self.value(depth)?);
        }
        self.offset += 1;
        Ok(items)
    }

    fn dictionary(&mut self, depth: usize) -> Result<Dictionary<'a>, BencodeError> {
        let start = self.offset;
        self.offset += 1;
        let mut items: BTreeMap<&'a [u8], Value<'a>> = BTreeMap::new();
        while self.peek()? != b'e' {
            self.count_item()?;
            let key = self.bytes()?;
            if items.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(self.problem("keys not sorted or not unique"));
            }
            items.insert(key, self.value(depth)?);
        }
        self.offset += 1;
        let raw = &self.input[start..self.offset];
        Ok(Dictionary { items, raw })
    }
}

/// A value to be written; dictionaries sort themselves.
#[derive(Debug, Clone)]
pub(crate) enum Build<'a> {
    Integer(i128),
    Bytes(&'a [u8]),
    List(Vec<Build<'a>>),
    Dictionary(BTreeMap<&'a [u8], Build<'a>>),
    /// Bencode already.
    Raw(&'a [u8]),
}

impl Build<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => out.extend_from_slice(format!("i{number}e").as_bytes()),
            Self::Bytes(bytes) => write_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                for item in items {
                    item.write(out);
                }
                out.push(b'e');
            }
            Self::Dictionary(items) => {
                out.push(b'd');
                for (key, value) in items {
                    write_bytes(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn rebuild<'a>(value: &Value<'a>) -> Build<'a> {
        match value {
            Value::Integer(number) => Build::Integer(*number),
            Value::Bytes(bytes) => Build::Bytes(bytes),
            Value::List(items) => Build::List(items.iter().map(rebuild).collect()),
            Value::Dictionary(dictionary) => Build::Dictionary(
                dictionary
                    .items
                    .iter()
                    .map(|(k, v)| (*k, rebuild(v)))
                    .collect(),
            ),
        }
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in [
            &b""[..],
            b"i",
            b"ie",
            b"i-e",
            b"i-0e",
            b"i00e",
            b"i01e",
            b"i1",
            b"i+1e",
            b"i1x",
            b"i111111111111111111111e",
            b"1",
            b"2:a",
            b"01:a",
            b"-1:a",
            b":",
            b"l",
            b"li1e",
            b"d",
            b"d1:ae",
            b"d1:a",
            b"d1:bi1e1:ai1ee",
            b"d1:ai1e1:ai2ee",
            b"di1ei1ee",
            b"x",
            b"i1ei2e",
            b"99999999999999999999:a",
            b"llllllllllllllllleeeeeeeeeeeeeeeee",
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn nesting_has_its_limit() {
        let nested = |depth| ["l".repeat(depth), "e".repeat(depth)].concat();
        assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(parse(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(parse("l".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn keeps_the_raw_bytes_of_a_dictionary() {
        let input = b"d1:ad1:bli-7e0:e1:ci0eee";
        let Value::Dictionary(mut outer) = parse(input).unwrap() else {
            panic!("not a dictionary");
        };
        assert_eq!(outer.raw(), input);
        let Some(Value::Dictionary(inner)) = outer.take("a") else {
            panic!("no inner dictionary");
        };
        assert_eq!(inner.raw(), b"d1:bli-7e0:e1:ci0ee");
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_written_again(input in "[ilde0-9:a-]{0,24}") {
            if let Ok(value) = parse(input.as_bytes()) {
                let mut out = Vec::new();
                rebuild(&value).write(&mut out);
                prop_assert_eq!(out, input.as_bytes());
            }
        }
    }
}
