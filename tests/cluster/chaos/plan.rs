//! What happens to the nodes, drawn from a seed.

use std::time::Duration;

/// Numbers that follow from a seed (SplitMix64).
#[derive(Clone)]
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// To which node, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Cut(usize),
    Heal(usize),
    /// It reaches only those that are not isolated.
    Isolate(usize),
    Join(usize),
    /// By SIGKILL; started again after this time.
    Kill(usize, Duration),
    /// By SIGSTOP; goes on after this time.
    Freeze(usize, Duration),
}

/// Faults with the pauses before them, as many as a time has room for.
pub fn faults(draw: &mut Draw, nodes: usize, time: Duration) -> Vec<(Duration, Fault)> {
    let mut plan = Vec::new();
    let mut spent = Duration::ZERO;
    while spent < time {
        let pause = Duration::from_millis(100 + draw.below(1_400));
        let node = draw.below(nodes as u64) as usize;
        let length = Duration::from_millis(100 + draw.below(1_500));
        let fault = match draw.below(10) {
            0 | 1 => Fault::Cut(node),
            2 | 3 => Fault::Heal(node),
            4 => Fault::Isolate(node),
            5 => Fault::Join(node),
            6 | 7 => Fault::Kill(node, length),
            _ => Fault::Freeze(node, length),
        };
        spent += pause;
        if matches!(fault, Fault::Kill(..) | Fault::Freeze(..)) {
            spent += length;
        }
        plan.push((pause, fault));
    }
    plan
}

/// How each node's clock is wrong; one at least is right.
pub fn clocks(draw: &mut Draw, nodes: usize) -> Vec<Option<&'static str>> {
    const WRONG: [Option<&str>; 6] = [
        None,
        Some("+9d"),
        Some("-400d"),
        Some("+2d x3"),
        Some("-3d x0.5"),
        Some("+40d x20"),
    ];
    let right = draw.below(nodes as u64) as usize;
    let clock = |nth| {
        if nth == right {
            None
        } else {
            *draw.one(&WRONG)
        }
    };
    (0..nodes).map(clock).collect()
}
