//! Names of directory entries: any bytes that POSIX allows.

use std::fmt;

/// Most bytes in a name (`NAME_MAX` of Linux).
pub const NAME_BYTES_MAX: usize = 255;

const SHARED: &[u8] = b"/shared";

/// One component of a path: 1 to [`NAME_BYTES_MAX`] bytes, without `/` and NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Why some bytes are not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// Empty, `.`, `..`, or with a `/` or NUL inside.
    #[error("a name is not empty, not . or .., and has no / or NUL inside")]
    Invalid,
}

impl Name {
    /// Checks bytes that come from outside.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0)) {
            return Err(NameError::Invalid);
        }
        Ok(Self(bytes.into()))
    }

    /// The name in the root of the directory of files with several names ([`crate::links`]): one that no user can give.
    pub fn shared() -> Self {
        Self(SHARED.into())
    }

    /// Whether this is that name.
    pub fn is_shared(&self) -> bool {
        *self.0 == *SHARED
    }

    /// Checks bytes that a program of ours has written.
    pub fn decode(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            SHARED => Ok(Self::shared()),
            bytes => Self::parse(bytes),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_posix_takes() {
        for good in [&b"a"[..], b"...", b"\xff\xfe", b".git", &[b'x'; 255]] {
            assert!(Name::parse(good).is_ok(), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
            assert_eq!(Name::parse(bad), Err(NameError::Invalid), "{bad:?}");
        }
        assert_eq!(Name::parse(&[b'x'; 256]), Err(NameError::TooLong));
    }

    #[test]
    fn only_we_give_the_name_of_what_is_shared() {
        let name = Name::shared();
        assert_eq!(Name::parse(name.as_bytes()), Err(NameError::Invalid));
        assert_eq!(Name::decode(name.as_bytes()), Ok(name));
        assert_eq!(Name::decode(b"/other"), Err(NameError::Invalid));
    }
}
