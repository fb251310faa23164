//! How names move between the mount and the repository: commit and rebase. They block, and know of no loop, clock or
//! network, so that the simulation of whole nodes runs them as they are.

use crate::filesystem::{self as fs, BaseView, Filesystem, FsError, Group, Invalidation, Listed};
use crate::sync_ext::lock;
use delugefs_core::change::Changes;
use delugefs_core::entry::Entry;
use delugefs_core::ids::{CommitId, IncarnationId, TreeId};
use delugefs_core::settings::Settings;
use delugefs_core::time::Timestamp;
use delugefs_metadata_repo::signature::Signer;
use delugefs_metadata_repo::{Authoring, Repository, RepositoryError, Today, View, ViewDiff};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Why the names could not move on.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Git or the disk under it.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The mount's side.
    #[error(transparent)]
    Filesystem(#[from] FsError),
}

impl NamesError {
    /// Whether the disk was full.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Repository(error) => error.is_no_space(),
            Self::Filesystem(error) => matches!(error, FsError::NoSpace),
        }
    }
}

/// What moving names needs of a node, and tells it.
pub trait Mover {
    /// The names that are committed.
    fn repository(&self) -> &Repository;
    /// The names as the mount shows them.
    fn filesystem(&self) -> &Filesystem;
    /// Held while what is pending moves into the view: in between it is in neither.
    fn names_moving(&self) -> &Mutex<()>;
    /// Whose chain goes on: who has its key.
    fn signer(&self) -> &dyn Signer;
    /// The node's label.
    fn label(&self) -> &str;
    /// This node's wall clock.
    fn now(&self) -> Timestamp;
    /// What a step of the view means for the bytes here.
    fn follow(&self, diff: &ViewDiff);
    /// What the kernel has to forget.
    fn invalidate(&self, invalidations: Vec<Invalidation>);
    /// What others have brought into the view, whose tree this is.
    fn brought(&self, tree: TreeId, diff: &ViewDiff) -> Result<(), RepositoryError>;
    /// The view has moved: settings travel with the names.
    fn learn_settings(&self) -> Result<(), RepositoryError>;
}

/// Commits what is pending.
pub fn commit(node: &dyn Mover) -> Result<(), NamesError> {
    let _moving = lock(node.names_moving());
    let filesystem = node.filesystem();
    let Some(group) = filesystem.take_group() else {
        return Ok(());
    };
    let view = match author(node, &group, Besides::Nothing) {
        Ok(view) => view,
        Err(error) => {
            filesystem.return_group();
            return Err(error.into());
        }
    };
    filesystem.committed(base_view(&view))?;
    node.follow(&node.repository().diff(group.base.tree, view.tree)?);
    Ok(())
}

/// Commits what is pending, merges the heads, and applies the new view to the mount.
pub fn rebase(node: &dyn Mover) -> Result<(), NamesError> {
    // the bulk of it without the namespace's lock
    commit(node)?;
    rebase_with(node, Besides::Nothing)
}

/// Changes the volume's settings.
pub fn set(node: &dyn Mover, settings: &Settings) -> Result<(), NamesError> {
    rebase_with(node, Besides::Settings(settings))
}

/// Commits that this node has one side of a fork, if it shows that side and nobody has built on it; whether it did. So
/// others get in this node's chain what they refuse as its author's.
pub fn witness(node: &dyn Mover, side: CommitId) -> Result<bool, NamesError> {
    rebase(node)?;
    let is_bare = heads(&node.filesystem().base()).contains(&side);
    if is_bare {
        rebase_with(node, Besides::Witness)?;
    }
    Ok(is_bare)
}

/// Commits that this node has what it shows.
pub fn attest(node: &dyn Mover) -> Result<(), NamesError> {
    rebase_with(node, Besides::Witness)
}

/// Goes over to the history that the others have, with what this node has made and changed beside it.
pub fn import(node: &dyn Mover, today: &Today) -> Result<(), NamesError> {
    // the bulk of it without the namespace's lock
    rebase(node)?;
    let _moving = lock(node.names_moving());
    let mut brought = None;
    let told = node.filesystem().go_over(
        |base, group| {
            let own = author_or_base(node, base, (group, Besides::Nothing))?;
            Ok::<_, NamesError>(step(node, base, (&own, &own))?.0)
        },
        |base| {
            let own = view_of(node.repository(), base)?;
            let view = import_beside(node, &own, today)?;
            let (diff, followed) = step(node, base, (&own, &view))?;
            brought = Some(followed);
            Ok(diff)
        },
    )?;
    tell(node, told, brought)?;
    // or a start after a power cut could begin from what was left
    Ok(node.filesystem().sync_names()?)
}

