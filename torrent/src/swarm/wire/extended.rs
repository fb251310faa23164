//! Extension messages: the extended handshake (BEP 10) and metadata exchange (BEP 9).

use super::bencode::{Value, dictionary};
use bytes::{Bytes, BytesMut};

/// The number under which we take metadata messages.
pub(crate) const OUR_METADATA_ID: u8 = 1;

/// Who we are, to peers and their users.
const CLIENT: &str = concat!("DelugeFS ", env!("CARGO_PKG_VERSION"));

/// What an extended handshake tells us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ExtendedHandshake {
    /// Requests that the sender lets us have unanswered.
    pub(crate) request_queue: Option<u32>,
    /// The number under which the sender takes metadata messages; 0 or none: it takes none.
    pub(crate) metadata_id: Option<u8>,
}

impl ExtendedHandshake {
    /// Ours. `metadata_bytes` is the length of the `info` dictionary, if we can send it.
    pub(crate) fn encode(request_queue: usize, metadata_bytes: Option<usize>) -> Bytes {
        let size =
            metadata_bytes.map_or(String::new(), |bytes| format!("13:metadata_sizei{bytes}e"));
        let version = CLIENT.len();
        let text = format!(
            "d1:md11:ut_metadatai{OUR_METADATA_ID}ee{size}4:reqqi{request_queue}e1:v{version}:{CLIENT}e"
        );
        Bytes::from(text)
    }

    /// `None` when it is not a bencoded dictionary.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (pairs, _) = dictionary(payload)?;
        let mut handshake = Self::default();
        for (key, value) in pairs {
            match (key, value) {
                (b"reqq", Value::Integer(count)) => handshake.request_queue = count.try_into().ok(),
                (b"m", Value::Container(names)) => handshake.metadata_id = metadata_id(names),
                _ => {}
            }
        }
        Some(handshake)
    }
}

fn metadata_id(names: &[u8]) -> Option<u8> {
    let (names, _) = dictionary(names)?;
    names.into_iter().find_map(|(name, value)| match value {
        Value::Integer(id) if name == b"ut_metadata" => id.try_into().ok(),
        _ => None,
    })
}

/// A metadata message (BEP 9), as far as one who only serves needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetadataMessage {
    /// The peer asks for a 16 KiB part of the `info` dictionary.
    Request { part: u32 },
    /// An answer that we did not ask for.
    Other,
}

impl MetadataMessage {
    /// Bytes of one part.
    const PART_BYTES: usize = 16 * 1024;

    /// `None` when malformed.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (pairs, _) = dictionary(payload)?;
        let integer = |name: &[u8]| {
            pairs.iter().find_map(|(key, value)| match value {
                Value::Integer(number) if *key == name => Some(*number),
                _ => None,
            })
        };
        if integer(b"msg_type")? != 0 {
            return Some(Self::Other);
        }
        let part = integer(b"piece")?.try_into().ok()?;
        Some(Self::Request { part })
    }

    /// The answer to a request: the part, or a refusal when there is none.
    pub(crate) fn answer(part: u32, info: Option<&[u8]>) -> Bytes {
        let refusal = || Bytes::from(format!("d8:msg_typei2e5:piecei{part}ee"));
        let Some(info) = info else {
            return refusal();
        };
        let Some(data) = info.chunks(Self::PART_BYTES).nth(part as usize) else {
            return refusal();
        };
        let total = info.len();
        let head = format!("d8:msg_typei1e5:piecei{part}e10:total_sizei{total}ee");
        let mut bytes = BytesMut::from(head.as_bytes());
        bytes.extend_from_slice(data);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn our_handshake_is_sorted_bencode_that_we_can_read() {
        let bytes = ExtendedHandshake::encode(500, Some(777));
        let (pairs, used) = dictionary(&bytes).unwrap();
        assert_eq!(used, bytes.len());
        assert!(pairs.is_sorted_by_key(|(key, _)| *key));
        let read = ExtendedHandshake::decode(&bytes).unwrap();
        assert_eq!(read.request_queue, Some(500));
        assert_eq!(read.metadata_id, Some(OUR_METADATA_ID));
    }

    #[test]
    fn odd_handshakes_are_taken_or_refused_without_harm() {
        let odd = ExtendedHandshake::decode(b"d1:md11:ut_metadatai999ee4:reqqi-1ee").unwrap();
        assert_eq!(odd, ExtendedHandshake::default());
        assert_eq!(ExtendedHandshake::decode(b"i7e"), None);
    }

    #[test]
    fn metadata_is_served_in_parts() {
        let info = vec![b'x'; 20_000];
        let request = MetadataMessage::decode(b"d8:msg_typei0e5:piecei1ee");
        assert_eq!(request, Some(MetadataMessage::Request { part: 1 }));
        let answer = MetadataMessage::answer(1, Some(&info));
        let head = b"d8:msg_typei1e5:piecei1e10:total_sizei20000ee";
        assert!(answer.starts_with(head));
        assert_eq!(answer.len(), head.len() + 20_000 - 16_384);
        let refusal = MetadataMessage::answer(2, Some(&info));
        assert_eq!(&refusal[..], b"d8:msg_typei2e5:piecei2ee");
    }
}
