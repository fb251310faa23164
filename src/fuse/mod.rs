//! The FUSE skin over [`crate::filesystem`], mounting and unmounting: the only place that knows fuser.
//!
//! Each request of the kernel is one call of the filesystem and one reply. What has to be waited for is awaited
//! by a task that answers later, so that the threads that read requests never wait for the network. The kernel
//! caches names, attributes and bytes for long; what another node changes is invalidated by a thread that
//! nothing waits for.
//!
//! Nothing here survives the process: a mount left behind by a killed one fails with ENOTCONN, which a process beside
//! it sees to (`watcher`), and is taken away at the next start.

mod answers;
mod connection;
mod convert;
mod errno;
mod mount;
mod notify;
mod point;
mod skin;
mod waits;
mod watcher;

pub use mount::{Mount, MountError, MountOptions};
pub use notify::Invalidator;
pub use point::{PointError, let_go_of_the_dead, prepare};
pub use watcher::{COMMAND as WATCHER_COMMAND, watch_over_mount};

pub use convert::Owners;
