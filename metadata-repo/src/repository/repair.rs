//! What a crash may leave behind, removed before Git's library looks at it.

use super::files::{AUTHORS, LEFT};
use crate::error::{Result, io};
use delugefs_core::ids::IncarnationId;
use std::fs::{self, DirEntry};
use std::path::Path;

/// What was found that a power cut leaves, not a mere crash.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Something was empty, or a reference was none.
    pub(super) any: bool,
    /// Authors whose reference was.
    pub(super) authors: Vec<IncarnationId>,
}

/// Removes lock files, temporary files, packs without an index, empty objects, and torn references; an empty loose
/// object would block its content for ever, a torn reference the repository.
pub(super) fn clean(path: &Path) -> Result<Damage> {
    let mut damage = Damage::default();
    each(path, &mut |entry| remove_if(entry, is_lock(entry)))?;
    let folders = ["refs", "refs/heads", AUTHORS, "refs/delugefs", LEFT];
    for below in folders {
        each(&path.join(below), &mut |entry| {
            let torn = is_torn_reference(entry)?;
            damage.any |= torn;
            if let Some(author) = author_of(entry).filter(|_| torn && below == AUTHORS) {
                damage.authors.push(author);
            }
            remove_if(entry, torn || is_lock(entry))
        })?;
    }
    let objects = path.join("objects");
    for below in [objects.clone(), objects.join("pack")] {
        each(&below, &mut |entry| remove_if(entry, is_temporary(entry)))?;
    }
    each(&objects.join("pack"), &mut |entry| {
        remove_if(entry, is_without_index(entry)?)
    })?;
    each(&objects, &mut |entry| {
        if entry.file_name().len() != 2 {
            return Ok(());
        }
        each(&entry.path(), &mut |object| {
            let empty = is_empty_file(object)?;
            damage.any |= empty;
            remove_if(object, empty || is_temporary(object))
        })
    })?;
    Ok(damage)
}

fn each(path: &Path, act: &mut dyn FnMut(&DirEntry) -> Result<()>) -> Result<()> {
    let doing = || format!("read {}", path.display());
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(doing())(error)),
    };
    for entry in entries {
        act(&entry.map_err(io(doing()))?)?;
    }
    Ok(())
}

fn author_of(entry: &DirEntry) -> Option<IncarnationId> {
    entry.file_name().to_str()?.parse().ok()
}

fn is_lock(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().ends_with(b".lock")
}

fn is_temporary(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.as_encoded_bytes();
    name.starts_with(b".tmp") || name.starts_with(b"tmp_") || name.ends_with(b".keep")
}

/// A pack, or what goes beside one, whose index is not there yet, or no longer.
fn is_without_index(entry: &DirEntry) -> Result<bool> {
    let path = entry.path();
    let of_pack = ["pack", "mtimes", "rev", "bitmap"];
    let is_of_pack = path
        .extension()
        .is_some_and(|extension| of_pack.iter().any(|it| extension == *it));
    let index = path.with_extension("idx");
    let doing = || format!("look for {}", index.display());
    Ok(is_of_pack && !index.try_exists().map_err(io(doing()))?)
}

fn is_empty_file(entry: &DirEntry) -> Result<bool> {
    let facts = entry
        .metadata()
        .map_err(io(format!("stat {}", entry.path().display())))?;
    Ok(facts.is_file() && facts.len() == 0)
}

/// A reference without an object's name in it: a power cut leaves it empty, or as long as it was and with zeros.
fn is_torn_reference(entry: &DirEntry) -> Result<bool> {
    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
    if !is_file || is_lock(entry) {
        return Ok(false);
    }
    let path = entry.path();
    let bytes = fs::read(&path).map_err(io(format!("read {}", path.display())))?;
    let is_whole =
        bytes.starts_with(b"ref: ") || gix::ObjectId::from_hex(bytes.trim_ascii_end()).is_ok();
    Ok(!is_whole)
}

fn remove_if(entry: &DirEntry, condition: bool) -> Result<()> {
    let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
    if condition && is_file {
        let path = entry.path();
        fs::remove_file(&path).map_err(io(format!("remove {}", path.display())))?;
    }
    Ok(())
}
