//! Limits on what may grow, each with its unit and reason.

/// Earlier contents remembered in a file's descriptor: enough to fall back to after a power cut.
pub const PREVIOUS_MAX: usize = 4;

/// Bytes of a node's label: it ends up in file names of conflict copies.
pub const LABEL_BYTES_MAX: usize = 64;

/// Bytes of a volume's name.
pub const VOLUME_NAME_BYTES_MAX: usize = 64;

/// Bytes of a symbolic link's target (`PATH_MAX` of Linux, less its NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;

/// Bytes of one extended attribute's name (`XATTR_NAME_MAX` of Linux).
pub const XATTR_NAME_BYTES_MAX: usize = 255;

/// Bytes of one extended attribute's value (`XATTR_SIZE_MAX` of Linux).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// Bytes of all extended attributes of one entry: they travel in each version of its descriptor.
pub const XATTRS_BYTES_MAX: usize = 256 * 1024;

/// Names that one file may be given on one node: all are listed, 16 bytes each, in each version of its descriptor.
pub const LINKS_MAX: usize = 1024;

/// Names that one file may come to have by what many nodes give it.
pub const LINKS_MERGED_MAX: usize = 64 * LINKS_MAX;

/// Largest `inline_max` a volume may have, in bytes: larger files are better served by the swarm.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Incarnations of one volume, all that ever were: author chains in a repository or an announcement, holdings logs,
/// members. Each costs every node some hundred bytes; a volume has a few for each disk, so that this is far more
/// than it needs, and a whole announcement (36 bytes each) is well within a frame of the link.
pub const INCARNATIONS_MAX: usize = 4096;
