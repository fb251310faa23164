//! `delugefs scrub`: asks for a pass and shows how far it is, until it is over.

use crate::control::{ControlError, Request, ScrubReport, ask};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// How often the node is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Asks the node of a root for a pass, and waits for its end and for the repairs that can be made now. Interrupting it
/// leaves the pass going.
pub fn scrub(root: &Path) -> Result<ScrubReport, ControlError> {
    let mut report: ScrubReport = ask(root, &Request::Scrub)?;
    let pass = report.pass;
    let mut screen = std::io::stderr();
    let shows = screen.is_terminal();
    while !report.is_over(pass) {
        if shows {
            // who cannot see it has closed the terminal
            let _ = write!(screen, "\r\x1b[K{}", report.progress());
        }
        std::thread::sleep(ASK_EVERY);
        report = ask(root, &Request::ScrubProgress)?;
    }
    if shows {
        let _ = write!(screen, "\r\x1b[K");
    }
    Ok(report)
}
