//! What nodes tell each other on a control stream.

use bytes::Bytes;
use delugefs_core::holdings::Wanted;
use delugefs_core::ids::{CommitId, IncarnationId, InfoHash, NodeId, VolumeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Version of the messages. A newer minor version may add messages and append fields, which older
/// ones skip; another major version is refused.
pub const PROTOCOL: Protocol = Protocol { major: 2, minor: 0 };

/// Version of the messages that a node speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protocol {
    /// Must be equal.
    pub major: u16,
    /// May differ.
    pub minor: u16,
}

/// The first message on a control stream, both ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the sender speaks.
    pub protocol: Protocol,
    /// The volume.
    pub volume: VolumeId,
    /// The volume's name.
    pub volume_name: String,
    /// The sender.
    pub node: NodeId,
    /// The sender's incarnation.
    pub incarnation: IncarnationId,
    /// The sender's label.
    pub label: String,
    /// Where the sender's disk is (`--site`), may be empty.
    pub site: String,
    /// The port the sender listens on; with the connection's source address, where to reach it.
    pub listen_port: u16,
    /// Other addresses it listens on.
    pub addresses: Vec<SocketAddr>,
    /// Most bytes that the sender may use.
    pub capacity: u64,
    /// Bytes that it can still take.
    pub free: u64,
    /// Whether it has a mount (or only stores).
    pub mounted: bool,
}

/// A node and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddresses {
    /// The node.
    pub node: NodeId,
    /// At least one.
    pub addresses: Vec<SocketAddr>,
}

/// What a node has heard of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberFacts {
    /// The node.
    pub node: NodeId,
    /// Its incarnation when it was last connected.
    pub incarnation: IncarnationId,
    /// Its label.
    pub label: String,
    /// Its site.
    pub site: String,
    /// Most bytes that it may use.
    pub capacity: u64,
    /// Bytes that it could still take.
    pub free: u64,
    /// Seconds since it was last connected to anyone, as far as the sender has heard; 0 while it is.
    pub away: u64,
}

/// Author heads: for each incarnation the newest commit of its chain.
pub type Heads = BTreeMap<IncarnationId, CommitId>;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who the sender is; always first.
    Hello(Hello),
    /// The author heads that the sender has: pull what is new.
    Heads(Heads),
    /// What incarnations, the sender's and others, have signed that they rest on: words, as `core::past::rests::codec`
    /// encodes them.
    Rests(Vec<Bytes>),
    /// Up to which sequence the sender knows each incarnation's holdings.
    HoldingsHave(Vec<(IncarnationId, u64)>),
    /// Asks for an incarnation's holdings.
    HoldingsWanted {
        /// Whose.
        incarnation: IncarnationId,
        /// What of them.
        wanted: Wanted,
    },
    /// A part of an incarnation's holdings.
    Holdings {
        /// Whose.
        incarnation: IncarnationId,
        /// An answer, as `core::holdings::codec` encodes it.
        bytes: Bytes,
    },
    /// Other nodes of the volume that the sender knows.
    Peers(Vec<PeerAddresses>),
    /// Asks the receiver to fetch and hold these contents.
    PleaseHold(Vec<InfoHash>),
    /// The sender is fetching these.
    Fetching(Vec<InfoHash>),
    /// The sender can serve pieces of these.
    Available(Vec<InfoHash>),
    /// The sender's space changed.
    Space {
        /// Most bytes that it may use.
        capacity: u64,
        /// Bytes that it can still take.
        free: u64,
    },
    /// Answered with the same number.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The sender closes the link on purpose.
    Goodbye {
        /// For the log.
        reason: String,
    },
    /// Something about this link that the receiver's owner should know.
    Problem {
        /// For the log.
        text: String,
    },
    /// A piece that the receiver has sent was wrong: its disk may be damaged there.
    Damaged {
        /// Of which content.
        content: InfoHash,
        /// The piece.
        piece: u32,
    },
    /// The other nodes of the volume that the sender has ever heard of, or those of them with news.
    Members(Vec<MemberFacts>),
}
