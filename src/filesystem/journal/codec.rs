//! Entries and places as bytes: little-endian integers, byte strings with their length before them.
//!
//! The journal is this node's own and short-lived, so it has its own codec: unlike a descriptor it can say
//! everything of an entry without having its `info` at hand.

use delugefs_core::entry::{Attributes, Content, ContentRef, Entry, File, Kind, Placed, Written};
use delugefs_core::ids::{EntryId, InfoHash, TreeId};
use delugefs_core::limits::{
    INLINE_BYTES_MAX, LABEL_BYTES_MAX, LINKS_MERGED_MAX, PREVIOUS_MAX, SYMLINK_BYTES_MAX,
    XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use delugefs_core::name::{NAME_BYTES_MAX, Name};
use delugefs_core::time::Timestamp;

/// Most extended attributes of one entry: what their limit in bytes allows.
const XATTRS_MAX: usize = delugefs_core::limits::XATTRS_BYTES_MAX;

/// Bytes that are not a record, although their checksum holds: written by another version, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a journal record")]
pub(super) struct Malformed;

/// Appends values.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.raw(bytes);
    }

    pub(super) fn placed(&mut self, placed: &Placed) {
        self.raw(placed.parent.as_bytes());
        self.bytes(placed.name.as_bytes());
        self.entry(&placed.entry);
    }

    fn entry(&mut self, entry: &Entry) {
        self.raw(entry.id.as_bytes());
        self.kind(&entry.kind);
        self.attributes(&entry.attributes);
        self.u32(entry.written.edits);
        self.time(entry.written.at);
        self.bytes(entry.written.by.as_bytes());
    }

    fn kind(&mut self, kind: &Kind) {
        match kind {
            Kind::File(file) => self.file(file),
            Kind::Directory => self.byte(2),
            Kind::Symlink(target) => {
                self.byte(3);
                self.bytes(target);
            }
            Kind::Fifo => self.byte(4),
            Kind::Socket => self.byte(5),
            Kind::CharacterDevice(rdev) => {
                self.byte(6);
                self.u64(*rdev);
            }
            Kind::BlockDevice(rdev) => {
                self.byte(7);
                self.u64(*rdev);
            }
            Kind::Link(shared) => {
                self.byte(8);
                self.raw(shared.as_bytes());
            }
        }
    }

    fn file(&mut self, file: &File) {
        match &file.content {
            Content::Inline(bytes) => {
                self.byte(0);
                self.bytes(bytes);
            }
            Content::Swarm(content) => {
                self.byte(1);
                self.raw(content.info_hash.as_bytes());
                self.u64(content.length);
            }
        }
        self.u32(file.previous.len() as u32);
        for hash in &file.previous {
            self.raw(hash.as_bytes());
        }
    }

    fn attributes(&mut self, attributes: &Attributes) {
        self.u16(attributes.mode);
        self.u32(attributes.uid);
        self.u32(attributes.gid);
        self.time(attributes.accessed);
        self.time(attributes.modified);
        self.time(attributes.changed);
        self.u32(attributes.xattrs.len() as u32);
        for (name, value) in &attributes.xattrs {
            self.bytes(name);
            self.bytes(value);
        }
        self.u32(attributes.links.len() as u32);
        for link in &attributes.links {
            self.raw(link.as_bytes());
        }
    }

    fn time(&mut self, time: Timestamp) {
        self.raw(&time.seconds.to_le_bytes());
        self.u32(time.nanoseconds);
    }
}

/// Takes values off the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn count(&mut self, most: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        (count <= most).then_some(count).ok_or(Malformed)
    }

    pub(super) fn bytes(&mut self, most: usize) -> Result<&'a [u8], Malformed> {
        let length = self.count(most)?;
        self.take(length)
    }

    pub(super) fn id(&mut self) -> Result<EntryId, Malformed> {
        Ok(EntryId::new(self.array()?))
    }

    pub(super) fn tree(&mut self) -> Result<TreeId, Malformed> {
        Ok(TreeId::new(self.array()?))
    }

    pub(super) fn name(&mut self) -> Result<Name, Malformed> {
        Name::decode(self.bytes(NAME_BYTES_MAX)?).map_err(|_| Malformed)
    }

    pub(super) fn hash(&mut self) -> Result<InfoHash, Malformed> {
        Ok(InfoHash::new(self.array()?))
    }

    pub(super) fn placed(&mut self) -> Result<Placed, Malformed> {
        Ok(Placed {
            parent: self.id()?,
            name: self.name()?,
            entry: self.entry()?,
        })
    }

    fn entry(&mut self) -> Result<Entry, Malformed> {
        Ok(Entry {
            id: self.id()?,
            kind: self.kind()?,
            attributes: self.attributes()?,
            written: Written {
                edits: self.u32()?,
                at: self.time()?,
                by: self.label()?,
            },
        })
    }

    fn label(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes(LABEL_BYTES_MAX)?.to_vec();
        String::from_utf8(bytes).map_err(|_| Malformed)
    }

    fn kind(&mut self) -> Result<Kind, Malformed> {
        Ok(match self.byte()? {
            0 => {
                let bytes = self.bytes(INLINE_BYTES_MAX)?.to_vec();
                self.file(Content::Inline(bytes))?
            }
            1 => {
                let info_hash = self.hash()?;
                let length = self.u64()?;
                self.file(Content::Swarm(ContentRef { info_hash, length }))?
            }
            2 => Kind::Directory,
            3 => Kind::Symlink(self.bytes(SYMLINK_BYTES_MAX)?.to_vec()),
            4 => Kind::Fifo,
            5 => Kind::Socket,
            6 => Kind::CharacterDevice(self.u64()?),
            7 => Kind::BlockDevice(self.u64()?),
            8 => Kind::Link(self.id()?),
            _ => return Err(Malformed),
        })
    }

    fn file(&mut self, content: Content) -> Result<Kind, Malformed> {
        let mut previous = Vec::new();
        for _ in 0..self.count(PREVIOUS_MAX)? {
            previous.push(self.hash()?);
        }
        Ok(Kind::File(File { content, previous }))
    }

    fn attributes(&mut self) -> Result<Attributes, Malformed> {
        let mut attributes = Attributes {
            mode: self.u16()?,
            uid: self.u32()?,
            gid: self.u32()?,
            accessed: self.time()?,
            modified: self.time()?,
            changed: self.time()?,
            ..Attributes::default()
        };
        for _ in 0..self.count(XATTRS_MAX)? {
            let name = self.bytes(XATTR_NAME_BYTES_MAX)?.to_vec();
            let value = self.bytes(XATTR_VALUE_BYTES_MAX)?.to_vec();
            attributes.xattrs.insert(name, value);
        }
        for _ in 0..self.count(LINKS_MERGED_MAX)? {
            attributes.links.insert(self.id()?);
        }
        Ok(attributes)
    }

    fn time(&mut self) -> Result<Timestamp, Malformed> {
        let seconds = i64::from_le_bytes(self.array()?);
        let nanoseconds = self.u32()?;
        if nanoseconds >= 1_000_000_000 {
            return Err(Malformed);
        }
        Ok(Timestamp {
            seconds,
            nanoseconds,
        })
    }
}
