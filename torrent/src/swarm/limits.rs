//! Limits of the engine, each with its unit and reason.

use std::time::Duration;

/// Bytes of one block: what every client asks for, and the most it may ask (BEP 3).
pub(crate) const BLOCK_BYTES: u32 = 16 * 1024;

/// Bytes of a frame other than a bitfield: a block with its header, or a piece of metadata with its dictionary.
pub(crate) const FRAME_BYTES_MAX: usize = BLOCK_BYTES as usize + 512;

/// Pieces in one content: above this a content has larger pieces, so that its bitfield stays below 16.5 KiB.
pub(crate) const PIECES_MAX: u32 = 131_072;

/// Requests that we let a peer have unanswered at a time, told as `reqq` (BEP 10): 8 MiB of blocks.
pub(crate) const REQUESTS_QUEUED: usize = 500;

/// Requests beyond which a peer is cut off: twice what it was told, for what is under way while cancels travel.
pub(crate) const REQUESTS_QUEUED_MAX: usize = 2 * REQUESTS_QUEUED;

/// Requests a peer may have from us before its speed is known.
pub(crate) const PIPELINE_START: usize = 16;

/// Requests a slow peer keeps at least: one under way while the next is prepared.
pub(crate) const PIPELINE_MIN: usize = 4;

/// Time that a peer's queue of our requests should bridge, beyond its latency: longer makes seeks wait.
pub(crate) const PIPELINE_TIME: Duration = Duration::from_millis(40);

/// A peer that owes blocks and sends none for this long gives them back for others to ask.
pub(crate) const STALL: Duration = Duration::from_secs(2);

/// A block that somebody waits for is asked from a second peer after this long.
pub(crate) const DUPLICATE_AFTER: Duration = Duration::from_millis(250);

/// Peers that are asked for the same block at a time.
pub(crate) const DUPLICATES_MAX: u8 = 2;

/// Bytes of pieces being assembled, in all contents.
pub(crate) const ASSEMBLY_BYTES_ALL: u64 = 256 * 1024 * 1024;

/// Bytes of pieces being assembled, per content; at least two pieces.
pub(crate) const ASSEMBLY_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Peers of one content, connected or being connected.
pub(crate) const PEERS_MAX: usize = 64;

/// Connections of all contents that came to us: beyond, newcomers are closed.
pub(crate) const INCOMING_MAX: usize = 1024;

/// Active contents beyond which those without work are let go at once: each holds a file, and often a connection.
pub(crate) const CONTENTS_AT_EASE: usize = 256;

/// How long a content without work stays active then: whoever has just come has the time to say what it wants.
pub(crate) const IDLE_CROWDED: Duration = Duration::from_millis(200);

/// The owner is told again of a banned peer after this.
pub(crate) const BAN_TOLD_AGAIN: Duration = Duration::from_hours(1);

/// Peers that may ask us for blocks of one content at a time.
pub(crate) const UNCHOKED_MAX: usize = 8;

/// How long an unchoked peer keeps its place while others wait for one.
pub(crate) const ROTATE: Duration = Duration::from_secs(10);

/// How long a peer that we dialled may have nothing while nobody has what is wanted.
pub(crate) const EMPTY_TIME: Duration = Duration::from_secs(15);

/// Attempts to connect at a time, per content.
pub(crate) const DIALS_MAX: usize = 8;

/// A connection must be established within this time.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Both handshakes must be complete within this time.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// First pause before an address is tried again; doubles up to [`BACK_OFF_MAX`].
pub(crate) const BACK_OFF_MIN: Duration = Duration::from_millis(100);

/// Longest pause before an address is tried again.
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Addresses remembered per content.
pub(crate) const ADDRESSES_MAX: usize = 512;

/// How often sources are asked while something is wanted.
pub(crate) const SOURCES_EVERY: Duration = Duration::from_secs(3);

/// How often a content with work looks at its clock: granularity of stalls, waits and back-off.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// How often a content without work looks at its clock.
pub(crate) const TICK_IDLE: Duration = Duration::from_secs(1);

/// A connection that has been silent for this long gets a keep-alive (BEP 3 suggests two minutes).
pub(crate) const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// A peer from which no whole message came for this long is gone, or holds us with half of one.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(150);

/// A peer that takes none of our bytes for this long is gone.
pub(crate) const SEND_TIME: Duration = Duration::from_mins(1);

/// Batches of messages of all peers that wait for a content's decisions: beyond, peers are not read from.
pub(crate) const INBOX_BATCHES_MAX: usize = 64;

/// Messages waiting to be sent to a peer, blocks apart: a peer that lets more gather is too slow to keep.
pub(crate) const OUTBOX_MESSAGES_MAX: usize = 16 * 1024;

/// Bytes read from a connection at a time while it is busy.
pub(crate) const RECEIVE_BYTES: usize = 256 * 1024;

/// Bytes read from disk at a time to answer requests for consecutive blocks.
pub(crate) const SERVE_BYTES: u32 = 512 * 1024;

/// Blocks handed to the connection in one write.
pub(crate) const SEND_BLOCKS: usize = 8;

/// Disk operations of all contents at a time, each on a thread of the blocking pool.
pub(crate) const DISK_OPERATIONS_MAX: usize = 16;

/// Bytes of pieces handed to one disk operation; what is needed sooner waits for one of them.
pub(crate) const DISK_BATCH_BYTES: usize = 1024 * 1024;

/// Disk operations of one content's pieces at a time: verifying is processor work.
pub(crate) const DISK_BATCHES_MAX: usize = 2;

/// Verified pieces are made to survive a restart at least so often.
pub(crate) const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Times that a content is fetched anew where its pieces on disk turned out to be damaged.
pub(crate) const REPAIRS_MAX: u32 = 3;

/// Times that bans of one content end because there is news of its peers: a liar costs one wrong piece each time.
pub(crate) const FORGIVEN_MAX: u32 = 16;

/// How often a shutdown looks whether all contents are let go.
pub(crate) const SHUTDOWN_POLL: Duration = Duration::from_millis(10);

/// First read-ahead of a reader, in bytes; doubles while reads are sequential.
pub(crate) const AHEAD_BYTES_MIN: u64 = 1024 * 1024;

/// Largest read-ahead of a reader, in bytes.
pub(crate) const AHEAD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Wrong pieces that one peer alone has delivered before it is banned.
pub(crate) const WRONG_PIECES_MAX: u32 = 1;

/// Contents remembered as unavailable; the oldest is forgotten first.
pub(crate) const UNAVAILABLE_MAX: usize = 65_536;

/// How long a newcomer has to become interested: transmission looks every ten seconds whom to be interested in.
pub(crate) const INTEREST_TIME: Duration = Duration::from_secs(30);
