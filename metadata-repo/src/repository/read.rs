//! Reading trees.

use super::{Repository, files, object_id};
use crate::diff::{ViewDiff, sides};
use crate::directory::{Child, Directory};
use crate::error::{Result, malformed};
use crate::view::settings_of;
use delugefs_core::entry::{Content, ContentRef, Entry, Kind};
use delugefs_core::ids::{BlobId, IncarnationId, TreeId};
use delugefs_core::name::Name;
use delugefs_core::settings::Settings;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name there.
    pub name: Name,
    /// The entry.
    pub entry: Entry,
    /// Its descriptor or node; `None` for directories.
    pub blob: Option<BlobId>,
    /// A directory's tree.
    pub tree: Option<TreeId>,
}

impl From<Child> for Listed {
    fn from(child: Child) -> Self {
        let Child { item, name, meta } = child;
        let id = item.id.as_slice();
        Self {
            name,
            entry: meta.entry.clone(),
            blob: (!item.is_tree).then(|| BlobId::from_slice(id)).flatten(),
            tree: item.is_tree.then(|| TreeId::from_slice(id)).flatten(),
        }
    }
}

impl Repository {
    /// The entries of a directory, in name order.
    pub fn directory(&self, tree: TreeId) -> Result<Vec<Listed>> {
        let session = self.session();
        let directory = Directory::open(&session, object_id(tree.as_bytes()))?;
        Ok(directory
            .children(&session)?
            .into_iter()
            .map(Listed::from)
            .collect())
    }

    /// The entry of a directory's own tree; of a view's tree, the root.
    pub fn own_entry(&self, tree: TreeId) -> Result<Entry> {
        let session = self.session();
        let directory = Directory::open(&session, object_id(tree.as_bytes()))?;
        Ok(directory.meta.entry.clone())
    }

    /// What differs between the trees of two views.
    pub fn diff(&self, from: TreeId, to: TreeId) -> Result<ViewDiff> {
        if from == to {
            return Ok(ViewDiff::default());
        }
        let session = self.session();
        let [from, to] = [from, to].map(|tree| object_id(tree.as_bytes()));
        Ok(sides(&session, from, to)?.into_view_diff())
    }

    /// The raw `info` dictionary of a file in the swarm, by its descriptor.
    pub fn info(&self, blob: BlobId) -> Result<Vec<u8>> {
        let decoded = self.session().decoded(object_id(blob.as_bytes()))?;
        decoded
            .info
            .ok_or_else(|| malformed(blob, "no file in the swarm"))
    }

    /// Tells of every file in the swarm of a view's tree, with its descriptor.
    pub fn contents(&self, tree: TreeId, tell: &mut dyn FnMut(ContentRef, BlobId)) -> Result<()> {
        let mut trees = vec![tree];
        while let Some(tree) = trees.pop() {
            for listed in self.directory(tree)? {
                trees.extend(listed.tree);
                if let (Kind::File(file), Some(blob)) = (&listed.entry.kind, listed.blob)
                    && let Content::Swarm(content) = file.content
                {
                    tell(content, blob);
                }
            }
        }
        Ok(())
    }

    /// The settings of the view.
    pub fn settings(&self) -> Result<Settings> {
        settings_of(&self.session(), object_id(self.view().tree.as_bytes()))
    }

    /// Up to which record an author's journal is in its newest commit; `None` without one.
    pub fn sequence(&self, incarnation: IncarnationId) -> Result<Option<u64>> {
        let session = self.session();
        match files::reference(session.git(), &files::author_name(incarnation))? {
            Some(commit) => Ok(session.commit(commit)?.sequence),
            None => Ok(None),
        }
    }
}
