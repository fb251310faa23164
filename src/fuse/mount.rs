//! One mount: from the checks to the unmounting.

use super::answers::Skin;
use super::connection::Switch;
use super::convert::Owners;
use super::notify::Invalidator;
use super::point::{self, PointError, SUBTYPE};
use super::waits::{Resizing, Waits};
use super::watcher::{Watcher, tell_unwatched};
use crate::filesystem::Filesystem;
use crate::mountinfo::mounted_on;
use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::io::Errno;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Threads that read requests. None of them ever waits for the network, so a few are enough.
const THREADS: usize = 4;

/// How much the kernel reads ahead, in KiB: as much as one request takes, so that a far seek into a file that
/// is elsewhere asks for little.
const READ_AHEAD_KIB: u32 = 1024;

/// How long open files may hold up unmounting.
const BUSY_WAIT: Duration = Duration::from_secs(3);

/// Between two tries to unmount.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// How long the session's threads may take to see that they are unmounted.
const END_WAIT: Duration = Duration::from_secs(5);

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// An empty folder.
    pub point: PathBuf,
    /// The node's root: shown as the mount's source, so that a mount leads to its node.
    pub root: PathBuf,
    /// Others than the user who mounts may use it, too.
    pub allow_other: bool,
    /// Nothing can be changed through it.
    pub read_only: bool,
    /// Whose files these are, to those who look.
    pub owners: Owners,
    /// The `delugefs` program, started again to watch over the mount. None: if this process is killed, the mount may
    /// hang until [`super::let_go_of_the_dead`].
    pub watcher: Option<PathBuf>,
}

