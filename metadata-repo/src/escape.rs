//! Names of the volume as names in Git trees, and back.
//!
//! A file `a.mkv` is `a.mkv.torrent`, a link or special node `a.node`, a directory `a`. The bytes of
//! the name are kept as they are, apart from those that would make Git, a checkout or this very scheme
//! stumble: these become `%XX` (upper-case hex). What is longer than [`ESCAPED_BYTES_MAX`] is cut and ends in
//! `%~` and a hash; the whole name is then in the blob. Names of our own (`%dir`, `%volume`, `%-0a`) have a
//! `%` that no escape begins with.

use delugefs_core::entry::Kind;
use delugefs_core::name::Name;

/// Bytes of a name in a Git tree, with its suffix: leaves a checkout room for a suffix of its own below 255.
pub const ESCAPED_BYTES_MAX: usize = 240;

/// The blob in each directory's tree that describes the directory itself.
pub(crate) const DIRECTORY_BLOB: &[u8] = b"%dir";

/// The blob in the root's tree with the volume's settings.
pub(crate) const VOLUME_BLOB: &[u8] = b"%volume";

/// Precedes the bucket's number in the name of a subtree that only spreads a large directory.
pub(crate) const BUCKET_PREFIX: &[u8] = b"%-";

const CUT: &[u8] = b"%~";

/// Bytes of the hash of a cut name, shown as twice as many hex digits.
const CUT_HASH_BYTES: usize = 16;

/// What the name in the tree stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// A regular file: `NAME.torrent`.
    File,
    /// A symbolic or hard link or special node: `NAME.node`.
    Node,
    /// A directory: a tree named `NAME`.
    Directory,
}

impl Shape {
    /// How an entry of this kind is named.
    pub fn of(kind: &Kind) -> Self {
        match kind {
            Kind::File(_) => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink(_)
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharacterDevice(_)
            | Kind::BlockDevice(_)
            | Kind::Link(_) => Self::Node,
        }
    }

    fn suffix(self) -> &'static [u8] {
        match self {
            Self::File => b".torrent",
            Self::Node => b".node",
            Self::Directory => b"",
        }
    }
}

/// The name in a Git tree of an entry called `name`.
pub fn escape(name: &Name, shape: Shape) -> Vec<u8> {
    let mut escaped = escape_whole(name.as_bytes(), shape);
    let room = ESCAPED_BYTES_MAX - shape.suffix().len();
    if escaped.len() > room {
        cut(&mut escaped, room, name);
    }
    escaped.extend_from_slice(shape.suffix());
    escaped
}

/// Whether the name in the tree is only the beginning of `name`, which the blob must hold whole.
pub fn is_cut(name: &Name, shape: Shape) -> bool {
    escape_whole(name.as_bytes(), shape).len() + shape.suffix().len() > ESCAPED_BYTES_MAX
}

/// What the tree's name says about the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unescaped {
    Whole(Name),
    /// The blob has the name; [`escape`] of it must give the tree's name again.
    Cut,
}

/// Reads a blob's name in a tree; `None` when [`escape`] never makes it.
pub(crate) fn unescape_blob(escaped: &[u8]) -> Option<(Shape, Unescaped)> {
    [Shape::File, Shape::Node]
        .into_iter()
        .find(|shape| escaped.ends_with(shape.suffix()))
        .and_then(|shape| Some((shape, unescape(escaped, shape)?)))
}

/// Reads a subtree's name; `None` when [`escape`] never makes it.
pub(crate) fn unescape_directory(escaped: &[u8]) -> Option<Unescaped> {
    unescape(escaped, Shape::Directory)
}

fn unescape(escaped: &[u8], shape: Shape) -> Option<Unescaped> {
    let stem = escaped.strip_suffix(shape.suffix()).unwrap_or(escaped);
    if stem.windows(CUT.len()).any(|window| window == CUT) {
        return Some(Unescaped::Cut);
    }
    let name = Name::decode(&percent_decode(stem)?).ok()?;
    (escape(&name, shape) == escaped).then_some(Unescaped::Whole(name))
}

fn percent_decode(mut stem: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(stem.len());
    while let [first, rest @ ..] = stem {
        stem = rest;
        if *first != b'%' {
            name.push(*first);
            continue;
        }
        let (digits, rest) = stem.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        name.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        stem = rest;
    }
    Some(name)
}

