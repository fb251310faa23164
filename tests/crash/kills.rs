//! One node, the other, or both are killed again and again while both are written to.

use crate::database::Database;
use crate::ledger::{Ledger, listing};
use crate::load;
use crate::programs::Source;
use crate::support::crew::Crew;
use crate::support::random::{Random, seed};
use crate::support::{Lab, Node, ended, eventually, has};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// Within this all nodes show the same, and all bytes can be read everywhere.
const SETTLE: Duration = Duration::from_secs(20);

/// A kill comes after a time below this, so that it finds nodes starting as well as busy.
const LIFE_MAX: Duration = Duration::from_millis(1200);

struct Side {
    node: Option<Node>,
    ledger: Arc<Ledger>,
    folder: &'static str,
    databases: [Database; 2],
}

struct Duel<'a> {
    lab: &'a Lab,
    sides: [Side; 2],
    source: Source,
    number: Arc<AtomicU64>,
    random: Random,
}

impl<'a> Duel<'a> {
    fn new(lab: &'a Lab, seed: u64) -> Self {
        let side = |folder| Side {
            node: None,
            ledger: Arc::default(),
            folder,
            databases: ["wal", "delete"].map(Database::new),
        };
        let mut duel = Self {
            lab,
            sides: [side("first"), side("second")],
            source: Source::new(&lab.folder("source")),
            number: Arc::default(),
            random: Random::new(seed),
        };
        duel.sides[0].node = Some(lab.node(1, "a").create().start());
        duel.sides[1].node = Some(lab.node(2, "b").start());
        for side in &duel.sides {
            let node = side.node.as_ref().unwrap();
            std::fs::create_dir(node.path(side.folder)).unwrap();
        }
        duel
    }

    /// Writes on both sides, kills those of a bit set, starts them again, and looks.
    fn round(&mut self, round: u64, victims: u64) {
        let loads = self.sides.each_mut().map(|side| {
            let mount = side.node.as_ref().unwrap().path(side.folder);
            for database in &mut side.databases {
                database.start(&mount, &Arc::new(AtomicBool::new(true)));
            }
            load::start(&mount, &self.source, &side.ledger, &self.number)
        });
        let life = self.random.below(LIFE_MAX.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(life));
        for (bit, side) in self.sides.iter_mut().enumerate() {
            if victims & (1 << bit) != 0 {
                side.node.as_mut().unwrap().kill();
            }
        }
        loads.into_iter().for_each(Crew::end);
        let databases = self.sides.iter_mut().flat_map(|side| &mut side.databases);
        databases.for_each(Database::end);
        for (bit, name) in ["a", "b"].into_iter().enumerate() {
            if victims & (1 << bit) != 0 {
                // the dead node's mount is left as it is: the start has to clear it
                self.sides[bit].node.take().unwrap().abandon();
                let began = Instant::now();
                let node = self.lab.node(bit as u32 + 1, name).start();
                eprintln!(
                    "round {round}: {name} killed after {life} ms, up again in {:?}",
                    began.elapsed()
                );
                let side = &mut self.sides[bit];
                side.node = Some(node);
                side.check(&format!("round {round}, after the kill of {name}"));
            }
        }
    }

    fn settle(&self) {
        let [first, second] = &self.sides;
        let (a, b) = (first.node.as_ref().unwrap(), second.node.as_ref().unwrap());
        let is_quiet = |node: &Node| {
            let status = node.status();
            status["contents"]["unsealed"] == 0 && status["contents"]["uncommitted"] == 0
        };
        let took = eventually(
            SETTLE,
            "both have the same head, and nothing is on its way",
            || is_quiet(a) && is_quiet(b) && a.head() == b.head(),
        );
        eprintln!(
            "settled in {took:?}; {} + {} paths",
            first.ledger.len(),
            second.ledger.len()
        );
        for side in &self.sides {
            for node in [a, b] {
                let when = format!("in the end, of {} at {}", side.folder, node.root.display());
                side.ledger.check(&node.path(side.folder), &when);
            }
        }
        let names = [a, b].map(|node| listing(node.mount.as_ref().unwrap()));
        let odd: Vec<_> = names[0].symmetric_difference(&names[1]).collect();
        assert!(odd.is_empty(), "only on one side: {odd:?}");
        let conflicts: Vec<_> = names[0]
            .iter()
            .filter(|path| path.to_string_lossy().contains("(conflict"))
            .collect();
        assert!(
            conflicts.is_empty(),
            "nobody wrote the same file: {conflicts:?}"
        );
    }
}

impl Side {
    #[track_caller]
    fn check(&self, when: &str) {
        let mount = self.node.as_ref().unwrap().path(self.folder);
        self.ledger.check(&mount, when);
        for database in &self.databases {
            database.check(&mount, when);
        }
    }
}

fn kill_again_and_again(rounds: u64, seed: u64) {
    if !has(&["git", "sqlite3"]) {
        return;
    }
    eprintln!("SEED={seed}");
    let lab = Lab::new(2);
    let mut duel = Duel::new(&lab, seed);
    for round in 0..rounds {
        let victims = duel.random.below(3) + 1;
        duel.round(round, victims);
    }
    duel.settle();
}

#[test]
fn whatever_was_acknowledged_outlives_kills() {
    kill_again_and_again(8, seed());
}

#[test]
#[ignore = "long: minutes of kills"]
fn whatever_was_acknowledged_outlives_many_kills() {
    // each with a volume of its own: what is compared after a kill grows with what there is
    (0..10).for_each(|volume| kill_again_and_again(30, seed() + volume));
}

#[test]
fn nobody_waits_for_ever_for_a_process_that_does_not_end() {
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    assert_eq!(ended(&mut sleeper, Duration::from_millis(20)), None);
    sleeper.kill().unwrap();
    assert!(ended(&mut sleeper, Duration::from_secs(60)).is_some());
}
