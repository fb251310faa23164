//! Signs of life while history is walked and a pack's objects are listed: that takes minutes where both are long, and a
//! client that hears nothing gives up.

use super::pktline;
use super::{ExchangeError, request::FetchRequest};
use std::io::Write;
use std::time::{Duration, Instant};

/// Says at intervals how far the work has come: in side-band 2, or as an empty line of side-band 1 to a
/// client that wants no progress (as git's own `upload-pack` does).
pub(super) struct Progress<'a> {
    out: &'a mut dyn Write,
    every: Duration,
    said: Instant,
    is_wanted: bool,
}

impl<'a> Progress<'a> {
    /// To be begun within the answer's section `packfile`; what was written before goes out at once.
    pub(super) fn begin(
        out: &'a mut dyn Write,
        request: &FetchRequest,
        every: Duration,
    ) -> Result<Self, ExchangeError> {
        out.flush().map_err(ExchangeError::Connection)?;
        Ok(Self {
            out,
            every,
            said: Instant::now(),
            is_wanted: !request.no_progress,
        })
    }

    /// So many commits have been looked at.
    pub(super) fn walked(&mut self, commits: usize) -> Result<(), ExchangeError> {
        self.speak("walking commits", commits)
    }

    /// So many objects have been found.
    pub(super) fn listed(&mut self, objects: usize) -> Result<(), ExchangeError> {
        self.speak("listing objects", objects)
    }

    /// To be called often: speaks if it is time to.
    fn speak(&mut self, doing: &str, count: usize) -> Result<(), ExchangeError> {
        if self.said.elapsed() < self.every {
            return Ok(());
        }
        if self.is_wanted {
            let text = format!("\x02{doing}: {count}\r");
            pktline::data(self.out, text.as_bytes())?;
        } else {
            pktline::data(self.out, b"\x01")?;
        }
        self.out.flush().map_err(ExchangeError::Connection)?;
        self.said = Instant::now();
        Ok(())
    }
}
