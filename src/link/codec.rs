//! Messages as bytes. Draft format, version [`super::message::PROTOCOL`].
//!
//! A frame is a big-endian `u32` (bytes that follow, 1 to [`FRAME_BYTES_MAX`]), one byte of type, and
//! the fields in order: integers big-endian; identities raw; texts and lists behind a `u16` count;
//! an address as 4 or 6, the raw address, the port, and for IPv6 the scope's index. A reader skips a
//! type it does not know, and bytes after the last field it knows.

use super::LinkError;
use super::message::{Heads, Hello, MemberFacts, Message, PeerAddresses, Protocol};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use delugefs_core::holdings::Wanted;
use delugefs_core::ids::{CommitId, IncarnationId, InfoHash, NodeId, VolumeId};
use delugefs_core::limits::{LABEL_BYTES_MAX, VOLUME_NAME_BYTES_MAX};
use delugefs_core::past::rests::codec::WORD_BYTES_MAX;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Largest frame, in bytes, without its length: bounds what one peer makes another allocate.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the length before each frame.
pub const FRAME_LENGTH_BYTES: usize = 4;

/// Entries of a heads message: one for each author.
pub const HEADS_MAX: usize = delugefs_core::limits::INCARNATIONS_MAX;

/// Entries of a holdings summary: one for each log.
pub const HOLDINGS_MAX: usize = delugefs_core::limits::INCARNATIONS_MAX;

/// Bytes of holdings in one message: what is left of a frame, and a round number.
pub const HOLDINGS_BYTES_MAX: usize = 1_000_000;

/// Info-hashes in one message: 320 KiB.
pub const HASHES_MAX: usize = 16_384;

/// Words in one message: one of each incarnation, as far as they fit into a frame.
pub const WORDS_MAX: usize = delugefs_core::limits::INCARNATIONS_MAX;

/// Nodes in a peers message.
pub const PEERS_MAX: usize = 1024;

/// Nodes in a members message, about 200 bytes each.
pub const MEMBERS_MAX: usize = 1024;

/// Addresses of one node.
pub const ADDRESSES_MAX: usize = 16;

/// Bytes of a site's name.
pub const SITE_BYTES_MAX: usize = 64;

/// Bytes of a reason or problem; longer ones are cut by the sender.
pub const TEXT_BYTES_MAX: usize = 1024;

/// The newest type that is known here.
const TYPE_MAX: u8 = 17;

