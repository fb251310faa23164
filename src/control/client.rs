//! The side of the `delugefs status | where | set | stop` commands.

use super::mounts::path_within;
use super::{LINE_BYTES_MAX, Reply, Request, find_mount};
use crate::root::Layout;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a command waits for a node's reply; a stop finishes what is under way first.
const REPLY_WAIT: Duration = Duration::from_mins(10);

/// Why a command got no report.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no delugefs is running with --root {0}")]
    NotRunning(PathBuf),
    /// The path is not below a mount of ours.
    #[error("{0} is not in a mounted DelugeFS volume of this machine")]
    NotMounted(PathBuf),
    /// The socket broke.
    #[error("cannot talk to the node at {root}: {source}")]
    Io {
        /// The node's root.
        root: PathBuf,
        /// What the socket said.
        source: io::Error,
    },
    /// The node answered with a sentence.
    #[error("{0}")]
    Refused(String),
}

/// The root of the node that serves a mount.
pub fn root_of_mount(mount: &Path) -> Result<PathBuf, ControlError> {
    Ok(mount_of(mount)?.0)
}

/// The root of the node that serves a path, and the path's bytes within the volume.
pub fn mount_of(path: &Path) -> Result<(PathBuf, Vec<u8>), ControlError> {
    let not_mounted = || ControlError::NotMounted(path.to_owned());
    let full = resolve_parent(path).map_err(|_| not_mounted())?;
    let mounted = find_mount(&full).ok().flatten().ok_or_else(not_mounted)?;
    let within = path_within(&mounted, &full);
    Ok((mounted.root, within))
}

/// Absolute, with links resolved in all but the last component, which may itself be a link.
fn resolve_parent(path: &Path) -> io::Result<PathBuf> {
    let full = std::path::absolute(path)?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(full),
    }
}

/// Sends one request and waits for its report.
pub fn ask<T: DeserializeOwned>(root: &Path, request: &Request) -> Result<T, ControlError> {
    let path = Layout::new(root).control();
    let stream =
        UnixStream::connect(&path).map_err(|_| ControlError::NotRunning(root.to_owned()))?;
    let failed = |source| ControlError::Io {
        root: root.to_owned(),
        source,
    };
    match exchange(&stream, request).map_err(failed)? {
        Reply::Failed(sentence) => Err(ControlError::Refused(sentence)),
        Reply::Done(report) => serde_json::from_value(report).map_err(|e| failed(e.into())),
    }
}

fn exchange(mut stream: &UnixStream, request: &Request) -> io::Result<Reply> {
    stream.set_read_timeout(Some(REPLY_WAIT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = Vec::new();
    // to its end, which after a stop is the end of the node's process
    stream.take(LINE_BYTES_MAX as u64).read_to_end(&mut reply)?;
    if reply.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&reply)?)
}
