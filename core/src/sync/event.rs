//! What goes into the sync machine and what comes out.

use crate::ids::{CommitId, IncarnationId, NodeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Time since some fixed moment of this process, never going back.
pub type Now = Duration;

/// The newest commit of each author.
pub type Authors = BTreeMap<IncarnationId, CommitId>;

/// How far each holdings log is known.
pub type Positions = BTreeMap<IncarnationId, u64>;

/// One connection to a peer, named by the executor; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One pull, named by the machine; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PullId(pub u64);

/// Who this node is, and what it has on disk when it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its incarnation, which authors its commits and its holdings log.
    pub incarnation: IncarnationId,
    /// Random, other on each start: retries of different nodes should not meet.
    pub seed: u64,
    /// The repository's heads.
    pub authors: Authors,
    /// The holdings logs' positions.
    pub positions: Positions,
}

/// How a commit, rebase or pull ended.
///
/// The heads are to be read from the repository when the event is handed in, by the one loop that does so:
/// heads of two pulls that ended close together must not be told in the wrong order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well; the repository's heads now, all of them.
    Done(Authors),
    /// Not at all; the repository is as it was. The executor has logged why.
    Failed,
}

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A peer told us.
    Told,
    /// mDNS or this host's registry.
    Discovered,
    /// The owner (`--peer`); never forgotten.
    Owner,
}

/// Why a dial came to no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody answered, or the handshake broke.
    Unreachable,
    /// It is this very process.
    Oneself,
    /// It speaks, but it is no node of this volume, or of another version.
    Stranger,
}

/// Who opened a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// We dialled this address.
    Dialled(SocketAddr),
    /// The peer did.
    Accepted,
}

/// A link whose handshake and hello are done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkUp {
    /// Its name.
    pub link: LinkId,
    /// Who is at the other end.
    pub peer: NodeId,
    /// Its incarnation.
    pub incarnation: IncarnationId,
    /// Who opened it.
    pub direction: Direction,
    /// Where the peer can be dialled: the link's remote address with the port that the peer listens on.
    pub listening: Option<SocketAddr>,
}

/// A node and an address of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress {
    /// The node.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What the machines of two nodes tell each other. Links deliver in order, each message once, or break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The sender's heads, all of them.
    Heads(Authors),
    /// How far the sender knows each holdings log, all of them.
    Holdings(Positions),
    /// Nodes that the sender has links to.
    Peers(Vec<PeerAddress>),
    /// Are you there?
    Ping,
    /// I am.
    Pong,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There are changes to be committed. Told at least once after each change that was not in the group
    /// taken by a commit or rebase; at start when the journal holds any.
    LocalChanges,
    /// [`Effect::Commit`] ended.
    CommitFinished(Outcome),
    /// [`Effect::Rebase`] ended.
    RebaseFinished(Outcome),
    /// [`Effect::Pull`] ended. Told for each, also when its link is gone.
    PullFinished {
        /// The effect's.
        pull: PullId,
        /// How.
        outcome: Outcome,
    },
    /// Bytes of a pull are still arriving; told about once a second while they do.
    PullProgress {
        /// The effect's.
        pull: PullId,
    },
    /// Our own holdings log (or one read from disk) has moved, and is durable.
    HoldingsChanged(Positions),
    /// A part of a holdings log came and was applied.
    BatchApplied {
        /// Through which link.
        link: LinkId,
        /// Whose log.
        incarnation: IncarnationId,
        /// The log's position now.
        position: u64,
        /// Whether it brought something, be it only a page: not so for what was known, a gap, or an error.
        progressed: bool,
    },
    /// Someone may be found at these addresses.
    Found {
        /// Who, if known.
        node: Option<NodeId>,
        /// Where.
        addresses: Vec<SocketAddr>,
        /// Says who.
        origin: Origin,
    },
    /// [`Effect::Dial`] failed; success is [`Event::LinkUp`].
    DialFailed {
        /// The effect's.
        address: SocketAddr,
        /// Why.
        failure: DialFailure,
    },
    /// A link is ready.
    LinkUp(LinkUp),
    /// A link is gone.
    LinkDown {
        /// Which.
        link: LinkId,
    },
    /// Something came through a link that is not for this machine.
    Heard {
        /// Which.
        link: LinkId,
    },
    /// A message came.
    Received {
        /// Through which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// The time that [`super::Sync::wake_at`] named has come.
    Wake,
}

/// Why a link is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing was heard for [`super::limits::SILENCE_MAX`].
    Silent,
    /// There is another link to the same node.
    Duplicate,
    /// The other end is this node.
    Oneself,
    /// There are [`super::limits::LINKS_MAX`] already.
    LinksTooMany,
    /// A message was larger than its limit.
    Oversized,
}

/// Signs that this node's state is older than what others have seen of it: the root was copied or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// A commit of ours that is unknown to the machine; the repository may well have it in its history.
    Head(CommitId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Take the pending changes and author a commit; none when nothing is pending. Ends with
    /// [`Event::CommitFinished`]. Never while another commit or a rebase is under way.
    Commit,
    /// Commit what is pending, merge the heads, apply the new view to the mount. Ends with
    /// [`Event::RebaseFinished`]. Never while another rebase or a commit is under way.
    Rebase,
    /// Fetch the peer's heads. Ends with [`Event::PullFinished`].
    Pull {
        /// To be named when it ends.
        pull: PullId,
        /// From whom.
        peer: NodeId,
        /// The link to it.
        link: LinkId,
    },
    /// Send a message.
    Send {
        /// Through which link.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// Ask for what comes next in a log (`Holdings::wanted`). The answer ends as [`Event::BatchApplied`]. Where it is our
    /// own log, the peer claims to have more of it than we have said: the executor looks whether we have signed that.
    AskHoldings {
        /// Through which link.
        link: LinkId,
        /// Whose log.
        incarnation: IncarnationId,
    },
    /// Open a link. Ends with [`Event::LinkUp`] or [`Event::DialFailed`], within the executor's time limit.
    Dial {
        /// Where to.
        address: SocketAddr,
    },
    /// Close a link. [`Event::LinkDown`] need not follow.
    Disconnect {
        /// Which.
        link: LinkId,
        /// Why.
        reason: Reason,
    },
    /// A node is connected now, that was not (for the plan's facts, and for the log).
    Connected {
        /// Who.
        peer: NodeId,
    },
    /// A node is no longer connected.
    Lost {
        /// Who.
        peer: NodeId,
    },
    /// Check whether we are who we think we are.
    SuspectIdentity {
        /// Who has seen more of us.
        peer: NodeId,
        /// What it has seen.
        evidence: Evidence,
    },
}
