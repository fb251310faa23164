//! The three-way merge of trees, by entry id.
//!
//! Total: any two sets of changes of one base merge, without asking anyone. Deterministic and commutative:
//! every node that merges the same changes gets the same tree, whichever it calls left. Linear in what
//! changed, not in the size of the tree. What one side wrote and the other has not seen is never dropped: it
//! keeps its name or gets one of its own (see [`crate::conflict`]).
//!
//! In this order, each step relying on those before:
//!
//! 0. `links`: what one side has shared is so for both, see [`crate::links`];
//! 1. `settle`: each entry by itself, field by field; what a link leads to lives;
//! 2. `structure`: a removed directory that something lives in lives again; moves that made a cycle are undone;
//! 3. `names`: two entries of one name: directories are united, equal files become one, else one is renamed. Before that, a copy
//!    that was given a name of its own goes if it turns out to equal what took the name.
//!
//! The result is a tree if the base and both sides are: each entry's parent is a living directory, the root is
//! above all, and names are unique in their directory.

mod links;
mod names;
mod overlay;
mod settle;
mod structure;

#[cfg(test)]
pub(crate) mod desk;
#[cfg(test)]
mod graph_tests;
#[cfg(test)]
mod links_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::change::Changes;
use crate::entry::Placed;
use crate::ids::EntryId;
use crate::name::Name;
use overlay::Overlay;

/// Version of [`merge`] as a function, recorded in the volume: nodes that merge differently would never agree.
pub const MERGE_VERSION: u32 = 1;

/// The tree that both sides of a merge started from.
///
/// The root's place has no meaning: its parent and name are left as they are found.
pub trait Tree {
    /// Why the tree cannot be read.
    type Error;

    /// An entry and its place. Has to answer for the entries of both sides' changes, for the directories that
    /// these are or were in, and for the ancestors of all these. For any other id, `None` will do.
    fn place(&self, id: EntryId) -> Result<Option<Placed>, Self::Error>;

    /// The entry of that name in a directory.
    fn child(&self, directory: EntryId, name: &Name) -> Result<Option<Placed>, Self::Error>;

    /// All entries of a directory. Asked only when two directories of the base have come to one place.
    fn children(&self, directory: EntryId) -> Result<Vec<Placed>, Self::Error>;
}

/// Merges two sets of changes. Both, and the result, are relative to `base`.
pub fn merge<T: Tree>(base: &T, left: &Changes, right: &Changes) -> Result<Changes, T::Error> {
    let (aligned, [left, right]) = links::align(base, [left, right])?;
    let mut tree = Overlay::new(base);
    let losers = settle::settle(&mut tree, &left, &right)?;
    aligned.touch(&mut tree);
    links::revive(&mut tree)?;
    let copies = settle::add_copies(&mut tree, losers)?;
    structure::revive(&mut tree)?;
    structure::untangle(&mut tree)?;
    names::tell_apart(&mut tree, copies, [&left, &right])?;
    links::list(&mut tree)?;
    Ok(aligned.undo(tree.into_changes()))
}