fn escape_whole(name: &[u8], shape: Shape) -> Vec<u8> {
    let first = is_taken_for_git(name);
    let dot = position_of_suffix(name, shape);
    let trailing = shape == Shape::Directory && matches!(name.last(), Some(b'.' | b' '));
    let mut escaped = Vec::with_capacity(name.len() + 16);
    for (index, byte) in name.iter().enumerate() {
        let refused = matches!(byte, b'%' | b'/' | b'\\' | 0..=0x1f | 0x7f)
            || (first && index == 0)
            || dot == Some(index)
            || (trailing && index + 1 == name.len());
        if refused {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            escaped.push(*byte);
        }
    }
    escaped
}

/// A directory must not look like a file's or node's blob.
fn position_of_suffix(name: &[u8], shape: Shape) -> Option<usize> {
    if shape != Shape::Directory {
        return None;
    }
    [Shape::File, Shape::Node]
        .into_iter()
        .find(|shape| name.ends_with(shape.suffix()))
        .map(|shape| name.len() - shape.suffix().len())
}

/// Names that Git refuses or reads specially, under any of their aliases: `.git` and `.gitmodules` (and the
/// like), in any case, with code points that HFS+ ignores, with what NTFS cuts off, or as NTFS short names
/// (`git~1`, `GI7EBA~1`). Broader than need be: an escape too many costs nothing.
fn is_taken_for_git(name: &[u8]) -> bool {
    let visible = without_ignorable(name);
    let begins = |prefix: &[u8]| {
        visible.len() >= prefix.len() && visible[..prefix.len()].eq_ignore_ascii_case(prefix)
    };
    // Git also takes `~1234567`, `g~123456` and `m~123456` for the short name of one of its files.
    let short_name = visible.contains(&b'~') && [b"~", b"g", b"m"].into_iter().any(|it| begins(it));
    short_name || begins(b".git") || begins(b".mailmap")
}

/// Drops what HFS+ ignores in names: U+200C to U+200F, U+202A to U+202E, U+206A to U+206F, U+FEFF.
fn without_ignorable(mut name: &[u8]) -> Vec<u8> {
    let mut visible = Vec::with_capacity(name.len());
    while let [first, rest @ ..] = name {
        match name {
            [0xe2, 0x80, 0x8c..=0x8f | 0xaa..=0xae, after @ ..]
            | [0xe2, 0x81, 0xaa..=0xaf, after @ ..]
            | [0xef, 0xbb, 0xbf, after @ ..] => name = after,
            _ => {
                visible.push(*first);
                name = rest;
            }
        }
    }
    visible
}

