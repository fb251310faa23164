//! Power cuts while a node goes over to a history that others have cut: what was synced here, and is still being written,
//! is neither lost nor put over what they have made since.

use crate::disk::{self, Crash};
use crate::past::Kind;
use crate::random::Random;
use crate::scenario::{Action, DAY, Run};
use crate::users::Act;
use crate::world::{Counts, Next, World};
use std::time::Duration;

/// Node 0 cuts history while node 1 is away.
const STAYS: usize = 0;
const RETURNS: usize = 1;

/// What is not synced may survive: so often each power cut is tried.
const TRIES: u64 = 2;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_power_cut_while_a_node_goes_over_takes_nothing_that_was_synced() {
    let mut stopped = 0;
    for luck in 0..TRIES {
        let runs = (0..).map(|syncs| come_back(syncs, luck));
        let cut_short = runs.take_while(|counts| counts.power_cuts > 0);
        // the switch was done, and nobody had heard of it
        stopped += cut_short.filter(|counts| counts.imports == 0).count();
    }
    assert!(stopped > 0, "no power cut came in the middle");
}

/// The power fails at a sync of the node that comes back, after so many others. All must agree in the end.
fn come_back(syncs: u64, luck: u64) -> Counts {
    let mut world = World::new(2, (1, 5), Random::new(luck), false);
    world.past = Some((Duration::ZERO, 600 * SECOND));
    for number in [STAYS, RETURNS] {
        world.nodes[number].cuts = true;
        world.after(Duration::ZERO, Next::Start(number));
    }
    world.pass(SECOND);
    world.does(STAYS, &Act::Write("f".to_owned(), 200));
    world.act(&Action::Settings(STAYS));
    world.pass(8 * SECOND);
    world.work_apart();
    let random = Random::new(TRIES * syncs + luck);
    disk::arm(&world.nodes[RETURNS].root, syncs, Crash::PowerCut, random);
    world.act(&Action::Heal);
    world.pass(8 * SECOND);
    let mut run = Run {
        kind: Kind::Cutting,
        world,
        is_apart: false,
    };
    run.heal();
    run.agree();
    let world = &run.world;
    assert!(world.gone_over.contains(&RETURNS), "it has not gone over");
    world.counts
}

impl World {
    /// The one has a file open, synced, and commits something else, which its journal does not say durably. The other
    /// changes the same file again and again, retires the one and cuts history.
    fn work_apart(&mut self) {
        self.act(&Action::Cut(STAYS, RETURNS, false));
        self.does(RETURNS, &Act::Hold("f".to_owned(), 200));
        self.does(RETURNS, &Act::Fsync);
        self.does(RETURNS, &Act::Mkdir("d".to_owned()));
        self.pass(SECOND);
        self.slept += Duration::from_secs(DAY);
        for _ in 0..10 {
            self.does(STAYS, &Act::Write("f".to_owned(), 200));
            self.pass(SECOND);
        }
        self.pass(8 * SECOND);
        assert!(self.counts.cuts > 0, "history is not cut");
    }
}
