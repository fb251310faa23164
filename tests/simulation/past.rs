//! The past: nodes tell on what they rest, record where history may be cut, cut it, and come back from before. How words
//! travel is simplified: whoever is connected hears all at once.

use crate::node::{Node, Parts};
use crate::pulls::Fetch;
use crate::random::Random;
use crate::scenario::DAY;
use crate::wire;
use crate::world::{Counts, World};
use delugefs::node::moving::{self, base_view};
use delugefs::node::past::{self, Tended};
use delugefs::node::rests::{self, RestFile};
use delugefs_core::ids::IncarnationId;
use delugefs_core::past::rests::Heard;
use delugefs_core::sync::Event;
use delugefs_metadata_repo::exchange::ExchangeError;
use delugefs_metadata_repo::{Repository, Upkeep};
use std::time::Duration;

/// Afterwards nothing is said but heartbeats, once the last repeats are answered.
const LAST_WORDS: Duration = Duration::from_secs(23);
const SILENCE: Duration = Duration::from_secs(20);

/// Cutting history has come to an end after so many times that long.
const ROUNDS_MAX: usize = 5;

/// What a run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Usual,
    /// History is cut as soon as it may be.
    Cutting,
}

impl Kind {
    /// How many things happen in a run: most are short, some are long.
    pub(crate) fn actions(self, random: &mut Random) -> u64 {
        let (least, most) = match self {
            Self::Usual => [(3, 10), (3, 10), (30, 80)][random.below(3)],
            Self::Cutting => (10, 80),
        };
        random.within(least, most)
    }
}

/// A cut frees at least so many commits, and one for each author: runs are short, and what cutting costs is less.
const FREED_MIN: usize = 2;

impl Parts {
    /// The volume's time, and when somebody was seen who is seen now.
    fn times(&self) -> (i64, i64) {
        let clock = self.source.seconds().cast_signed();
        rests::times(&self.repository.times().unwrap(), clock)
    }

    fn rests(&self) -> &RestFile {
        self.rests.as_ref().expect("history is cut in this run")
    }

    /// Whoever is given history is written down first.
    pub(crate) fn meet(&self, other: IncarnationId) {
        self.rests().meet(other, self.times().1).unwrap();
    }

    /// As the node's loops do.
    fn tend(&self, connected: &[IncarnationId]) -> Tended {
        let (now, seen) = self.times();
        for (author, time) in self.repository.times().unwrap() {
            self.rests().note(author, time);
        }
        for other in connected {
            self.rests().note(*other, seen);
        }
        let settings = self.settings();
        let retire = settings.retire;
        let is_shown = self.filesystem.base() == base_view(&self.repository.view());
        if let Some(heads) = self.repository.rests_on().unwrap().filter(|_| is_shown) {
            self.rests()
                .say(&heads, &self.key, (now, retire.as_secs().cast_signed()))
                .unwrap();
        }
        self.rests().store().unwrap();
        let asked = self.rests().asked(now, retire);
        let least = FREED_MIN + self.repository.authors().unwrap().len();
        past::tend(self, asked.as_deref(), &self.rests().said(), (now, least)).unwrap()
    }

    /// Lets go of whatever nothing leads to.
    fn sweep(&self) {
        let upkeep = Upkeep {
            now: delugefs_core::time::Timestamp::from_seconds(self.times().1),
            in_use: &[self.filesystem.base().tree],
            kept: Duration::ZERO,
            thorough: true,
            stop: &|| false,
        };
        self.repository.maintain(&upkeep).unwrap();
    }
}

impl World {
    /// The owner changes the volume's settings.
    pub(crate) fn settings(&mut self, number: usize) {
        if !self.nodes[number].is_running() {
            return;
        }
        self.goes_to_work(number);
        let parts = self.nodes[number].parts();
        let mut settings = parts.settings();
        settings.copies = self.random.within(1, 3) as u32;
        settings.keep = Duration::from_secs(DAY * [0, 0, 0, 1, 7][self.random.below(5)]);
        if let Some((history, retire)) = self.past {
            settings.history = history;
            settings.retire = retire;
        }
        moving::set(parts, &settings).unwrap();
        if self.has_crashed(number) {
            return;
        }
        self.counts.commits += 1;
        self.see(number);
        // as the command does
        self.handle(number, Event::LocalChanges);
        self.settle(number);
    }

