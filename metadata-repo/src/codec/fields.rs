//! A dictionary's fields, taken one by one, so that what is left over is known to be unexpected.

use super::CodecError;
use crate::bencode::{Dictionary, Value};
use delugefs_core::ids::{EntryId, InfoHash, VolumeId};
use delugefs_core::time::Timestamp;
use std::time::Duration;

const NANOSECONDS: u32 = 1_000_000_000;

pub(super) struct Fields<'a>(Dictionary<'a>);

/// Identities as they are in a descriptor: raw bytes.
pub(super) trait FixedBytes: Sized {
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! fixed_bytes {
    ($($id:ident),*) => {
        $(impl FixedBytes for $id {
            fn read(bytes: &[u8]) -> Option<Self> {
                Self::from_slice(bytes)
            }
        })*
    };
}

fixed_bytes!(EntryId, InfoHash, VolumeId);

impl<'a> Fields<'a> {
    pub(super) fn new(value: Value<'a>, what: &'static str) -> Result<Self, CodecError> {
        match value {
            Value::Dictionary(dictionary) => Ok(Self(dictionary)),
            _ => Err(CodecError::Invalid(what)),
        }
    }

    pub(super) fn of(dictionary: Dictionary<'a>) -> Self {
        Self(dictionary)
    }

    /// Whether this program knows the format; asked before any other field, which may have changed.
    pub(super) fn check_format(&mut self, known: u32) -> Result<(), CodecError> {
        match self.integer("format")? {
            0 => Err(CodecError::Invalid("format")),
            found if found > known => Err(CodecError::Newer { found, known }),
            _ => Ok(()),
        }
    }

    pub(super) fn dictionary(&mut self, key: &'static str) -> Result<Self, CodecError> {
        self.optional_dictionary(key)?
            .map(Self)
            .ok_or(CodecError::Missing(key))
    }

    pub(super) fn optional_dictionary(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Dictionary<'a>>, CodecError> {
        match self.0.take(key) {
            None => Ok(None),
            Some(Value::Dictionary(dictionary)) => Ok(Some(dictionary)),
            Some(_) => Err(CodecError::Invalid(key)),
        }
    }

    pub(super) fn optional_list(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Vec<Value<'a>>>, CodecError> {
        match self.0.take(key) {
            None => Ok(None),
            Some(Value::List(items)) => Ok(Some(items)),
            Some(_) => Err(CodecError::Invalid(key)),
        }
    }

    pub(super) fn optional_bytes(
        &mut self,
        key: &'static str,
        most: usize,
    ) -> Result<Option<&'a [u8]>, CodecError> {
        match self.0.take(key) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) if bytes.len() <= most => Ok(Some(bytes)),
            Some(_) => Err(CodecError::Invalid(key)),
        }
    }

    pub(super) fn bytes(&mut self, key: &'static str, most: usize) -> Result<&'a [u8], CodecError> {
        self.optional_bytes(key, most)?
            .ok_or(CodecError::Missing(key))
    }

    pub(super) fn text(&mut self, key: &'static str, most: usize) -> Result<String, CodecError> {
        let text = std::str::from_utf8(self.bytes(key, most)?);
        text.map(str::to_owned)
            .map_err(|_| CodecError::Invalid(key))
    }

    pub(super) fn id<T: FixedBytes>(&mut self, key: &'static str) -> Result<T, CodecError> {
        T::read(self.bytes(key, usize::MAX)?).ok_or(CodecError::Invalid(key))
    }

    pub(super) fn optional_integer<T: TryFrom<i128>>(
        &mut self,
        key: &'static str,
    ) -> Result<Option<T>, CodecError> {
        match self.0.take(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => match T::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(CodecError::Invalid(key)),
            },
            Some(_) => Err(CodecError::Invalid(key)),
        }
    }

    pub(super) fn integer<T: TryFrom<i128>>(&mut self, key: &'static str) -> Result<T, CodecError> {
        self.optional_integer(key)?.ok_or(CodecError::Missing(key))
    }

    /// At least 1.
    pub(super) fn length(&mut self, key: &'static str) -> Result<u64, CodecError> {
        match self.integer(key)? {
            0 => Err(CodecError::Invalid(key)),
            length => Ok(length),
        }
    }

    fn seconds<T: TryFrom<i128>>(&mut self, key: &'static str) -> Result<(T, u32), CodecError> {
        let items = self.optional_list(key)?.ok_or(CodecError::Missing(key))?;
        let [Value::Integer(seconds), Value::Integer(nanoseconds)] = items[..] else {
            return Err(CodecError::Invalid(key));
        };
        let nanoseconds = u32::try_from(nanoseconds).ok().filter(|n| *n < NANOSECONDS);
        match (T::try_from(seconds), nanoseconds) {
            (Ok(seconds), Some(nanoseconds)) => Ok((seconds, nanoseconds)),
            _ => Err(CodecError::Invalid(key)),
        }
    }

    pub(super) fn time(&mut self, key: &'static str) -> Result<Timestamp, CodecError> {
        let (seconds, nanoseconds) = self.seconds(key)?;
        Ok(Timestamp {
            seconds,
            nanoseconds,
        })
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Result<Duration, CodecError> {
        let (seconds, nanoseconds) = self.seconds(key)?;
        Ok(Duration::new(seconds, nanoseconds))
    }

    /// Nothing is left that this format does not know.
    pub(super) fn finish(self) -> Result<(), CodecError> {
        match self.0.left_over() {
            None => Ok(()),
            Some(key) => {
                let key = String::from_utf8_lossy(&key[..key.len().min(40)]);
                Err(CodecError::Unexpected(key.into_owned()))
            }
        }
    }
}
