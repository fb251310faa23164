//! A limit on bytes per second, shared by connections.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How much may be used at once after a pause, as time at the full rate: more would make bursts, less would
/// make many small waits.
const BURST: Duration = Duration::from_millis(50);

/// Longest single wait: a changed limit is noticed after it.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// A token bucket; without a limit it costs one lock.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes_per_second: Option<u64>,
    /// All that was allowed is used up to this time.
    paid_until: Option<Instant>,
}

impl RateLimit {
    /// No limit: `None`. A limit of 0 counts as 1.
    pub(crate) fn set(&self, bytes_per_second: Option<u64>) {
        let mut state = self.lock();
        state.bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        state.paid_until = None;
    }

    /// There is one.
    pub(crate) fn is_limited(&self) -> bool {
        self.lock().bytes_per_second.is_some()
    }

    /// Pays for so many bytes, and waits until they may pass. The wait of one payment is at most what the
    /// limit was when it began.
    pub(crate) async fn pay(&self, bytes: usize) {
        let until = self.lock().pay(bytes, Instant::now());
        while let Some(until) = until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.is_limited() {
                return;
            }
            tokio::time::sleep(left.min(WAIT_MAX)).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// When the bytes may pass; `None`: at once.
    fn pay(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let time = Duration::from_nanos(bytes as u64 * 1_000_000 / rate * 1000);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let from = self.paid_until.map_or(earliest, |paid| paid.max(earliest));
        self.paid_until = Some(from + time);
        self.paid_until.filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_rate_is_kept_after_a_burst() {
        let mut state = State {
            bytes_per_second: Some(1_000_000),
            paid_until: None,
        };
        let now = Instant::now();
        assert_eq!(state.pay(50_000, now), None);
        assert_eq!(
            state.pay(100_000, now),
            Some(now + Duration::from_millis(100))
        );
        let later = now + Duration::from_secs(10);
        assert_eq!(state.pay(50_000, later), None);
        assert_eq!(State::default().pay(1 << 40, now), None);
    }
}
