//! Frames: a 4-byte length, a 1-byte type, a payload (BEP 3).

use crate::swarm::limits::{BLOCK_BYTES, FRAME_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Part of a piece, as requests and cancels name it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockRequest {
    pub(crate) piece: u32,
    pub(crate) begin: u32,
    pub(crate) length: u32,
}

/// A frame's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    KeepAlive,
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    Have(u32),
    Bitfield(Bytes),
    Request(BlockRequest),
    Piece {
        piece: u32,
        begin: u32,
        data: Bytes,
    },
    Cancel(BlockRequest),
    /// An extension message: its number and payload (BEP 10).
    Extended(u8, Bytes),
    /// A type that we do not know and did not ask for: skipped.
    Unknown(u8),
}

/// Why bytes are not frames of this content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    #[error("a message of type {0} and {1} bytes has the wrong length")]
    WrongLength(u8, usize),
}

/// Takes the first whole frame out of `buffer`; `None` when more bytes are needed. A frame that is too long
/// is an error as soon as its length is there. `pieces` bounds a bitfield.
pub(crate) fn decode(buffer: &mut BytesMut, pieces: u32) -> Result<Option<Message>, WireError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*prefix) as usize;
    let limit = FRAME_BYTES_MAX.max(1 + pieces.div_ceil(8) as usize);
    if length > limit {
        return Err(WireError::TooLong(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    let mut frame = buffer.split_to(length).freeze();
    if frame.is_empty() {
        return Ok(Some(Message::KeepAlive));
    }
    let kind = frame.get_u8();
    parse(kind, frame).map(Some)
}

fn parse(kind: u8, mut payload: Bytes) -> Result<Message, WireError> {
    let length = payload.len();
    let expect = |right: bool| {
        right
            .then_some(())
            .ok_or(WireError::WrongLength(kind, length))
    };
    match kind {
        0..=3 => expect(length == 0)?,
        4 => expect(length == 4)?,
        6 | 8 => expect(length == 12)?,
        7 => expect(length > 8 && length - 8 <= BLOCK_BYTES as usize)?,
        20 => expect(length >= 1)?,
        _ => {}
    }
    Ok(match kind {
        0 => Message::Choke,
        1 => Message::Unchoke,
        2 => Message::Interested,
        3 => Message::NotInterested,
        4 => Message::Have(payload.get_u32()),
        5 => Message::Bitfield(payload),
        6 => Message::Request(request(payload)),
        7 => Message::Piece {
            piece: payload.get_u32(),
            begin: payload.get_u32(),
            data: payload,
        },
        8 => Message::Cancel(request(payload)),
        20 => Message::Extended(payload.get_u8(), payload),
        other => Message::Unknown(other),
    })
}

fn request(mut payload: Bytes) -> BlockRequest {
    BlockRequest {
        piece: payload.get_u32(),
        begin: payload.get_u32(),
        length: payload.get_u32(),
    }
}

/// Appends a message's frame.
pub(crate) fn encode(message: &Message, out: &mut BytesMut) {
    match message {
        Message::KeepAlive => out.put_u32(0),
        Message::Choke => head(out, 0, 0),
        Message::Unchoke => head(out, 1, 0),
        Message::Interested => head(out, 2, 0),
        Message::NotInterested => head(out, 3, 0),
        Message::Have(piece) => {
            head(out, 4, 4);
            out.put_u32(*piece);
        }
        Message::Bitfield(bits) => {
            head(out, 5, bits.len());
            out.put_slice(bits);
        }
        Message::Request(request) => put_request(out, 6, *request),
        Message::Piece { piece, begin, data } => {
            out.put_slice(&piece_header(*piece, *begin, data.len()));
            out.put_slice(data);
        }
        Message::Cancel(request) => put_request(out, 8, *request),
        Message::Extended(id, payload) => {
            head(out, 20, 1 + payload.len());
            out.put_u8(*id);
            out.put_slice(payload);
        }
        Message::Unknown(kind) => head(out, *kind, 0),
    }
}

/// What precedes a block's bytes, so that they need not be copied to be sent.
pub(crate) fn piece_header(piece: u32, begin: u32, data_bytes: usize) -> [u8; 13] {
    let mut header = [0; 13];
    header[..4].copy_from_slice(&(9 + data_bytes as u32).to_be_bytes());
    header[4] = 7;
    header[5..9].copy_from_slice(&piece.to_be_bytes());
    header[9..].copy_from_slice(&begin.to_be_bytes());
    header
}

fn head(out: &mut BytesMut, kind: u8, payload_bytes: usize) {
    out.put_u32(1 + payload_bytes as u32);
    out.put_u8(kind);
}

fn put_request(out: &mut BytesMut, kind: u8, request: BlockRequest) {
    head(out, kind, 12);
    out.put_u32(request.piece);
    out.put_u32(request.begin);
    out.put_u32(request.length);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = Message> {
        let request = |(piece, begin, length)| BlockRequest {
            piece,
            begin,
            length,
        };
        let bytes = |range| proptest::collection::vec(any::<u8>(), range).prop_map(Bytes::from);
        prop_oneof![
            Just(Message::KeepAlive),
            Just(Message::Choke),
            Just(Message::Unchoke),
            Just(Message::Interested),
            Just(Message::NotInterested),
            any::<u32>().prop_map(Message::Have),
            bytes(0..200).prop_map(Message::Bitfield),
            any::<(u32, u32, u32)>().prop_map(move |r| Message::Request(request(r))),
            any::<(u32, u32, u32)>().prop_map(move |r| Message::Cancel(request(r))),
            (any::<u32>(), any::<u32>(), bytes(1..2000))
                .prop_map(|(piece, begin, data)| Message::Piece { piece, begin, data }),
            (any::<u8>(), bytes(0..300)).prop_map(|(id, data)| Message::Extended(id, data)),
        ]
    }

    proptest! {
        #[test]
        fn frames_round_trip_however_they_are_cut(
            messages in proptest::collection::vec(message(), 0..20),
            step in 1usize..700,
        ) {
            let mut sent = BytesMut::new();
            for message in &messages {
                encode(message, &mut sent);
            }
            let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
            for part in sent.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(message) = decode(&mut buffer, 1600).unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, messages);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000), pieces in 0u32..200_000) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, pieces) {}
        }

        #[test]
        fn mutated_frames_never_panic(
            messages in proptest::collection::vec(message(), 1..10),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        ) {
            let mut sent = BytesMut::new();
            for message in &messages {
                encode(message, &mut sent);
            }
            for (at, value) in flips {
                let at = at.index(sent.len());
                sent[at] = value;
            }
            while let Ok(Some(_)) = decode(&mut sent, 1600) {}
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let mut buffer = BytesMut::from(&[0, 0, 0x42, 1][..]);
        assert_eq!(decode(&mut buffer, 10), Err(WireError::TooLong(0x4201)));
        let mut most = BytesMut::from(&(FRAME_BYTES_MAX as u32).to_be_bytes()[..]);
        assert_eq!(decode(&mut most, 10), Ok(None));
    }

    #[test]
    fn wrong_lengths_have_a_name() {
        for (kind, payload) in [(0, 1), (4, 3), (6, 13), (7, 8), (8, 0), (20, 0)] {
            let mut buffer = BytesMut::new();
            head(&mut buffer, kind, payload);
            buffer.put_bytes(0, payload);
            assert_eq!(
                decode(&mut buffer, 10),
                Err(WireError::WrongLength(kind, payload))
            );
        }
    }
}
