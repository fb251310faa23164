//! A disk in a drawer: one node is switched off for days, in which the others work on, and may retire it and cut history.
//! If they have, it brings along what it has made and changed, and that alone: what it has removed or renamed is as the
//! others have it, and what they have removed or renamed stays so.

use crate::node::INLINE_MAX;
use crate::oracle::DRAWER;
use crate::scenario::{Action, DAY, Run};
use crate::users::Act;
use crate::world::{Next, World};
use delugefs_core::ids::CommitId;
use std::time::Duration;

/// How long all work on; the others then go on for three times that.
const WORKING_MS: u64 = 2_000;

/// After that all have heard of everything, and history is cut where it may be.
const SETTLING: Duration = Duration::from_secs(8);

/// All nodes are up again after they were switched off.
const STARTING: Duration = Duration::from_secs(4);

/// One who removes and renames what all have, while he and the others do not hear of each other.
struct Tidier {
    node: usize,
    who: &'static str,
}

impl Tidier {
    fn path(&self, what: &str) -> String {
        format!("{DRAWER}-{what}-by-{}", self.who)
    }

    fn removed(&self) -> String {
        self.path("removed")
    }

    /// The old name and the new one.
    fn renamed(&self) -> [String; 2] {
        [self.path("renamed"), self.path("moved")]
    }
}

impl Run {
    /// Whoever is away for a day may be retired.
    pub(crate) fn retires_soon(&self) -> bool {
        let past = self.world.past;
        past.is_some_and(|(_, retire)| retire < Duration::from_secs(DAY))
    }

    /// One disk goes into a drawer, and comes back.
    pub(crate) fn drawer(&mut self) -> CommitId {
        let world = &mut self.world;
        let nodes = world.nodes.len();
        let away = world.random.below(nodes);
        let other = (away + 1 + world.random.below(nodes - 1)) % nodes;
        let [away, other] =
            [(away, "one"), (other, "others")].map(|(node, who)| Tidier { node, who });
        world.prepare(&away, &other);
        world.live_apart(&away, &other);
        self.heal();
        let head = self.agree();
        self.world.check_reunited(&away, &other);
        head
    }
}

impl World {
    /// All have the files that will be removed and renamed.
    fn prepare(&mut self, away: &Tidier, other: &Tidier) {
        for tidier in [away, other] {
            for path in [tidier.removed(), tidier.renamed()[0].clone()] {
                let size = INLINE_MAX * self.random.below(3);
                self.does(other.node, &Act::Write(path, size));
            }
        }
        self.pass(SETTLING);
    }

    /// All work, then one is switched off for days, and the others work on until they may have retired it and cut their
    /// history.
    fn live_apart(&mut self, away: &Tidier, other: &Tidier) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        let others: Vec<usize> = all.iter().copied().filter(|it| *it != away.node).collect();
        for number in &others {
            self.act(&Action::Cut(away.node, *number, false));
        }
        self.gone_over.clear();
        self.tidy(away);
        self.work_for(&all, WORKING_MS, 10);
        self.drawer = Some(away.node);
        let days = self.random.within(1, 12);
        self.act(&Action::Sleep(days));
        self.pass(STARTING);
        self.tidy(other);
        self.work_for(&others, 3 * WORKING_MS, 20);
        self.pass(SETTLING);
        self.drawer = None;
        self.after(Duration::ZERO, Next::Start(away.node));
    }

    fn tidy(&mut self, tidier: &Tidier) {
        let [old, new] = tidier.renamed();
        self.does(tidier.node, &Act::Unlink(tidier.removed()));
        self.does(tidier.node, &Act::Rename(old, new));
    }

    pub(crate) fn does(&mut self, number: usize, act: &Act) {
        self.with_user(number, |user| (format!("{act:?}"), user.act(act)));
    }

    fn work_for(&mut self, nodes: &[usize], milliseconds: u64, acts: usize) {
        for _ in 0..acts {
            let number = nodes[self.random.below(nodes.len())];
            let at = self.random.ms(0, milliseconds);
            self.after(at, Next::Script(Action::Act(number)));
        }
        self.pass(Duration::from_millis(milliseconds));
    }

    /// Where the others have gone over as well, anything may be back that anyone has removed.
    fn check_reunited(&mut self, away: &Tidier, other: &Tidier) {
        let mut gone_over = self.gone_over.iter();
        if gone_over.any(|number| *number != away.node) {
            return;
        }
        let has_gone_over = !self.gone_over.is_empty();
        let shown = self.look(away.node);
        for (tidier, is_in_vain) in [(away, has_gone_over), (other, false)] {
            let [old, new] = tidier.renamed();
            let due = [
                (tidier.removed(), is_in_vain),
                (old, is_in_vain),
                (new, !is_in_vain),
            ];
            for (path, is_due) in due {
                assert_eq!(
                    shown.contains_key(&path),
                    is_due,
                    "{path} is there or not; has the one gone over: {has_gone_over}"
                );
            }
        }
    }
}
