//! Where history is cut: Git's file `shallow` (gitrepository-layout(5)), which stock git goes by, too.
//!
//! A commit that it names counts as one without parents. What lies below may be here or not; a head that does not
//! lead up to such a commit has no place in what is left of history, and is not shown.

use crate::error::{Result, git, io};
use crate::repository::sync_file;
use gix::ObjectId;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

const FILE: &str = "shallow";

/// The commits at which history is cut; none where it is whole.
pub(crate) fn read(repository: &gix::Repository) -> Result<HashSet<ObjectId>> {
    let commits = repository.shallow_commits();
    let commits = commits.map_err(git("read where history is cut"))?;
    Ok(commits.map_or_else(HashSet::new, |commits| commits.iter().copied().collect()))
}

/// Cuts history at these commits and nowhere else, durably. They have to be durable themselves.
pub(crate) fn write(path: &Path, commits: &HashSet<ObjectId>) -> Result<()> {
    if commits.is_empty() {
        return remove(path);
    }
    let mut lines: Vec<String> = commits.iter().map(|id| format!("{id}\n")).collect();
    lines.sort_unstable();
    let (temporary, name) = (path.join(format!("{FILE}.lock")), path.join(FILE));
    fs::write(&temporary, lines.concat()).map_err(io("write where history is cut"))?;
    sync_file(&temporary)?;
    fs::rename(&temporary, &name).map_err(io("write where history is cut"))?;
    sync_file(path)
}

/// History is whole.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path.join(FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io("remove where history is cut")(error))
        }
        _ => sync_file(path),
    }
}
