//! Stub until the skin lands.
use crate::filesystem::{Filesystem, Invalidation};
use std::path::{Path, PathBuf};
/// E
#[derive(Debug, thiserror::Error)]
#[error("e")]
pub struct MountError;
/// O
pub struct MountOptions {
    /// p
    pub path: PathBuf,
    /// s
    pub source: PathBuf,
    /// a
    pub allow_other: bool,
}
/// M
pub struct Mount;
/// I
#[derive(Clone)]
pub struct Invalidator;
impl Invalidator {
    /// s
    pub fn send(&self, _: Vec<Invalidation>) {}
}
impl Mount {
    /// c
    pub fn check(_: &Path) -> Result<(), MountError> {
        Ok(())
    }
    /// s
    pub fn start(
        _: Filesystem,
        _: &MountOptions,
        _: tokio::runtime::Handle,
    ) -> Result<Self, MountError> {
        Err(MountError)
    }
    /// i
    pub fn invalidator(&self) -> Invalidator {
        Invalidator
    }
    /// u
    pub async fn unmounted(&self) {}
    /// u
    pub async fn unmount(self) {}
}
