//! Extended attributes: kept in the entry, so that they travel and merge with it.

use super::state::{Plan, State};
use super::{Filesystem, FsError, Inode, XattrMode};
use delugefs_core::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX};
use std::collections::BTreeMap;

/// Access lists would have to be obeyed, not only kept.
const REFUSED: &[u8] = b"system.";

impl Filesystem {
    /// `getxattr`
    pub fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let state = self.lock();
        if name.starts_with(REFUSED) {
            return Err(FsError::NotSupported);
        }
        let xattrs = &state.names.node(inode)?.entry.attributes.xattrs;
        xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    /// `listxattr`
    pub fn list_xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>, FsError> {
        let state = self.lock();
        let xattrs = &state.names.node(inode)?.entry.attributes.xattrs;
        Ok(xattrs.keys().cloned().collect())
    }

    /// `setxattr`
    pub fn set_xattr(
        &self,
        inode: Inode,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        if name.starts_with(REFUSED) {
            return Err(FsError::NotSupported);
        }
        if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
            return Err(FsError::Invalid);
        }
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

impl State {
    fn change_xattrs(
        &mut self,
        inode: Inode,
        change: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        let mut target = self.target(inode)?;
        change(&mut target.entry.attributes.xattrs)?;
        target.entry.attributes.changed = self.now();
        self.apply(Plan::of(vec![target]))
    }
}
