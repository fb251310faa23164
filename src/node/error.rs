//! Why a node does not start, or ends: sentences for its owner.

use crate::filesystem::FsError;
use crate::fuse::MountError;
use crate::root::RootError;
use delugefs_metadata_repo::RepositoryError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a node does not start, or ended with an error.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The root cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The mount point cannot be used, or mounting failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The names on this disk cannot be read.
    #[error("the names in {path} cannot be used: {source}{}", advice(source))]
    Names {
        /// The repository.
        path: PathBuf,
        /// Why.
        source: RepositoryError,
    },
    /// The bytes on this disk cannot be read.
    #[error("the contents on this disk cannot be used: {0}")]
    Contents(#[from] delugefs_torrent::store::StoreError),
    /// The journal cannot be read.
    #[error("the journal of {root} cannot be used: {source}")]
    Journal {
        /// The root.
        root: PathBuf,
        /// Why.
        source: FsError,
    },
    /// The port is taken.
    #[error(
        "cannot listen at {address}: {source}; choose another address of this host, or a free port, with --listen ADDR:PORT"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// `--create`, and there is such a volume.
    #[error(
        "there is a volume {name} on this network already ({found}); join it without --create, or choose another --id"
    )]
    VolumeExists {
        /// Its name.
        name: String,
        /// Which.
        found: String,
    },
    /// Several volumes of one name.
    #[error("there are several volumes called {name}: {found}; say which with --id {name}#PREFIX")]
    SeveralVolumes {
        /// The name.
        name: String,
        /// All of them.
        found: String,
    },
    /// Nodes cannot be looked for.
    #[error(transparent)]
    Discovery(#[from] delugefs_discovery::DiscoveryError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// It had to end.
    #[error("{0}")]
    Stopped(String),
}

/// What to do about names that cannot be used.
fn advice(source: &RepositoryError) -> &'static str {
    match source {
        RepositoryError::Missing(_) => {
            "; was this disk's folder copied while its node was running? Then copy it again with the node stopped"
        }
        _ => "",
    }
}

impl NodeError {
    /// An error of the system with what was tried.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
