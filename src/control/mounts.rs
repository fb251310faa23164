//! From a path to the node that serves it: the mount's source is the node's root.

use crate::mountinfo;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    Ok(innermost(mountinfo::all()?, path))
}

fn innermost(mounts: Vec<mountinfo::Mounted>, path: &Path) -> Option<Mounted> {
    let inside = |mounted: &Mounted| path.starts_with(&mounted.mount);
    mounts.into_iter().filter_map(ours).rfind(inside)
}

fn ours(mounted: mountinfo::Mounted) -> Option<Mounted> {
    (mounted.kind == mountinfo::OURS).then_some(Mounted {
        mount: mounted.point,
        root: mounted.source,
    })
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
    fn a_path_belongs_to_the_last_mount_of_ours_that_it_is_in() {
        let mounted = |point: &str, kind: &str, source: &str| mountinfo::Mounted {
            device: "0:50".to_owned(),
            point: point.into(),
            kind: kind.to_owned(),
            source: source.into(),
        };
        let table = vec![
            mounted("/", "ext4", "/dev/sda1"),
            mounted("/store", mountinfo::OURS, "/disk1"),
            mounted("/store/inner", mountinfo::OURS, "/disk2"),
            mounted("/store/inner", "fuse.sshfs", "host:/"),
        ];
        let of = |path: &str| innermost(table.clone(), Path::new(path));
        assert_eq!(of("/elsewhere"), None);
        assert_eq!(of("/store/x").unwrap().root, Path::new("/disk1"));
        let inner = of("/store/inner/x/y").unwrap();
        assert_eq!(inner.root, Path::new("/disk2"));
        assert_eq!(path_within(&inner, Path::new("/store/inner/x/y")), b"x/y");
    }
}