    /// Looks after a node's past.
    pub(crate) fn tend(&mut self, number: usize) {
        let is_near = |other: &&Node| self.reaches(number, other.number);
        let near: Vec<usize> = self
            .nodes
            .iter()
            .filter(is_near)
            .map(|it| it.number)
            .collect();
        let connected: Vec<_> = near
            .iter()
            .map(|it| self.nodes[*it].incarnation())
            .collect();
        self.goes_to_work(number);
        let parts = self.nodes[number].parts();
        let tended = parts.tend(&connected);
        if tended == Tended::Imported {
            self.gone_over.insert(number);
        }
        // twice: what is found to be of no use goes the next time
        if tended != Tended::Nothing || self.random.percent(10) {
            self.nodes[number].parts().sweep();
        }
        if self.has_crashed(number) {
            return;
        }
        self.count(tended);
        if tended != Tended::Nothing {
            self.log(|| format!("{number} has looked after its past: {tended:?}"));
            self.see(number);
            // as the node does, whose machine looks for new heads then
            self.handle(number, Event::LocalChanges);
            self.settle(number);
        }
        self.pass_on(number, &near);
    }

    fn count(&mut self, tended: Tended) {
        match tended {
            Tended::Nothing => {}
            Tended::Recorded => self.counts.records += 1,
            Tended::Cut => self.counts.cuts += 1,
            Tended::Imported => self.counts.imports += 1,
        }
    }

    /// Tells all words to those who are near, as far as they arrive.
    fn pass_on(&mut self, number: usize, near: &[usize]) {
        for other in near {
            if self.random.percent(self.failures) {
                continue;
            }
            let words = self.nodes[number].parts().rests().words();
            let parts = self.nodes[*other].parts();
            let seen = parts.times().1;
            let heard = words
                .iter()
                .map(|word| parts.rests().hear(word, seen).unwrap());
            let is_restored = heard.collect::<Vec<_>>().contains(&Heard::OwnNewer);
            if is_restored {
                self.falls_behind(*other);
            }
        }
    }

    /// Goes over to the history of a peer that begins later; whether it did.
    pub(crate) fn come_back(&mut self, fetch: Fetch, from: &Repository) -> bool {
        let number = fetch.by;
        self.goes_to_work(number);
        let (own, former) = (
            self.nodes[number].incarnation(),
            self.nodes[number].before(),
        );
        let parts = self.nodes[number].parts();
        let repository = parts.repository.clone();
        let kept = repository.keep_all();
        let history = match wire::fetch_anew(&repository, own, from) {
            Ok(history) => history,
            Err(ExchangeError::OwnChainAhead { .. }) => {
                self.falls_behind(number);
                return false;
            }
            Err(error) => panic!("{number} cannot fetch a history that was cut: {error}"),
        };
        let imported = past::import(parts, history, &parts.rests().said(), former);
        drop(kept);
        if imported.is_ok() {
            self.gone_over.insert(number);
        }
        if self.has_crashed(number) {
            return false;
        }
        self.log(|| format!("{number} comes back from before the cut: {imported:?}"));
        // what is here may have been cut later, by others
        let is_done = imported.is_ok();
        if is_done {
            self.count(Tended::Imported);
            self.see(number);
            self.settle(number);
        }
        is_done
    }

    /// All that any head's history names is on each disk, down to where it is cut. Nobody runs any more then.
    pub(crate) fn check_histories(&mut self) {
        for node in &mut self.nodes {
            let parts = node.parts();
            parts.sweep();
            let path = parts.repository.path().to_owned();
            let authors = parts.repository.authors().unwrap();
            node.running = None;
            // so that all of it is read
            std::fs::remove_file(path.join("delugefs-synced")).unwrap();
            let again = Repository::open_in(&path, "another boot").unwrap();
            assert_eq!(
                again.authors().unwrap(),
                authors,
                "node {} lacks part of its history",
                node.number
            );
        }
    }

    /// When all is said, nothing more is said, and no commits are made.
    pub(crate) fn fall_silent(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let past = |it: &Counts| (it.records, it.cuts, it.imports);
            let last = past(&self.counts);
            self.pass(LAST_WORDS);
            let before = self.counts;
            self.pass(SILENCE);
            // with time, more of history may be cut
            if last == past(&self.counts) {
                assert_eq!(self.counts, before, "they go on although all is said");
                return;
            }
        }
        panic!("they cut history without end");
    }
}
