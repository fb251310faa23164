//! The `BitTorrent` peer protocol as bytes: handshake, frames, extension messages (BEP 3, 9, 10).
//!
//! A strict codec of our own: the published one decodes into borrowed buffers of a size fixed by its
//! connection type; here blocks are to be slices of large receive buffers, limits are to be checked before
//! bytes are waited for, and every malformed frame is to be an error with a name.

mod bencode;
mod extended;
mod frame;
mod handshake;

pub(crate) use extended::{ExtendedHandshake, MetadataMessage, OUR_METADATA_ID};
pub(crate) use frame::{BlockRequest, Message, decode, encode, piece_header};
pub(crate) use handshake::{HANDSHAKE_BYTES, Handshake, PeerId};
