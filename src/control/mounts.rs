//! From a path to the node that serves it: the mount's source is the node's root.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The file system type of our mounts, as the kernel shows it.
const FILESYSTEM_TYPE: &str = "fuse.delugefs";

/// One of our mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The root of the node that serves it.
    pub root: PathBuf,
}

/// The mount of ours that a path is in.
pub fn find_mount(path: &Path) -> io::Result<Option<Mounted>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let inside = |mounted: &Mounted| path.starts_with(&mounted.mount);
    Ok(parse_mountinfo(&table).into_iter().rfind(inside))
}

/// Our mounts in a text of the form of `/proc/self/mountinfo` (see proc(5)).
fn parse_mountinfo(table: &[u8]) -> Vec<Mounted> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mounted> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let separator = fields.iter().position(|field| *field == b"-")?;
    let (kind, source) = (fields.get(separator + 1)?, fields.get(separator + 2)?);
    if *kind != FILESYSTEM_TYPE.as_bytes() {
        return None;
    }
    Some(Mounted {
        mount: unescape(fields.get(4)?),
        root: unescape(source),
    })
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The bytes of a path below a mount, components joined by `/`.
pub(super) fn path_within(mounted: &Mounted, path: &Path) -> Vec<u8> {
    let below = path.strip_prefix(&mounted.mount).unwrap_or(path);
    below.as_os_str().as_bytes().to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn finds_our_mounts_only() {
        let table = b"36 35 98:0 / / rw,noatime master:1 - ext3 /dev/root rw\n\
            40 36 0:50 / /home/a\\040b/store rw,nosuid - fuse.delugefs /mnt/d\\0401/.db rw,user_id=0\n\
            garbage\n41 36 0:51 / /x rw - fuse.sshfs /mnt rw\n";
        let mounts = parse_mountinfo(table);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].mount, Path::new("/home/a b/store"));
        assert_eq!(mounts[0].root, Path::new("/mnt/d 1/.db"));
        assert_eq!(
            path_within(&mounts[0], Path::new("/home/a b/store/x/y")),
            b"x/y"
        );
    }
}
