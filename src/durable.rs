//! Small files that are replaced whole, and names.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file by one with these bytes. After a power cut there is the old one or the new one, whole: a file that
/// is renamed before it is synced may have its length and none of its bytes then. Blocks for a sync.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)
}

/// Makes the name of a file survive a power cut, as it is now. Blocks for a sync.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
