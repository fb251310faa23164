//! What the owner is told of what goes on by itself: conflict copies, each by its path, and copies in sums.

use crate::cli::units::show_size;
use crate::sync_ext::lock;
use delugefs_core::budget::Budget;
use delugefs_core::change::Changes;
use delugefs_core::conflict::is_conflict_name;
use delugefs_core::entry::{Content, Kind};
use delugefs_core::ids::{EntryId, InfoHash, NodeId, TreeId};
use delugefs_metadata_repo::{Repository, RepositoryError, ViewDiff};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A line about copies at most so often, while there are more and more of them.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Nothing new for so long: that was all for now.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Disks named in one line.
const SOURCES_MAX: usize = 3;

/// A trouble that lasts is told again after this.
const TROUBLE_EVERY: Duration = Duration::from_secs(60);

/// Conflict copies named at once; a copied folder full of old ones is no news.
const CONFLICTS_MAX: usize = 10;

/// Contents that have arrived and were not told of yet.
#[derive(Debug, Default)]
pub(super) struct Copied {
    contents: usize,
    bytes: u64,
    from: BTreeSet<String>,
    since: Option<(Instant, Instant)>,
}

impl Copied {
    /// A content has arrived whole, from one of these disks.
    pub(super) fn add(&mut self, bytes: u64, from: impl IntoIterator<Item = String>, now: Instant) {
        self.contents += 1;
        self.bytes += bytes;
        self.from.extend(from);
        self.since = Some(self.since.map_or((now, now), |(first, _)| (first, now)));
    }

    /// What there is to tell now, once.
    pub(super) fn due(&mut self, now: Instant) -> Option<String> {
        let (first, last) = self.since?;
        if now < last + IDLE_AFTER && now < first + TELL_EVERY {
            return None;
        }
        let copied = std::mem::take(self);
        let what = match copied.contents {
            1 => "1 content".to_owned(),
            several => format!("{several} contents"),
        };
        let size = show_size(copied.bytes);
        Some(format!("copied {what}, {size}{}", copied.sources()))
    }

    fn sources(&self) -> String {
        let named: Vec<&str> = self.from.iter().take(SOURCES_MAX).map(|s| &**s).collect();
        match (named.len(), self.from.len() - named.len()) {
            (0, _) => String::new(),
            (_, 0) => format!(", from {}", named.join(", ")),
            (_, more) => format!(", from {} and {more} more", named.join(", ")),
        }
    }
}

/// What does not work for now, each kind told once and then rarely: most of it is tried again and again.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<&'static str, Instant>>);

impl Troubles {
    /// Something has failed.
    pub(super) fn tell(&self, kind: &'static str, sentence: &str) {
        let mut told = lock(&self.0);
        let recently = |at: &Instant| at.elapsed() < TROUBLE_EVERY;
        if told.get(kind).is_some_and(recently) {
            tracing::debug!("{kind}: {sentence}");
            return;
        }
        told.insert(kind, Instant::now());
        tracing::error!("{kind}: {sentence}");
    }

    /// It works.
    pub(super) fn over(&self, kind: &'static str) {
        if lock(&self.0).remove(kind).is_some() {
            tracing::info!("{kind}: works again");
        }
    }

    /// Whether something does not work now.
    pub(super) fn any(&self) -> bool {
        !lock(&self.0).is_empty()
    }
}

/// What peers do wrong or complain of: each kind told once for each peer and then rarely, since a hostile one must not
/// fill the log.
#[derive(Debug)]
pub(super) struct Complaints {
    started: Instant,
    lines: Mutex<Budget<(NodeId, &'static str)>>,
}

impl Complaints {
    /// Nothing told yet.
    pub(super) fn new(started: Instant) -> Self {
        let lines = Mutex::new(Budget::new(1, TROUBLE_EVERY));
        Self { started, lines }
    }

