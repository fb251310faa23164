//! What one round of decisions collects: effects, and when to look again.

use super::event::{Effect, LinkId, Message, Now};
use std::time::Duration;

/// The present moment, the effects so far, and the earliest time at which something becomes due.
#[derive(Debug)]
pub(super) struct Agenda {
    pub(super) now: Now,
    pub(super) effects: Vec<Effect>,
    pub(super) wake: Option<Now>,
}

impl Agenda {
    pub(super) fn new(now: Now) -> Self {
        Self {
            now,
            effects: Vec::new(),
            wake: None,
        }
    }

    /// Whether `at` has come; if not, the machine is woken then.
    pub(super) fn due(&mut self, at: Now) -> bool {
        if at <= self.now {
            return true;
        }
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        false
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn send(&mut self, link: LinkId, message: Message) {
        self.push(Effect::Send { link, message });
    }
}

/// The pause after the `failures`-th failure in a row: doubling from `min` to `max`.
pub(super) fn pause(failures: u32, min: Duration, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    min.saturating_mul(1 << doublings).min(max)
}

/// Spreads retries, so that nodes that failed together do not try together. `SplitMix64`.
#[derive(Debug, Clone)]
pub(super) struct Jitter(pub(super) u64);

impl Jitter {
    /// Three to five quarters of a time.
    pub(super) fn spread(&mut self, time: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let thousandths = 750 + (mixed % 501) as u32;
        time * thousandths / 1000
    }
}