/// A message that cannot be sent: a list or text is over its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message's {0} is over its limit")]
pub struct TooLarge(&'static str);

/// The frame of a message, with its length.
pub fn encode(message: &Message) -> Result<Bytes, TooLarge> {
    let mut out = Writer(BytesMut::with_capacity(64));
    out.0.put_u32(0);
    match message {
        Message::Hello(hello) => write_hello(&mut out, hello)?,
        Message::Heads(heads) => write_heads(&mut out, 2, heads)?,
        Message::Rests(words) => {
            out.list(3, words.len(), WORDS_MAX)?;
            for word in words {
                within(word.len(), WORD_BYTES_MAX, "word")?;
                out.0.put_u32(word.len() as u32);
                out.0.put_slice(word);
            }
        }
        Message::HoldingsHave(have) => {
            out.list(4, have.len(), HOLDINGS_MAX)?;
            for (incarnation, sequence) in have {
                out.0.put_slice(incarnation.as_bytes());
                out.0.put_u64(*sequence);
            }
        }
        Message::HoldingsWanted {
            incarnation,
            wanted,
        } => {
            out.holdings(5, *incarnation);
            out.0.put_u64(wanted.from);
            out.0.put_u8(u8::from(wanted.page.is_some()));
            if let Some((at, index)) = wanted.page {
                out.0.put_u64(at);
                out.0.put_u32(index);
            }
        }
        Message::Holdings { incarnation, bytes } => {
            out.holdings(6, *incarnation);
            within(bytes.len(), HOLDINGS_BYTES_MAX, "holdings")?;
            out.0.put_u32(bytes.len() as u32);
            out.0.put_slice(bytes);
        }
        Message::Peers(peers) => write_peers(&mut out, peers)?,
        Message::PleaseHold(hashes) => out.hashes(8, hashes)?,
        Message::Fetching(hashes) => out.hashes(9, hashes)?,
        Message::Available(hashes) => out.hashes(10, hashes)?,
        Message::Space { capacity, free } => out.numbers(11, &[*capacity, *free]),
        Message::Ping(number) => out.numbers(12, &[*number]),
        Message::Pong(number) => out.numbers(13, &[*number]),
        Message::Goodbye { reason } => out.sentence(14, reason),
        Message::Problem { text } => out.sentence(15, text),
        Message::Members(members) => write_members(&mut out, members)?,
        Message::Damaged { content, piece } => {
            out.0.put_u8(17);
            out.0.put_slice(content.as_bytes());
            out.0.put_u32(*piece);
        }
    }
    let length = out.0.len() - FRAME_LENGTH_BYTES;
    within(length, FRAME_BYTES_MAX, "frame")?;
    out.0[..FRAME_LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(out.0.freeze())
}

/// Takes one whole frame off the front of what has come in, without its length; `None` until it
/// is there. Refuses a length over the limit as soon as it is known.
pub fn split_frame(incoming: &mut BytesMut) -> Result<Option<Bytes>, LinkError> {
    let Some(length) = incoming.first_chunk::<FRAME_LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if !(1..=FRAME_BYTES_MAX).contains(&length) {
        let text = format!("a frame of {length} bytes");
        return Err(LinkError::protocol(text));
    }
    if incoming.len() < FRAME_LENGTH_BYTES + length {
        return Ok(None);
    }
    incoming.advance(FRAME_LENGTH_BYTES);
    Ok(Some(incoming.split_to(length).freeze()))
}

/// Reads a frame without its length; `None` for a message of a newer version. Takes any bytes
/// (a fuzz target's entry).
pub fn decode(frame: Bytes) -> Result<Option<Message>, LinkError> {
    if frame.first().is_some_and(|kind| *kind > TYPE_MAX) {
        return Ok(None);
    }
    let message = read(&mut Reader(frame));
    let malformed = || LinkError::protocol("a message is malformed");
    message.map(Some).ok_or_else(malformed)
}

fn read(reader: &mut Reader) -> Option<Message> {
    let message = match reader.u8()? {
        1 => Message::Hello(read_hello(reader)?),
        2 => Message::Heads(read_heads(reader)?),
        3 => Message::Rests(reader.list(WORDS_MAX, |r| r.long_bytes(WORD_BYTES_MAX))?),
        4 => {
            let pair = |r: &mut Reader| Some((IncarnationId::new(r.array()?), r.u64()?));
            Message::HoldingsHave(reader.list(HOLDINGS_MAX, pair)?)
        }
        5 => Message::HoldingsWanted {
            incarnation: IncarnationId::new(reader.array()?),
            wanted: Wanted {
                from: reader.u64()?,
                page: match reader.u8()? {
                    0 => None,
                    1 => Some((reader.u64()?, reader.u32()?)),
                    _ => return None,
                },
            },
        },
        6 => Message::Holdings {
            incarnation: IncarnationId::new(reader.array()?),
            bytes: reader.long_bytes(HOLDINGS_BYTES_MAX)?,
        },
        7 => Message::Peers(reader.list(PEERS_MAX, read_peer)?),
        8 => Message::PleaseHold(reader.hashes()?),
        9 => Message::Fetching(reader.hashes()?),
        10 => Message::Available(reader.hashes()?),
        11 => Message::Space {
            capacity: reader.u64()?,
            free: reader.u64()?,
        },
        12 => Message::Ping(reader.u64()?),
        13 => Message::Pong(reader.u64()?),
        14 => Message::Goodbye {
            reason: reader.text(TEXT_BYTES_MAX)?,
        },
        15 => Message::Problem {
            text: reader.text(TEXT_BYTES_MAX)?,
        },
        16 => Message::Members(reader.list(MEMBERS_MAX, read_member)?),
        17 => Message::Damaged {
            content: InfoHash::new(reader.array()?),
            piece: reader.u32()?,
        },
        _ => return None,
    };
    Some(message)
}

fn write_hello(out: &mut Writer, hello: &Hello) -> Result<(), TooLarge> {
    out.0.put_u8(1);
    out.0.put_u16(hello.protocol.major);
    out.0.put_u16(hello.protocol.minor);
    out.0.put_slice(hello.volume.as_bytes());
    out.text(&hello.volume_name, VOLUME_NAME_BYTES_MAX, "volume name")?;
    out.0.put_slice(hello.node.as_bytes());
    out.0.put_slice(hello.incarnation.as_bytes());
    out.text(&hello.label, LABEL_BYTES_MAX, "label")?;
    out.text(&hello.site, SITE_BYTES_MAX, "site")?;
    out.0.put_u16(hello.listen_port);
    out.addresses(&hello.addresses)?;
    out.0.put_u64(hello.capacity);
    out.0.put_u64(hello.free);
    out.0.put_u8(u8::from(hello.mounted));
    Ok(())
}

fn read_hello(reader: &mut Reader) -> Option<Hello> {
    Some(Hello {
        protocol: Protocol {
            major: reader.u16()?,
            minor: reader.u16()?,
        },
        volume: VolumeId::new(reader.array()?),
        volume_name: reader.text(VOLUME_NAME_BYTES_MAX)?,
        node: NodeId::new(reader.array()?),
        incarnation: IncarnationId::new(reader.array()?),
        label: reader.text(LABEL_BYTES_MAX)?,
        site: reader.text(SITE_BYTES_MAX)?,
        listen_port: reader.u16()?,
        addresses: reader.list(ADDRESSES_MAX, Reader::address)?,
        capacity: reader.u64()?,
        free: reader.u64()?,
        mounted: reader.u8()? != 0,
    })
}

fn write_heads(out: &mut Writer, kind: u8, heads: &Heads) -> Result<(), TooLarge> {
    out.list(kind, heads.len(), HEADS_MAX)?;
    for (incarnation, commit) in heads {
        out.0.put_slice(incarnation.as_bytes());
        out.0.put_slice(commit.as_bytes());
    }
    Ok(())
}

fn read_heads(reader: &mut Reader) -> Option<Heads> {
    let head = |r: &mut Reader| {
        let incarnation = IncarnationId::new(r.array()?);
        Some((incarnation, CommitId::new(r.array()?)))
    };
    let heads = reader.list(HEADS_MAX, head)?;
    let count = heads.len();
    let heads: Heads = heads.into_iter().collect();
    // Twice the same incarnation: which one would it be?
    (heads.len() == count).then_some(heads)
}

fn write_peers(out: &mut Writer, peers: &[PeerAddresses]) -> Result<(), TooLarge> {
    out.list(7, peers.len(), PEERS_MAX)?;
    for peer in peers {
        out.0.put_slice(peer.node.as_bytes());
        out.addresses(&peer.addresses)?;
    }
    Ok(())
}

fn read_peer(reader: &mut Reader) -> Option<PeerAddresses> {
    Some(PeerAddresses {
        node: NodeId::new(reader.array()?),
        addresses: reader.list(ADDRESSES_MAX, Reader::address)?,
    })
}

fn write_members(out: &mut Writer, members: &[MemberFacts]) -> Result<(), TooLarge> {
    out.list(16, members.len(), MEMBERS_MAX)?;
    for member in members {
        out.0.put_slice(member.node.as_bytes());
        out.0.put_slice(member.incarnation.as_bytes());
        out.text(&member.label, LABEL_BYTES_MAX, "label")?;
        out.text(&member.site, SITE_BYTES_MAX, "site")?;
        for number in [member.capacity, member.free, member.away] {
            out.0.put_u64(number);
        }
    }
    Ok(())
}

fn read_member(reader: &mut Reader) -> Option<MemberFacts> {
    Some(MemberFacts {
        node: NodeId::new(reader.array()?),
        incarnation: IncarnationId::new(reader.array()?),
        label: reader.text(LABEL_BYTES_MAX)?,
        site: reader.text(SITE_BYTES_MAX)?,
        capacity: reader.u64()?,
        free: reader.u64()?,
        away: reader.u64()?,
    })
}

const fn within(count: usize, limit: usize, what: &'static str) -> Result<(), TooLarge> {
    if count > limit {
        return Err(TooLarge(what));
    }
    Ok(())
}

struct Writer(BytesMut);

impl Writer {
    fn list(&mut self, kind: u8, count: usize, limit: usize) -> Result<(), TooLarge> {
        within(count, limit, "list")?;
        self.0.put_u8(kind);
        self.0.put_u16(count as u16);
        Ok(())
    }

    fn holdings(&mut self, kind: u8, incarnation: IncarnationId) {
        self.0.put_u8(kind);
        self.0.put_slice(incarnation.as_bytes());
    }

    fn hashes(&mut self, kind: u8, hashes: &[InfoHash]) -> Result<(), TooLarge> {
        self.list(kind, hashes.len(), HASHES_MAX)?;
        for hash in hashes {
            self.0.put_slice(hash.as_bytes());
        }
        Ok(())
    }

    fn numbers(&mut self, kind: u8, numbers: &[u64]) {
        self.0.put_u8(kind);
        for number in numbers {
            self.0.put_u64(*number);
        }
    }

    fn sentence(&mut self, kind: u8, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
        self.0.put_u8(kind);
        self.0.put_u16(text.len() as u16);
        self.0.put_slice(text.as_bytes());
    }

    fn text(&mut self, text: &str, limit: usize, what: &'static str) -> Result<(), TooLarge> {
        within(text.len(), limit, what)?;
        self.0.put_u16(text.len() as u16);
        self.0.put_slice(text.as_bytes());
        Ok(())
    }

    fn addresses(&mut self, addresses: &[SocketAddr]) -> Result<(), TooLarge> {
        within(addresses.len(), ADDRESSES_MAX, "list of addresses")?;
        self.0.put_u16(addresses.len() as u16);
        for address in addresses {
            match address {
                SocketAddr::V4(v4) => {
                    self.0.put_u8(4);
                    self.0.put_slice(&v4.ip().octets());
                    self.0.put_u16(v4.port());
                }
                SocketAddr::V6(v6) => {
                    self.0.put_u8(6);
                    self.0.put_slice(&v6.ip().octets());
                    self.0.put_u16(v6.port());
                    self.0.put_u32(v6.scope_id());
                }
            }
        }
        Ok(())
    }
}

struct Reader(Bytes);

impl Reader {
    fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.0.first_chunk()?;
        self.0.advance(N);
        Some(array)
    }

    fn text(&mut self, limit: usize) -> Option<String> {
        let length = usize::from(self.u16()?);
        if length > limit || length > self.0.len() {
            return None;
        }
        let bytes = self.0.split_to(length);
        Some(str::from_utf8(&bytes).ok()?.to_owned())
    }

    fn long_bytes(&mut self, limit: usize) -> Option<Bytes> {
        let length = self.0.try_get_u32().ok()? as usize;
        if length > limit || length > self.0.len() {
            return None;
        }
        Some(self.0.split_to(length))
    }

    /// Grows with what is really there, whatever count is claimed.
    fn list<T>(&mut self, limit: usize, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::from(self.u16()?);
        if count > limit {
            return None;
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn hashes(&mut self) -> Option<Vec<InfoHash>> {
        self.list(HASHES_MAX, |r| Some(InfoHash::new(r.array()?)))
    }

    fn address(&mut self) -> Option<SocketAddr> {
        match self.u8()? {
            4 => {
                let ip = Ipv4Addr::from(self.array::<4>()?);
                Some(SocketAddrV4::new(ip, self.u16()?).into())
            }
            6 => {
                let ip = Ipv6Addr::from(self.array::<16>()?);
                let port = self.u16()?;
                let scope = self.0.try_get_u32().ok()?;
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
