//! What a mount shows, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Paths below the mount.
pub type Tree = BTreeMap<String, Thing>;

pub const XATTR: &str = "user.chaos";

#[derive(Clone, PartialEq, Eq)]
pub struct Thing {
    /// Of a file; of a symbolic link an arrow and its target; of a directory none.
    pub body: Option<Vec<u8>>,
    /// `None` where nothing is said of it.
    pub mode: Option<u32>,
    pub xattr: Option<Vec<u8>>,
}

impl Thing {
    pub fn version(&self) -> Option<&[u8]> {
        self.body.as_deref()
    }

    pub fn file(bytes: &[u8]) -> Self {
        Self {
            body: Some(bytes.to_owned()),
            mode: None,
            xattr: None,
        }
    }
}

impl std::fmt::Debug for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = self.body.as_ref().map(Vec::len);
        let start = self.body.as_ref().map(|body| &body[..body.len().min(24)]);
        let start = start.map(String::from_utf8_lossy);
        let mode = self.mode.map(|mode| format!("{mode:o}"));
        let xattr = &self.xattr;
        write!(f, "{length:?} bytes {start:?} mode {mode:?} {xattr:?}")
    }
}

/// Everything below a mount, read to its end.
pub fn tree(mount: &Path) -> io::Result<Tree> {
    let mut found = Tree::new();
    let mut folders = vec![mount.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(mount).unwrap();
            let name = name.to_string_lossy().into_owned();
            let thing = thing(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            if thing.body.is_none() {
                folders.push(path);
            }
            found.insert(name, thing);
        }
    }
    Ok(found)
}

fn thing(path: &Path) -> io::Result<Thing> {
    let stat = fs::symlink_metadata(path)?;
    let body = if stat.is_dir() {
        None
    } else if stat.is_symlink() {
        Some(link(&fs::read_link(path)?))
    } else {
        Some(fs::read(path)?)
    };
    let mut value = [0; 64];
    let xattr = match rustix::fs::lgetxattr(path, XATTR, &mut value[..]) {
        Ok(length) => Some(value[..length].to_vec()),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::PERM) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Thing {
        body,
        mode: (!stat.is_symlink()).then(|| stat.permissions().mode() & 0o7777),
        xattr,
    })
}

/// How the ledger calls a symbolic link.
pub fn link(target: &Path) -> Vec<u8> {
    format!("-> {}", target.display()).into_bytes()
}

/// Names below a folder of a mount, without reading anything: directories, and the others.
pub fn names(mount: &Path, below: &str) -> io::Result<(Vec<String>, Vec<String>)> {
    let (mut inner, mut leaves) = (Vec::new(), Vec::new());
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries = fs::read_dir(mount.join(&folder))?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                inner.push(name.clone());
                folders.push(name);
            } else {
                leaves.push(name);
            }
        }
    }
    Ok((inner, leaves))
}
