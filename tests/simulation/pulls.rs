//! Pulls: what a node asks its peers for, what breaks or is quicker meanwhile, and what the node hears of it.

use crate::node::number_of;
use crate::world::{Next, World};
use delugefs_core::ids::NodeId;
use delugefs_core::sync::{Event, PullId};
use delugefs_metadata_repo::Repository;
use delugefs_metadata_repo::exchange::{ExchangeError, Refusal, Refused};

/// In how many of a hundred pulls another one is quicker.
const OVERTAKING_PERCENT: u64 = 5;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    pub(crate) by: usize,
    pub(crate) life: u32,
    pub(crate) from: usize,
    /// Which of the machine's it is, unless the node makes it for itself.
    pub(crate) pull: Option<PullId>,
}

impl World {
    /// Asks for a pull.
    pub(crate) fn ask(&mut self, number: usize, peer: NodeId, pull: Option<PullId>) {
        self.counts.pulls += 1;
        let fetch = Fetch {
            by: number,
            life: self.nodes[number].life,
            from: number_of(peer),
            pull,
        };
        let mut delay = self.network.delay(&mut self.random) * 2;
        if self.random.percent(self.failures) {
            delay += self.random.ms(500, 4000);
        }
        self.after(delay, Next::Pull(fetch));
    }

    pub(crate) fn pull(&mut self, fetch: Fetch) {
        if !self.is_alive(fetch.by, fetch.life) {
            return;
        }
        let is_done = self.reaches(fetch.by, fetch.from) && self.bring(fetch);
        if self.has_crashed(fetch.by) || !self.is_alive(fetch.by, fetch.life) {
            return;
        }
        self.counts.failed_pulls += u64::from(!is_done);
        let delay = match is_done {
            true => self.random.ms(0, 10),
            false => self.random.ms(1, 3000),
        };
        let Fetch { by, from, .. } = fetch;
        self.log(|| format!("{by} has pulled from {from}: {is_done}"));
        self.after(delay, Next::Pulled(fetch, is_done));
    }

    /// Another node that runs, and that the network leads to.
    pub(crate) fn reaches(&self, number: usize, other: usize) -> bool {
        other != number && self.network.joined(number, other) && self.nodes[other].is_running()
    }

    /// Whether a pull from a node that is reached goes well. The puller may come to its end over it.
    fn bring(&mut self, fetch: Fetch) -> bool {
        let breaks_after = match self.random.percent(self.failures) {
            true => Some(self.random.within(0, 3000)),
            false => None,
        };
        let to = self.nodes[fetch.by].parts().repository.clone();
        let from = self.nodes[fetch.from].parts().repository.clone();
        let own = self.nodes[fetch.by].incarnation();
        if self.past.is_some() {
            self.goes_to_work(fetch.from);
            self.nodes[fetch.from].parts().meet(own);
            if self.has_crashed(fetch.from) {
                return false;
            }
        }
        let overtaking = self.overtaking(fetch);
        self.goes_to_work(fetch.by);
        let pulled = crate::wire::pull(&to, own, &from, (breaks_after, overtaking));
        if self.has_crashed(fetch.by) {
            return false;
        }
        match pulled {
            Ok(pulled) => {
                check_forks(&to, &pulled.refused);
                for one in &pulled.refused {
                    self.log(|| format!("{} does not take: {one}", fetch.by));
                }
                self.witness(fetch.by, pulled.refused);
                true
            }
            Err(ExchangeError::OwnChainAhead { .. }) => {
                self.falls_behind(fetch.by);
                false
            }
            Err(ExchangeError::Cut { .. }) => self.come_back(fetch, &from),
            Err(error) => {
                assert!(breaks_after.is_some(), "a pull fails: {error}");
                false
            }
        }
    }

    /// From whom a node pulls, too, while it pulls: another that it reaches.
    fn overtaking(&mut self, fetch: Fetch) -> Option<Repository> {
        if self.past.is_some() || !self.random.percent(OVERTAKING_PERCENT) {
            return None;
        }
        let other = self.random.below(self.nodes.len());
        let is_reached = other != fetch.from && self.reaches(fetch.by, other);
        is_reached.then(|| self.nodes[other].parts().repository.clone())
    }

    pub(crate) fn pulled(&mut self, fetch: Fetch, is_done: bool) {
        if self.is_alive(fetch.by, fetch.life) {
            // read now: heads of two pulls that end close together must not be told in the wrong order
            let outcome = self.nodes[fetch.by].parts().outcome(is_done);
            let event = match fetch.pull {
                Some(pull) => Event::PullFinished { pull, outcome },
                // what came with it is found by the machine
                None => Event::LocalChanges,
            };
            self.handle(fetch.by, event);
        }
    }
}

/// A chain is said to fork only where it does.
fn check_forks(repository: &Repository, refused: &[Refused]) {
    for one in refused {
        if let Refusal::Forked { ours, theirs } = one.why
            // whoever is refused may not be here
            && let Ok(both) = repository.view_of(&[ours, theirs].into())
        {
            assert_eq!(both.heads.len(), 2, "no fork: {one}");
        }
    }
}