/// Shows what the heads show, also where the last run ended before it could. A new incarnation begins its chain with
/// what the one before it had on this disk: others may know that one's chain only as another disk has continued it.
pub fn catch_up(node: &dyn Mover, before: Option<IncarnationId>) -> Result<(), NamesError> {
    let repository = node.repository();
    let authors = repository.authors()?;
    let is_begun = authors.contains_key(&node.signer().incarnation());
    if let Some(before) = before.filter(|before| !is_begun && authors.contains_key(before)) {
        return rebase_with(node, Besides::Continuation(before));
    }
    match node.filesystem().base() == base_view(&repository.view()) {
        true => Ok(()),
        false => rebase(node),
    }
}

/// What a rebase commits besides what is pending.
#[derive(Clone, Copy)]
enum Besides<'a> {
    Nothing,
    Settings(&'a Settings),
    /// A first commit, which goes on from this incarnation's chain.
    Continuation(IncarnationId),
    /// That this node has the heads of its base.
    Witness,
}

/// What others have brought, and the tree that is shown then.
type Brought = (ViewDiff, TreeId);

fn rebase_with(node: &dyn Mover, besides: Besides<'_>) -> Result<(), NamesError> {
    let _moving = lock(node.names_moving());
    let mut brought = None;
    let mut failed = None;
    let told = node.filesystem().rebase(|base, group| {
        let own = author_or_base(node, base, (group, besides))?;
        let view = match node.repository().refresh_view() {
            // What has been committed must be told to the filesystem, or the next commit would start from a view
            // without it: the own commit is shown, the others' when there is room again.
            Err(error) if base_view(&own) != *base => {
                failed = Some(error);
                own.clone()
            }
            view => view?,
        };
        let (diff, followed) = step(node, base, (&own, &view))?;
        brought = Some(followed);
        Ok::<_, NamesError>(diff)
    })?;
    tell(node, told, brought)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// The view with this node's own commit of a group and whatever it commits besides; the base's, if there is nothing to
/// commit.
fn author_or_base(
    node: &dyn Mover,
    base: &BaseView,
    (group, besides): (Option<&Group>, Besides<'_>),
) -> Result<View, RepositoryError> {
    match (group, besides) {
        (Some(group), _) => author(node, group, besides),
        (None, Besides::Nothing) => view_of(node.repository(), base),
        (None, _) => author(node, &nothing(base), besides),
    }
}

/// The mount's step from a base over this node's own commit to a view.
fn step(
    node: &dyn Mover,
    base: &BaseView,
    (own, view): (&View, &View),
) -> Result<(fs::ViewDiff, Brought), RepositoryError> {
    let diff = node.repository().diff(base.tree, view.tree)?;
    // Before the names show: whoever sees one may read at once, and a content that is not known is an error.
    let brought = follow_both(node, base.tree, own.tree, view.tree)?;
    let step = fs::ViewDiff {
        view: base_view(view),
        changes: diff.changes,
        directories: diff.directories,
    };
    Ok((step, (brought, view.tree)))
}

/// Tells who has to know that the mount has moved.
fn tell(
    node: &dyn Mover,
    told: Vec<Invalidation>,
    brought: Option<Brought>,
) -> Result<(), NamesError> {
    node.invalidate(told);
    if let Some((brought, tree)) = brought {
        node.brought(tree, &brought)?;
    }
    Ok(node.learn_settings()?)
}

/// What is shown from then on: all that was pending is in `own`.
fn import_beside(node: &dyn Mover, own: &View, today: &Today) -> Result<View, RepositoryError> {
    let importing = Authoring {
        signer: node.signer(),
        label: node.label(),
        base: own,
        changes: &Changes::new(),
        settings: None,
        infos: &BTreeMap::new(),
        journal_sequence: 0,
        even_if_nothing: false,
        now: node.now(),
        durable: true,
        resolve: &|_| None,
    };
    node.repository().import(&importing, today)
}

/// A group without changes to the tree.
fn nothing(base: &BaseView) -> Group {
    Group {
        base: base.clone(),
        changes: Changes::new(),
        infos: BTreeMap::new(),
        places: BTreeMap::new(),
        sequence: 0,
    }
}

fn author(node: &dyn Mover, group: &Group, besides: Besides<'_>) -> Result<View, RepositoryError> {
    let repository = node.repository();
    let base = view_of(repository, &group.base)?;
    let (settings, before) = match besides {
        Besides::Nothing | Besides::Witness => (None, None),
        Besides::Settings(settings) => (Some(settings), None),
        Besides::Continuation(before) => (None, repository.sequence(before)?),
    };
    let authored = repository.author(&Authoring {
        signer: node.signer(),
        label: node.label(),
        base: &base,
        changes: &group.changes,
        settings,
        infos: &group.infos,
        journal_sequence: group.sequence.max(before.unwrap_or(0)),
        even_if_nothing: matches!(besides, Besides::Continuation(_) | Besides::Witness),
        now: node.now(),
        durable: true,
        resolve: &|directory| group.places.get(&directory).cloned(),
    })?;
    match authored.commit {
        Some(commit) => repository.view_of(&[commit].into()),
        None => Ok(base),
    }
}

/// What a rebase means for the bytes here: its own commit, then what others brought, which is answered. On an error
/// neither has been followed.
fn follow_both(
    node: &dyn Mover,
    base: TreeId,
    own: TreeId,
    view: TreeId,
) -> Result<ViewDiff, RepositoryError> {
    let repository = node.repository();
    let authored = repository.diff(base, own)?;
    let brought = repository.diff(own, view)?;
    for diff in [&authored, &brought] {
        node.follow(diff);
    }
    Ok(brought)
}

/// What the filesystem keeps of a view, to name it again after a restart.
pub fn base_view(view: &View) -> BaseView {
    let heads = view
        .heads
        .iter()
        .flat_map(|head| *head.as_bytes())
        .collect();
    BaseView {
        token: heads,
        tree: view.tree,
    }
}

/// The view that a base names.
fn view_of(repository: &Repository, base: &BaseView) -> Result<View, RepositoryError> {
    repository.view_of(&heads(base))
}

/// The heads that a base names.
pub fn heads(base: &BaseView) -> BTreeSet<CommitId> {
    base.token
        .chunks_exact(CommitId::LEN)
        .filter_map(CommitId::from_slice)
        .collect()
}

/// What is committed of a node's own doings, for the filesystem to start from.
pub struct Committed {
    /// Its newest commit, alone; the view, if it has none.
    pub base: BaseView,
    /// Up to which record the journal is in that commit.
    pub sequence: u64,
}

/// What is committed of a node's doings: by its incarnation, or, if that has no chain yet, by the one before it.
pub fn committed(
    repository: &Repository,
    (present, before): (IncarnationId, Option<IncarnationId>),
) -> Result<Committed, RepositoryError> {
    let authors = repository.authors()?;
    for incarnation in [Some(present), before].into_iter().flatten() {
        if let Some(own) = authors.get(&incarnation) {
            let sequence = repository.sequence(incarnation)?;
            return Ok(Committed {
                base: base_view(&repository.view_of(&[*own].into())?),
                sequence: sequence.unwrap_or(0),
            });
        }
    }
    Ok(Committed {
        base: base_view(&repository.view()),
        sequence: 0,
    })
}

/// The committed names, for the filesystem.
pub struct CommittedNames(pub Repository);

impl fs::Names for CommittedNames {
    fn directory(&self, tree: TreeId) -> Result<Vec<Listed>, FsError> {
        let listed = self
            .0
            .directory(tree)
            .map_err(|error| FsError::Damaged(error.to_string()))?;
        let ours = |listed: delugefs_metadata_repo::Listed| Listed {
            name: listed.name,
            entry: listed.entry,
            tree: listed.tree,
        };
        Ok(listed.into_iter().map(ours).collect())
    }

    fn root(&self, tree: TreeId) -> Result<Entry, FsError> {
        self.0
            .own_entry(tree)
            .map_err(|error| FsError::Damaged(error.to_string()))
    }
}
