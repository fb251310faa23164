//! One node: the sync machine, what it has on disk, and a clock of its own.

use crate::random::Random;
use crate::store::{Graph, Store, incarnation, key};
use delugefs_core::holdings::{
    Applied, Batch, Holdings, Log, Operation, Record, Signature, Signed, Statement,
};
use delugefs_core::ids::{CommitId, InfoHash, NodeId};
use delugefs_core::sync::{Config, Event, Sync};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// What the repository's one writer was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Commit,
    Rebase,
}

/// What it does next. Time passes before each step, in which others pull and users write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take the pending writes.
    Take,
    /// Commit them.
    Author,
    /// Commit what came meanwhile; read the heads.
    Look,
    /// Show what was read.
    Show,
    /// Say how it ended.
    Tell(bool),
}

impl Work {
    pub(crate) fn steps(self) -> &'static [Step] {
        match self {
            Self::Commit => &[Step::Take, Step::Author],
            Self::Rebase => &[Step::Take, Step::Author, Step::Look, Step::Show],
        }
    }
}

/// The work under way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) work: Work,
    /// Pending writes that are on their way into a commit.
    taken: u64,
    /// The heads that were read.
    read: Option<BTreeSet<CommitId>>,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) sync: Sync,
    pub(crate) job: Option<Job>,
    /// What the mount shows, and what the next commit starts from.
    pub(crate) shown: BTreeSet<CommitId>,
    /// The wake-up that is arranged.
    pub(crate) wake: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) store: Store,
    pub(crate) holdings: Holdings,
    /// Writes acknowledged, and how many of them are in no commit yet (they are in the journal).
    pub(crate) written: u64,
    pub(crate) pending: u64,
    /// How often it was started.
    pub(crate) life: u32,
    pub(crate) running: Option<Running>,
    /// Its clock: an offset, and thousandths that it gains.
    offset: Duration,
    rate: u32,
}

pub(crate) fn node_id(number: usize) -> NodeId {
    NodeId::new([number as u8 + 1; 16])
}

pub(crate) fn address(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8 + 1], 4000))
}

pub(crate) fn number_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => usize::from(v4.ip().octets()[3]) - 1,
        SocketAddr::V6(_) => unreachable!("only IPv4 here"),
    }
}

impl Node {
    pub(crate) fn new(number: usize, random: &mut Random) -> Self {
        Self {
            number,
            store: Store::default(),
            holdings: Holdings::new(),
            written: 0,
            pending: 0,
            life: 0,
            running: None,
            offset: random.ms(0, 1_000_000),
            rate: random.within(950, 1050) as u32,
        }
    }

    pub(crate) fn clock(&self, now: Duration) -> Duration {
        self.offset + now * self.rate / 1000
    }

    /// When this node's clock shows `at`, rounded up.
    pub(crate) fn time_of(&self, at: Duration) -> Duration {
        at.saturating_sub(self.offset) * 1000 / self.rate + Duration::from_nanos(10)
    }

    /// Starts the process on what is on disk; its first event.
    pub(crate) fn start(&mut self, seed: u64, graph: &Graph) -> Event {
        assert!(self.running.is_none());
        self.life += 1;
        let sync = Sync::new(Config {
            node: node_id(self.number),
            incarnation: incarnation(self.number),
            seed,
            authors: self.store.authors().clone(),
            positions: self.holdings.positions(),
        });
        self.running = Some(Running {
            sync,
            job: None,
            shown: graph.maximal(self.store.authors()),
            wake: None,
        });
        if self.pending > 0 {
            Event::LocalChanges
        } else {
            Event::Wake
        }
    }

    /// A write is acknowledged; it makes or drops a content, too.
    pub(crate) fn write(&mut self, random: &mut Random) {
        self.written += 1;
        self.pending += 1;
        let mut content = [self.number as u8; 20];
        content[0] = random.within(0, 9) as u8;
        let operation = if random.percent(60) {
            Operation::Held
        } else {
            Operation::Dropped
        };
        let content = InfoHash::new(content);
        let log = self.holdings.log(incarnation(self.number));
        let empty = Log::new(key(self.number));
        let record = Record { operation, content };
        let said = log.unwrap_or(&empty).records(&[record]);
        if let Some(statement) = said {
            self.say(statement);
        }
        // far more often than a real node
        if random.percent(10) {
            let log = self.holdings.log(incarnation(self.number));
            let checkpoint = log.unwrap_or(&empty).checkpoint();
            self.say(checkpoint);
        }
    }

    fn say(&mut self, statement: Statement) {
        let signature = Signature([0; 64]);
        let signed = Signed {
            statement,
            signature,
        };
        let applied = self.holdings.apply(key(self.number), Batch::Signed(signed));
        assert!(matches!(applied, Ok(Applied::Moved(_))), "{applied:?}");
    }

    /// Begins the work that the machine asked for.
    pub(crate) fn begin(&mut self, work: Work) {
        let running = self.running.as_mut().unwrap();
        assert!(running.job.is_none(), "two writers at once");
        running.job = Some(Job {
            work,
            taken: 0,
            read: None,
        });
    }

    /// Carries out one step of the work.
    pub(crate) fn advance(&mut self, step: Step, graph: &mut Graph) {
        match step {
            Step::Take => self.job().taken = self.pending,
            Step::Author => {
                let taken = self.job().taken;
                self.author(taken, graph);
            }
            Step::Look => {
                self.author(self.pending, graph);
                self.job().read = Some(graph.maximal(self.store.authors()));
            }
            Step::Show => {
                let read = self.job().read.take().expect("read before");
                self.running.as_mut().unwrap().shown = read;
            }
            Step::Tell(_) => {}
        }
    }

    /// A commit starts from what is shown, whatever has been pulled since.
    fn author(&mut self, writes: u64, graph: &mut Graph) {
        if writes > 0 {
            let running = self.running.as_mut().unwrap();
            let commit = (self.store).author(graph, self.number, writes, &running.shown);
            running.shown = [commit].into();
            self.pending -= writes;
        }
    }

    fn job(&mut self) -> &mut Job {
        let running = self.running.as_mut().unwrap();
        running.job.as_mut().expect("work under way")
    }

    /// What each log says is held: the same on all nodes in the end.
    pub(crate) fn held(&self) -> BTreeMap<NodeId, BTreeSet<InfoHash>> {
        let logs = self.holdings.positions().into_iter();
        let logs = logs
            .filter(|(_, position)| *position > 0)
            .map(|(log, _)| log);
        logs.filter_map(|log| {
            let held = self.holdings.log(log)?.held().clone();
            Some((NodeId::new(*log.as_bytes()), held))
        })
        .collect()
    }
}
