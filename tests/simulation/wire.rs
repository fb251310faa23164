//! A pull between two repositories: the real exchange over a stream in this process, which may break.

use delugefs_core::ids::IncarnationId;
use delugefs_metadata_repo::Repository;
use delugefs_metadata_repo::exchange::{
    self, Anew, ExchangeError, PullOptions, PullProgress, Pulled, ServeOptions,
};
use std::cell::Cell;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What hangs fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Ends after so many bytes, as a broken connection does.
struct Breaking<R> {
    inner: R,
    left: Option<u64>,
}

impl<R: Read> Read for Breaking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = match self.left {
            Some(0) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(left) => buffer.len().min(left as usize),
            None => buffer.len(),
        };
        let count = self.inner.read(&mut buffer[..most])?;
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
        Ok(count)
    }
}

/// Pulls all that `from` has; breaks after so many bytes. While it arrives, another pull brings what `overtaking` has.
pub(crate) fn pull(
    to: &Repository,
    own: IncarnationId,
    from: &Repository,
    (breaks_after, overtaking): (Option<u64>, Option<Repository>),
) -> Result<Pulled, ExchangeError> {
    let waiting = Cell::new(overtaking);
    let overtake = |_| {
        if let Some(other) = waiting.take() {
            // what comes of it is found out by whoever looks next
            let _ = pull(to, own, &other, (None, None));
        }
    };
    let breaking = (breaks_after, &overtake as &dyn Fn(_));
    over(from, own, breaking, |read, write, options| {
        exchange::pull(to, read, write, options)
    })
}

/// Fetches all that `from` has, beside a past that is older.
pub(crate) fn fetch_anew(
    to: &Repository,
    own: IncarnationId,
    from: &Repository,
) -> Result<Anew, ExchangeError> {
    over(from, own, (None, &|_| ()), |read, write, options| {
        exchange::fetch_anew(to, read, write, options)
    })
}

fn over<T>(
    from: &Repository,
    own: IncarnationId,
    (breaks_after, progress): (Option<u64>, &dyn Fn(PullProgress)),
    run: impl FnOnce(Breaking<UnixStream>, UnixStream, &PullOptions<'_>) -> T,
) -> T {
    let (ours, theirs) = UnixStream::pair().unwrap();
    for end in [&ours, &theirs] {
        end.set_read_timeout(Some(TIMEOUT)).unwrap();
        end.set_write_timeout(Some(TIMEOUT)).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let write = theirs.try_clone().unwrap();
            let options = ServeOptions::default();
            // a client that goes away is no news
            let _ = exchange::serve(from, theirs, write, &options);
        });
        let options = PullOptions {
            own: Some(own),
            progress,
            ..PullOptions::default()
        };
        let write = ours.try_clone().unwrap();
        let read = Breaking {
            inner: ours,
            left: breaks_after,
        };
        run(read, write, &options)
    })
}
