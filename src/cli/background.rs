//! `--background`: the node runs on in a process of its own; the command returns once it is up.
//!
//! The child tells how its start went by one line on its standard output, which is a pipe to the parent:
//! `ready`, or the sentence that says what is wrong.

use crate::root::Layout;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Set for the child, so that it knows who it is.
const CHILD: &str = "DELUGEFS_BACKGROUND_CHILD";

/// The word that says that the node is up.
const READY: &str = "ready";

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

/// Starts this program again with the same words, and waits until it is up. Its log goes to `ROOT/log`.
pub fn start(root: &Path) -> io::Result<Result<(), String>> {
    std::fs::create_dir_all(root)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(Layout::new(root).log())?;
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let child = Command::new(std::env::current_exe()?)
        .args(words)
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    wait(child)
}

fn wait(mut child: Child) -> io::Result<Result<(), String>> {
    let Some(output) = child.stdout.take() else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    match line.trim() {
        READY => Ok(Ok(())),
        "" => Ok(Err(format!("the node ended at once ({})", child.wait()?))),
        sentence => {
            child.wait()?;
            Ok(Err(sentence.to_owned()))
        }
    }
}
