//! Extended attributes: kept in the entry, so that they travel and merge with it.

use super::state::State;
use super::{Filesystem, FsError, Inode, XattrMode};
use delugefs_core::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX};
use std::collections::BTreeMap;

/// Access lists would have to be obeyed, not only kept.
const REFUSED: &[u8] = b"system.";

/// Whose names only root sees.
const TRUSTED: &[u8] = b"trusted.";

/// What an attribute may be called (xattr(7)).
const TAKEN: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];

impl Filesystem {
    /// `getxattr`
    pub fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let state = self.lock();
        if name.starts_with(REFUSED) {
            return Err(FsError::NotSupported);
        }
        let mut attributes = state.names.node(inode)?.settled_entry()?.attributes;
        let value = attributes.xattrs.remove(name);
        value.ok_or(FsError::NoAttribute)
    }

    /// `listxattr`, for root (`privileged`) or anyone else.
    pub fn list_xattrs(&self, inode: Inode, privileged: bool) -> Result<Vec<Vec<u8>>, FsError> {
        let state = self.lock();
        let attributes = state.names.node(inode)?.settled_entry()?.attributes;
        let shown = |name: &Vec<u8>| privileged || !name.starts_with(TRUSTED);
        Ok(attributes.xattrs.into_keys().filter(shown).collect())
    }

    /// `setxattr`
    pub fn set_xattr(
        &self,
        inode: Inode,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        check_name(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(FsError::AttributeTooBig);
        }
        self.lock().change_xattrs(inode, |xattrs| {
            match (mode, xattrs.contains_key(name)) {
                (XattrMode::Create, true) => return Err(FsError::Exists),
                (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
                _ => xattrs.insert(name.to_vec(), value.to_vec()),
            };
            let bytes: usize = xattrs.iter().map(|(n, v)| n.len() + v.len()).sum();
            (bytes <= XATTRS_BYTES_MAX)
                .then_some(())
                .ok_or(FsError::NoSpace)
        })
    }

    /// `removexattr`
    pub fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), FsError> {
        self.lock().change_xattrs(inode, |xattrs| {
            let removed = xattrs.remove(name);
            removed.map(|_| ()).ok_or(FsError::NoAttribute)
        })
    }
}

fn check_name(name: &[u8]) -> Result<(), FsError> {
    let taken = TAKEN.iter().find(|prefix| name.starts_with(prefix));
    let prefix = taken.ok_or(FsError::NotSupported)?;
    if name.len() == prefix.len() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(FsError::Invalid);
    }
    Ok(())
}

impl State {
    fn change_xattrs(
        &mut self,
        inode: Inode,
        change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let now = self.now();
        self.change_attributes(inode, |attributes| {
            attributes.changed = now;
            change(&mut attributes.xattrs)
        })
    }
}
