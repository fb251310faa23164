//! What the parts of a running node share.

use super::inbox::Input;
use super::links::Links;
use super::members::Members;
use super::names::Witnessed;
use super::pins::PinFile;
use super::places::OneEach;
use super::rests::RestFile;
use super::story::{Complaints, Troubles};
use crate::bytes::replica::Replica;
use crate::cli::Options;
use crate::filesystem::{Filesystem, Invalidation};
use crate::link::Credentials;
use crate::link::message::{Hello, PROTOCOL};
use crate::net::Gate;
use crate::publishing::Publishing;
use crate::root::{Layout, NodeFile, Standing, VolumeName};
use crate::sync_ext::lock;
use delugefs_core::budget::Budget;
use delugefs_core::ids::{IncarnationId, InfoHash, NodeId};
use delugefs_core::settings::Settings;
use delugefs_core::time::Timestamp;
use delugefs_metadata_repo::Repository;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Where invalidations go: the mount's notifier, or nowhere for a storage node.
pub(super) type Invalidate = Box<dyn Fn(Vec<Invalidation>) + Send + Sync>;

/// One running node.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) layout: Layout,
    pub(super) file: NodeFile,
    pub(super) repository: Repository,
    pub(super) filesystem: Filesystem,
    pub(super) replica: Arc<Replica>,
    pub(super) members: Arc<Mutex<Members>>,
    /// What is known of the members has changed and is to be written down.
    pub(super) members_changed: Notify,
    /// Held while what is pending moves into the view: in between it is in neither, and the reaper must not look.
    pub(super) names_moving: Mutex<()>,
    pub(super) links: Links,
    pub(super) pins: PinFile,
    /// Who rests on what.
    pub(super) rests: RestFile,
    pub(super) credentials: Credentials,
    pub(super) gate: Arc<Gate>,
    pub(super) listen: SocketAddr,
    pub(super) inbox: mpsc::Sender<Input>,
    pub(super) settings: Arc<Mutex<Settings>>,
    pub(super) invalidate: Mutex<Option<Invalidate>>,
    /// Changes wait to be committed.
    pub(super) pending: Arc<Notify>,
    /// `delugefs stop`: what is under way is finished first, for which the loops still run.
    pub(super) told_to_stop: CancellationToken,
    /// The loops end.
    pub(super) stop: CancellationToken,
    pub(super) ended: CancellationToken,
    /// A peer has no names either: a new volume, most likely.
    pub(super) no_names: CancellationToken,
    pub(super) stopped_by: Mutex<Option<String>>,
    pub(super) troubles: Troubles,
    /// Shared with the filesystem.
    pub(super) publishing: Publishing,
    /// Commits made for each author whose chain was found to fork, since this process started.
    pub(super) witnessed: Mutex<Witnessed>,
    /// Peers that are being asked for the proof that this node has written more than it knows.
    pub(super) asked_for_proof: Arc<OneEach<NodeId>>,
    /// How often each peer may have this disk checked.
    pub(super) doubts: Mutex<Budget<NodeId>>,
    /// What peers do wrong.
    pub(super) complaints: Complaints,
    /// The highest position of its holdings log that anyone has proved this node to have signed.
    pub(super) heard: watch::Sender<u64>,
    /// Paths of files that are damaged on this disk, for messages.
    pub(super) damaged_names: Mutex<BTreeMap<InfoHash, String>>,
    pub(super) started: Instant,
}

impl Shared {
    /// Hands something to the node's one loop; waits while it is behind.
    pub(super) async fn tell(&self, input: Input) {
        // a loop that has ended wants to know nothing more
        let _ = self.inbox.send(input).await;
    }

    /// This node's volume.
    pub(super) fn volume(&self) -> &VolumeName {
        &self.file.identity.volume
    }

    /// This node.
    pub(super) fn node(&self) -> NodeId {
        self.file.identity.node
    }

    /// This node's incarnation.
    pub(super) fn incarnation(&self) -> IncarnationId {
        self.file.identity.keys.incarnation()
    }

    /// The volume's settings now.
    pub(super) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// How this node introduces itself.
    pub(super) fn hello(&self) -> Hello {
        let space = self.replica.space();
        Hello {
            protocol: PROTOCOL,
            volume: self.volume().id,
            volume_name: self.volume().name.clone(),
            node: self.node(),
            incarnation: self.incarnation(),
            label: self.file.label.clone(),
            site: self.file.site.clone(),
            listen_port: self.listen.port(),
            addresses: Vec::new(),
            capacity: space.total,
            free: space.free,
            mounted: self.options.mount.is_some(),
        }
    }

    /// Paths within the volume of files that have these contents, as far as there are any. Blocks, while it walks the
    /// names if it must.
    pub(super) fn paths_of(&self, contents: &BTreeSet<InfoHash>) -> BTreeMap<InfoHash, String> {
        let mut paths = BTreeMap::new();
        for content in contents {
            if let Some(names) = self.filesystem.path_of_content(content) {
                let names: Vec<_> = names.iter().map(ToString::to_string).collect();
                paths.insert(*content, names.join("/"));
            }
        }
        let unknown = contents
            .iter()
            .filter(|content| !paths.contains_key(*content));
        let unknown: BTreeSet<InfoHash> = unknown.copied().collect();
        if !unknown.is_empty() {
            let tree = self.filesystem.base().tree;
            match super::story::paths_of(&self.repository, tree, unknown) {
                Ok(found) => paths.extend(found),
                Err(error) => tracing::warn!("cannot look which files those are: {error}"),
            }
        }
        paths
    }

    /// Ends the node, with an error.
    pub(super) fn stop_because(&self, sentence: String) {
        tracing::error!("stopping: {sentence}");
        lock(&self.stopped_by).get_or_insert(sentence);
        self.stop.cancel();
    }

    /// Ends the node, which cannot go on as who it is; the next start makes of it what its standing says.
    pub(super) fn stop_and_stand(&self, standing: Standing, sentence: &str) {
        match NodeFile::mark(&self.layout, standing) {
            Ok(()) => self.stop_because(sentence.to_owned()),
            Err(error) => self.stop_because(format!("{sentence} (but: {error})")),
        }
    }

    /// An invariant does not hold: the node becomes read-only for the volume, until it is started again, and goes on
    /// serving what it has.
    pub(super) fn stop_publishing(&self, reason: impl Into<String>) {
        self.publishing.stop(reason);
    }

    /// Tells the kernel what to forget.
    pub(super) fn invalidate(&self, invalidations: Vec<Invalidation>) {
        if let Some(invalidate) = lock(&self.invalidate).as_ref() {
            invalidate(invalidations);
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The wall clock.
pub(super) fn wall_clock() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().cast_signed(),
        nanoseconds: since.subsec_nanos(),
    }
}
