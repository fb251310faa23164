//! Limits of the sync machine, each with its unit and reason.

use std::time::Duration;

/// Pulls that run at once. With fewer, a burst by twenty nodes takes several rounds of pulls to be everywhere; each
/// costs a thread, and they share the disk's syncs.
pub const PULLS_MAX: usize = 16;

/// After this without progress a pull no longer keeps others from pulling the same heads, nor takes one of the
/// [`PULLS_MAX`] places: its peer is slow or lying. A usual pull takes some tens of milliseconds.
pub const PULL_PATIENCE: Duration = Duration::from_secs(1);

/// Progress prolongs the patience so long at most: a first pull of a large volume takes this long, a peer
/// that trickles bytes is to gain no more by it.
pub const PULL_PROGRESS_MAX: Duration = Duration::from_mins(1);

/// First pause after a failed pull, doubled with each further one.
pub const PULL_RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause between pulls from one peer: what it alone has arrives that late at most.
pub const PULL_RETRY_MAX: Duration = Duration::from_secs(4);

/// Pulls in a row that bring nothing of what was announced before the peer is held to be failing: one that
/// merely lags announces what is long known here, now and then.
pub const PULLS_FRUITLESS_MAX: u32 = 3;

/// Heads remembered of each author, so that a peer that lags is not pulled from for nothing.
pub const KNOWN_HEADS_MAX: usize = 64;

/// Authors in one announcement: every incarnation that ever wrote, 36 bytes each.
pub const AUTHORS_MAX: usize = crate::limits::INCARNATIONS_MAX;

/// How long arrivals and local changes are gathered while pulls run: imperceptible, and enough for a burst
/// of peers' commits on a LAN.
pub const GATHER: Duration = Duration::from_millis(20);

/// Longest pause after a commit or rebase that others may follow: even on a slow disk a change is on its way
/// within about a second.
pub const GATHER_MAX: Duration = Duration::from_secs(1);

/// First pause after a failed commit or rebase, doubled with each further one.
pub const COMMIT_RETRY_MIN: Duration = Duration::from_millis(100);

/// Longest pause after failed commits: a full disk is noticed to have room again that late at most.
pub const COMMIT_RETRY_MAX: Duration = Duration::from_secs(10);

/// Announcements of heads to one peer keep this distance.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(20);

/// Heads and holdings are told again after this, to a peer that has not told the same since: nothing else
/// would tell it again that it lacks something.
pub const ANNOUNCE_REPEAT: Duration = Duration::from_secs(10);

/// Announcements of holdings to one peer keep this distance.
pub const HOLDINGS_INTERVAL: Duration = Duration::from_millis(50);

/// An unanswered question for holdings is put to another peer after this.
pub const HOLDINGS_PATIENCE: Duration = Duration::from_secs(2);

/// Questions for holdings under way at once: each answer may be some 170 KB.
pub const HOLDINGS_ASKS_MAX: usize = 8;

/// First pause after a peer did not give what it announced, doubled with each further time.
pub const HOLDINGS_RETRY_MIN: Duration = Duration::from_millis(500);

/// Longest such pause.
pub const HOLDINGS_RETRY_MAX: Duration = Duration::from_mins(1);

/// A link on which we sent nothing for so long gets a ping.
pub const PING_AFTER: Duration = Duration::from_secs(1);

/// A link on which nothing was heard for so long is closed: five lost heartbeats.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// If this machine acts later than this on a timer, it was itself asleep: silence proves nothing.
pub const ASLEEP: Duration = Duration::from_secs(1);

/// Links at once. Volumes of more nodes still converge, since everything is relayed.
pub const LINKS_MAX: usize = 64;

/// Two links in opposite directions that come up within this time are two nodes dialling each other at once;
/// later, the newer link means that the peer has lost the older.
pub const CROSSING: Duration = Duration::from_secs(3);

/// Dials at once: sockets, and half-open links at the other side.
pub const DIALS_MAX: usize = 16;

/// Addresses remembered; static ones are kept in preference.
pub const ADDRESSES_MAX: usize = 1024;

/// The node with the higher id dials so much later, so that two that find each other at once seldom cross.
pub const DIAL_DEFERENCE: Duration = Duration::from_millis(200);

/// First pause after a failed dial, doubled with each further one.
pub const DIAL_RETRY_MIN: Duration = Duration::from_millis(250);

/// Longest pause for the first [`DIAL_EAGER_MAX`] attempts: how late a healed network is noticed at most.
pub const DIAL_RETRY_MAX: Duration = Duration::from_secs(3);

/// Failed dials of one address until it is tried only each [`DIAL_RETRY_SELDOM`]: some minutes' worth.
pub const DIAL_EAGER_MAX: u32 = 200;

/// Pause for an address that has not answered for long, or belongs to another volume.
pub const DIAL_RETRY_SELDOM: Duration = Duration::from_mins(1);

/// Failed dials after which an address that discovery or a peer gave is forgotten: who is back is found
/// anew. Addresses given by the owner never are.
pub const DIALS_FORGET: u32 = 260;

/// A link that lived shorter than this counts as a failed dial, so that a peer that closes at once is not
/// dialled in a tight loop.
pub const LINK_SETTLED: Duration = Duration::from_secs(5);

/// Peers told to one peer: as many as it may have links.
pub const PEERS_TOLD_MAX: usize = LINKS_MAX;

/// Messages about peers to one peer keep this distance.
pub const PEERS_INTERVAL: Duration = Duration::from_secs(1);

/// Rounds that one event may set off: what an effect changes is weighed once more. More is a bug, which must
/// not hang the node.
pub(super) const ROUNDS_MAX: usize = 64;
