//! The filesystem in our words.

mod error;
mod ports;
mod skeleton;
mod types;

pub use error::FsError;
pub use ports::{
    BoxFuture, ContentReader, Contents, Events, Group, Listed, Names, Ports, Sealed, Source,
    ViewDiff,
};
pub use skeleton::Filesystem;
pub use types::{
    Allocation, Answer, Caller, Config, DirectoryEntry, FileType, HandleId, Inode, Invalidation,
    NewNode, OpenFlags, Opened, RenameMode, SealJob, SetAttributes, SetTime, Space, Stat, Status,
    Whence, XattrMode,
};