/// Keeps as much as fits before the hash, without dividing an escape or a UTF-8 character.
fn cut(escaped: &mut Vec<u8>, room: usize, name: &Name) {
    let mut end = room - CUT.len() - 2 * CUT_HASH_BYTES;
    while end > 0 && (escaped[end] & 0xc0 == 0x80 || within_escape(escaped, end)) {
        end -= 1;
    }
    escaped.truncate(end);
    escaped.extend_from_slice(CUT);
    let hash = blake3::hash(name.as_bytes());
    for byte in &hash.as_bytes()[..CUT_HASH_BYTES] {
        escaped.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
}

fn within_escape(escaped: &[u8], end: usize) -> bool {
    (1..=2).any(|back| end >= back && escaped[end - back] == b'%')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn name(bytes: &[u8]) -> Name {
        Name::parse(bytes).unwrap()
    }

    const SHAPES: [Shape; 3] = [Shape::File, Shape::Node, Shape::Directory];

    #[test]
    fn golden() {
        for (plain, shape, escaped) in [
            (&b"a.mkv"[..], Shape::File, &b"a.mkv.torrent"[..]),
            (b"link", Shape::Node, b"link.node"),
            (b"movies", Shape::Directory, b"movies"),
            (
                b"12:30 \xc3\xa9\xff",
                Shape::File,
                b"12:30 \xc3\xa9\xff.torrent",
            ),
            (b"100%", Shape::Directory, b"100%25"),
            (b"%dir", Shape::Directory, b"%25dir"),
            (b"a\\b\n", Shape::File, b"a%5Cb%0A.torrent"),
            (b".git", Shape::Directory, b"%2Egit"),
            (b".GIT:x", Shape::File, b"%2EGIT:x.torrent"),
            (b"GIT~1", Shape::Directory, b"%47IT~1"),
            (b".g\xe2\x80\x8cit", Shape::Directory, b"%2Eg\xe2\x80\x8cit"),
            (b"\xef\xbb\xbf.git", Shape::Directory, b"%EF\xbb\xbf.git"),
            (b".gitmodules", Shape::Directory, b"%2Egitmodules"),
            (b"gi7eba~1", Shape::Directory, b"%67i7eba~1"),
            (b"x.torrent", Shape::Directory, b"x%2Etorrent"),
            (b".node", Shape::Directory, b"%2Enode"),
            (b"x.torrent", Shape::File, b"x.torrent.torrent"),
            (b"end. ", Shape::Directory, b"end.%20"),
        ] {
            let found = escape(&name(plain), shape);
            assert_eq!(found, escaped, "{:?}", String::from_utf8_lossy(&found));
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let long = name("é".repeat(127).as_bytes());
        let escaped = escape(&long, Shape::File);
        assert!(escaped.len() <= ESCAPED_BYTES_MAX);
        assert!(std::str::from_utf8(&escaped).is_ok());
        assert!(is_cut(&long, Shape::File));
        assert_eq!(unescape_blob(&escaped), Some((Shape::File, Unescaped::Cut)));
        let percents = escape(&name(&[b'%'; 255]), Shape::Directory);
        assert!(percents.len() <= ESCAPED_BYTES_MAX);
        assert_eq!(unescape_directory(&percents), Some(Unescaped::Cut));
    }

    #[test]
    fn refuses_what_it_never_writes() {
        for bad in [
            &b"%dir"[..],
            b"%volume",
            b"%-0a",
            b"a%2",
            b"a%zz",
            b"%41",
            b"%2e",
            b"",
            b"%2Egit%",
            b"a\\b",
            b".git",
            b"%00",
            b"%2F",
            b"%2E",
        ] {
            assert_eq!(unescape_directory(bad), None, "{bad:?}");
        }
        for bad in [&b"README"[..], b".torrent", b"a", b"%41.torrent", b".node"] {
            assert_eq!(unescape_blob(bad), None, "{bad:?}");
        }
    }

    fn hard_names() -> impl Strategy<Value = Name> {
        let piece = prop_oneof![
            Just(b"%".to_vec()),
            Just(b".git".to_vec()),
            Just(b"GIT~1".to_vec()),
            Just(b".torrent".to_vec()),
            Just(b".node".to_vec()),
            Just(b"%25".to_vec()),
            Just(b" ".to_vec()),
            Just(b".".to_vec()),
            Just(b"%~".to_vec()),
            Just(b"\\".to_vec()),
            Just(vec![b'x'; 100]),
            Just(b"\xe2\x80\x8c".to_vec()),
            prop::collection::vec(any::<u8>(), 1..4),
        ];
        prop::collection::vec(piece, 1..5)
            .prop_filter_map("a name", |pieces| Name::parse(&pieces.concat()).ok())
    }

    fn read(escaped: &[u8], shape: Shape) -> Option<Unescaped> {
        match shape {
            Shape::Directory => unescape_directory(escaped),
            _ => unescape_blob(escaped)
                .filter(|(found, _)| *found == shape)
                .map(|(_, name)| name),
        }
    }

    proptest! {
        #[test]
        fn comes_back(name in hard_names()) {
            for shape in SHAPES {
                let escaped = escape(&name, shape);
                prop_assert!(escaped.len() <= ESCAPED_BYTES_MAX);
                let expected = if is_cut(&name, shape) { Unescaped::Cut } else { Unescaped::Whole(name.clone()) };
                prop_assert_eq!(read(&escaped, shape), Some(expected));
            }
        }

        #[test]
        fn is_injective(left in hard_names(), right in hard_names()) {
            for a in SHAPES {
                for b in SHAPES {
                    let same = escape(&left, a) == escape(&right, b);
                    prop_assert_eq!(same, left == right && a == b);
                }
            }
        }

        #[test]
        fn what_is_read_is_written_so(escaped in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Some(Unescaped::Whole(name)) = unescape_directory(&escaped) {
                prop_assert_eq!(escape(&name, Shape::Directory), escaped);
            }
        }
    }
}