    /// A peer has done something of a kind.
    pub(super) fn tell(&self, peer: NodeId, kind: &'static str, sentence: &str) {
        if lock(&self.lines).take((peer, kind), self.started.elapsed()) {
            tracing::warn!("{sentence}");
        } else {
            tracing::debug!("{sentence}");
        }
    }
}

/// An error with what is behind it, as far as it does not say so itself.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

/// Tells of conflict copies that a merge or another node has brought.
pub(super) fn tell_conflicts(
    repository: &Repository,
    tree: TreeId,
    diff: &ViewDiff,
) -> Result<(), RepositoryError> {
    let copies = conflict_copies(&diff.changes);
    if copies.is_empty() {
        return Ok(());
    }
    let paths = paths(repository, tree, diff, &copies)?;
    for path in paths.iter().take(CONFLICTS_MAX) {
        tracing::warn!("conflict: two have changed the same file; one version is now {path}");
    }
    if paths.len() > CONFLICTS_MAX {
        let more = paths.len() - CONFLICTS_MAX;
        tracing::warn!("conflict: {more} more such files");
    }
    Ok(())
}

fn conflict_copies(changes: &Changes) -> BTreeSet<EntryId> {
    let is_new = |(id, change): (EntryId, &delugefs_core::change::Change)| {
        let had = change.before.as_ref();
        let had = had.is_some_and(|before| is_conflict_name(&before.name));
        let has = change.after.as_ref();
        let has = has.is_some_and(|after| is_conflict_name(&after.name));
        (has && !had).then_some(id)
    };
    changes.iter().filter_map(is_new).collect()
}

/// Paths of entries that differ: every directory above them differs, too.
fn paths(
    repository: &Repository,
    tree: TreeId,
    diff: &ViewDiff,
    wanted: &BTreeSet<EntryId>,
) -> Result<Vec<String>, RepositoryError> {
    let changed: BTreeMap<EntryId, TreeId> = diff.directories.iter().copied().collect();
    let mut found = Vec::new();
    let mut folders = vec![(tree, String::new())];
    while let Some((tree, path)) = folders.pop() {
        for listed in repository.directory(tree)? {
            let below = format!("{path}/{}", listed.name);
            if wanted.contains(&listed.entry.id) {
                found.push(below.clone());
            }
            if let Some(tree) = changed.get(&listed.entry.id) {
                folders.push((*tree, below));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Walks the names until a path of each of these contents is found, or there are no more names.
pub(super) fn paths_of(
    repository: &Repository,
    tree: TreeId,
    mut wanted: BTreeSet<InfoHash>,
) -> Result<BTreeMap<InfoHash, String>, RepositoryError> {
    let mut found = BTreeMap::new();
    let mut folders = vec![(tree, String::new())];
    while let (false, Some((tree, path))) = (wanted.is_empty(), folders.pop()) {
        for listed in repository.directory(tree)? {
            let below = match path.as_str() {
                "" => listed.name.to_string(),
                path => format!("{path}/{}", listed.name),
            };
            if let Kind::File(file) = &listed.entry.kind
                && let Content::Swarm(content) = &file.content
                && wanted.remove(&content.info_hash)
            {
                found.insert(content.info_hash, below.clone());
            }
            folders.extend(listed.tree.map(|tree| (tree, below)));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn copies_are_told_when_it_is_quiet() {
        let start = Instant::now();
        let mut copied = Copied::default();
        assert_eq!(copied.due(start), None);
        copied.add(1 << 20, ["d1".to_owned()], start);
        copied.add(1 << 20, ["d1".to_owned()], start);
        assert_eq!(copied.due(start), None);
        let told = copied.due(start + SECOND);
        assert_eq!(told.as_deref(), Some("copied 2 contents, 2.0 MiB, from d1"));
        assert_eq!(copied.due(start + 60 * SECOND), None, "only once");
    }

    #[test]
    fn an_endless_stream_is_told_now_and_then() {
        let start = Instant::now();
        let mut copied = Copied::default();
        let mut lines = 0;
        for step in 0..300 {
            let now = start + step * SECOND / 10;
            copied.add(1, ["a", "b", "c", "d"].map(String::from), now);
            if let Some(line) = copied.due(now) {
                lines += 1;
                assert!(line.ends_with(", from a, b, c and 1 more"), "{line}");
            }
        }
        assert_eq!(lines, 2);
    }
}