/// Why nothing was mounted, or not unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Something has to be put right first.
    #[error(transparent)]
    Point(#[from] PointError),
    /// The mount's source has to be text.
    #[error("root {}: a root that is mounted needs a path in UTF-8", .0.display())]
    RootNotText(PathBuf),
    /// The system refused.
    #[error("cannot mount on {}: {error}", .point.display())]
    Mount {
        /// The mount point.
        point: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The system refused.
    #[error("cannot unmount {}: {error}", .point.display())]
    Unmount {
        /// The mount point.
        point: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A mounted filesystem. Dropped, it is unmounted at once; see [`Mount::unmount`] for the gentle way.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    /// The device number, as the table of mounts has it.
    device: Option<String>,
    switch: Option<Switch>,
    /// Never dropped: fuser takes a connection that has ended for a live one, and would unmount whatever is on
    /// the mount point by then. What is left is one descriptor.
    session: ManuallyDrop<BackgroundSession>,
    is_over: bool,
    invalidator: Invalidator,
    ended: watch::Receiver<bool>,
    /// Told to end when all else is over.
    _watcher: Option<Watcher>,
}

impl Mount {
    /// Mounts. The root's lock must be held: a mount of this root that is there is taken for a dead one.
    /// Blocks for some milliseconds. What has to be waited for is awaited on `runtime`, which must have time
    /// enabled and must outlive the mount.
    pub fn start(
        filesystem: Filesystem,
        options: MountOptions,
        runtime: Handle,
    ) -> Result<Self, MountError> {
        let (owners, watcher) = (options.owners, options.watcher.clone());
        let point = point::prepare(&options.point, &options.root, options.allow_other)?;
        let config = config(options)?;
        let failed = |error| MountError::Mount {
            point: point.clone(),
            error,
        };
        let (tell_end, ended) = watch::channel(false);
        let resizing = Resizing::default();
        let waits = Waits::start().map_err(failed)?;
        let skin = Skin {
            filesystem,
            runtime,
            waits,
            resizing: resizing.clone(),
            owners,
            ended: tell_end,
        };
        let session = Session::new(skin, &point, &config)
            .map_err(one_line)
            .map_err(failed)?;
        let invalidator = Invalidator::start(session.notifier(), resizing).map_err(failed)?;
        let session = session.spawn().map_err(failed)?;
        let device = mounted_on(&point)
            .ok()
            .flatten()
            .map(|mounted| mounted.device);
        if let Some(device) = &device {
            read_far_ahead(device);
        }
        let switch = device.as_deref().map_or_else(unlisted, Switch::of);
        let watcher = watcher.and_then(|program| watched(&program, &switch));
        Ok(Self {
            point,
            device,
            switch: switch.ok(),
            session: ManuallyDrop::new(session),
            is_over: false,
            invalidator,
            ended,
            _watcher: watcher,
        })
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Takes what the kernel has to forget.
    pub fn invalidator(&self) -> Invalidator {
        self.invalidator.clone()
    }

    /// Completes when it is not mounted any more, whoever has unmounted it.
    pub fn unmounted(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            // An error is: the skin is gone, and so is the mount.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Unmounts: waits some seconds for open files to be closed, then takes them away from whoever has them.
    /// Blocks. What was acknowledged stays so.
    pub fn unmount(mut self) -> Result<(), MountError> {
        let point = self.point.clone();
        let failed = |error| MountError::Unmount { point, error };
        let until = Instant::now() + BUSY_WAIT;
        let mut result = Ok(());
        while self.is_mounted() {
            let Err(error) = point::unmount(&self.point) else {
                break;
            };
            if is_busy(&error) && Instant::now() < until {
                std::thread::sleep(BUSY_RETRY);
                continue;
            }
            if is_busy(&error) {
                tracing::warn!(mount = %self.point.display(), "files are still open: unmounting all the same");
            }
            result = self.force().map_err(failed);
            break;
        }
        self.end();
        result
    }

    /// Whether the uppermost mount on the mount point is this one.
    fn is_mounted(&self) -> bool {
        let there = mounted_on(&self.point).ok().flatten();
        !*self.ended.borrow()
            && there.is_some_and(|there| Some(&there.device) == self.device.as_ref())
    }

    fn force(&self) -> io::Result<()> {
        let forced = point::force(&self.point);
        self.abort();
        forced
    }

    /// Ends what is on the way. Root has done so by force; who mounted as a user may do it here.
    fn abort(&self) {
        if let Some(switch) = &self.switch {
            // nothing is left to be done where it fails
            let _ = switch.abort();
        }
    }

    /// Waits for the session's threads, which end when the kernel has let go.
    fn end(&mut self) {
        self.invalidator.end();
        self.is_over = true;
        let until = Instant::now() + END_WAIT;
        while !self.session.guard.is_finished() && Instant::now() < until {
            std::thread::sleep(BUSY_RETRY);
        }
        if !self.session.guard.is_finished() {
            self.abort();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.is_mounted()
            && let Err(error) = self.force()
        {
            tracing::warn!(mount = %self.point.display(), %error, "cannot unmount");
        }
        self.end();
    }
}

/// Not in the table of mounts: gone already.
fn unlisted() -> io::Result<Switch> {
    Err(io::ErrorKind::NotFound.into())
}

fn watched(program: &Path, switch: &io::Result<Switch>) -> Option<Watcher> {
    let started = match switch {
        Ok(switch) => Watcher::start(program, switch).map_err(|error| error.to_string()),
        Err(error) => Err(format!("its connection cannot be ended: {error}")),
    };
    started.inspect_err(|reason| tell_unwatched(reason)).ok()
}

/// The helper's words end with empty lines.
fn one_line(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::new(error.kind(), error.to_string().trim().to_owned()),
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
        || error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

fn config(options: MountOptions) -> Result<Config, MountError> {
    let root = options.root.into_os_string().into_string();
    let root = root.map_err(|root| MountError::RootNotText(root.into()))?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(source(&root, rustix::process::geteuid().is_root())),
        // fuser keeps its own `Subtype` from the kernel when it mounts without the helper.
        MountOption::CUSTOM(format!("subtype={SUBTYPE}")),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
        // Other nodes may put such files there.
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    if options.read_only {
        config.mount_options.push(MountOption::RO);
    }
    if options.allow_other {
        config.acl = SessionACL::All;
    }
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    Ok(config)
}

/// The helper for users takes the source within a list of options.
fn source(root: &str, direct: bool) -> String {
    if direct {
        return root.into();
    }
    root.replace('\\', "\\\\").replace(',', "\\,")
}

/// Only root may; others keep the kernel's 128 KiB.
fn read_far_ahead(device: &str) {
    let setting = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(setting, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, "read-ahead stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_gets_a_source_that_it_cannot_take_apart() {
        assert_eq!(source("/a,b\\c", false), "/a\\,b\\\\c");
        assert_eq!(source("/a,b\\c", true), "/a,b\\c");
    }
}
