//! `--background`: the node runs on in a process of its own; the command returns once it is up.
//!
//! The child tells how its start goes by lines on its standard output, which is a pipe to the parent: notes for
//! whoever waits, then `ready`, or the sentence that says what is wrong.

use crate::root::{self, Layout, RootError};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Set for the child, so that it knows who it is.
const CHILD: &str = "DELUGEFS_BACKGROUND_CHILD";

/// The word that says that the node is up.
const READY: &str = "ready";

/// Before a sentence that does not end the start.
const NOTE: &str = "note: ";

/// Why a node does not run in the background.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// The root cannot be used.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What it has to say would go nowhere.
    #[error("cannot write the log {path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused.
    #[error("cannot start in the background: {0}")]
    Start(#[from] io::Error),
    /// The node has said why.
    #[error("{0}")]
    Failed(String),
    /// It has not.
    #[error("the node ended at once ({0})")]
    Died(ExitStatus),
}

/// This process is the one that stays in the background.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Detaches the child from the terminal and the folder that it was started from.
pub fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    std::env::set_current_dir("/")
}

/// Tells the waiting parent how the start went.
pub fn report(outcome: Result<(), &str>) {
    let line = outcome.err().unwrap_or(READY).replace('\n', " ");
    // a parent that is gone does not wait
    let _ = writeln!(io::stdout(), "{line}");
}

/// Tells whoever started this process in the background and still waits for it, if so it is.
pub fn note(sentence: &str) {
    if is_child() {
        // a parent that has gone, or has heard that all is ready, reads no more
        let _ = writeln!(io::stdout(), "{NOTE}{sentence}");
    }
}

/// Starts this program again with the same words, and waits until it is up. Its log goes to `ROOT/log`; a folder
/// that cannot become a root is left as it is.
pub fn start(root: &Path) -> Result<(), BackgroundError> {
    root::check_folder(root)?;
    let log = Layout::new(root).log();
    let opened = std::fs::create_dir_all(root)
        .and_then(|()| File::options().create(true).append(true).open(&log));
    let output = opened.map_err(|source| BackgroundError::Log { path: log, source })?;
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let child = Command::new(std::env::current_exe()?)
        .args(words)
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(output)
        .spawn()?;
    wait(child)
}

fn wait(mut child: Child) -> Result<(), BackgroundError> {
    let Some(output) = child.stdout.take() else {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe).into());
    };
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.strip_prefix(NOTE) {
            Some(note) => eprintln!("delugefs: {note}"),
            None if line == READY => return Ok(()),
            None => {
                child.wait()?;
                return Err(BackgroundError::Failed(line));
            }
        }
    }
    Err(BackgroundError::Died(child.wait()?))
}
