//! Draws that a seed decides, and the seed.

/// xorshift64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % limit
    }
}

/// `SEED` of the environment.
pub fn asked_seed() -> Option<u64> {
    std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
}

/// The seed that was asked for, or one of this run.
pub fn seed() -> u64 {
    asked_seed().unwrap_or_else(|| u64::from(std::process::id()))
}
