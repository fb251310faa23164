//! The kernel's table of mounts, `/proc/self/mountinfo` (see proc(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type of our mounts, as the kernel shows it.
pub(crate) const OURS: &str = "fuse.delugefs";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The filesystem's device number, as `major:minor`.
    pub(crate) device: String,
    /// Where.
    pub(crate) point: PathBuf,
    /// The filesystem's type: of our mounts, [`OURS`].
    pub(crate) kind: String,
    /// What: of our mounts, the node's root.
    pub(crate) source: PathBuf,
}

/// The uppermost mount on exactly this folder.
pub(crate) fn mounted_on(point: &Path) -> io::Result<Option<Mounted>> {
    Ok(all()?.into_iter().rfind(|mounted| mounted.point == point))
}

/// All mounts that this process sees, in the order in which they were made.
pub(crate) fn all() -> io::Result<Vec<Mounted>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse(table: &[u8]) -> Vec<Mounted> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    Some(Mounted {
        device: String::from_utf8(fields.get(2)?.to_vec()).ok()?,
        point: unescape(fields.get(4)?),
        kind: String::from_utf8(fields.get(separator + 1)?.to_vec()).ok()?,
        source: unescape(fields.get(separator + 2)?),
    })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let octal = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
90 22 0:50 / /mnt/a\\040b rw,nosuid,nodev shared:7 master:2 - fuse.delugefs /srv/r\\134x rw,user_id=0\n\
91 22 0:51 / /mnt/a\\040b rw - tmpfs tmpfs rw\n\
garbage\n";

    #[test]
    fn fields_are_found_and_unescaped() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 3);
        let ours = &mounts[1];
        assert_eq!(ours.device, "0:50");
        assert_eq!(ours.point, Path::new("/mnt/a b"));
        assert_eq!(ours.kind, "fuse.delugefs");
        assert_eq!(ours.source, Path::new("/srv/r\\x"));
    }

    #[test]
    fn the_root_is_always_mounted() {
        assert!(mounted_on(Path::new("/")).unwrap().is_some());
        assert!(mounted_on(Path::new("/proc/nowhere")).unwrap().is_none());
    }
}
