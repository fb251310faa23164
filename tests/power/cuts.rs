//! The power fails at any moment, again and again.

use crate::boot::Boot;
use crate::database::Database;
use crate::drive::Drive;
use crate::ledger::Ledger;
use crate::load;
use crate::support::crew::Crew;
use crate::support::random::{Random, seed};
use crate::support::{Lab, Node, eventually, has, run_quietly};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The power stays on for less than this.
const LIFE_MAX: Duration = Duration::from_millis(1500);

const SOON: Duration = Duration::from_secs(30);

/// One machine with one disk.
pub struct Machine<'a> {
    lab: &'a Lab,
    /// Before what it needs, so that it ends first.
    pub node: Option<Node>,
    boot: Boot,
    pub drive: Drive,
    ledger: Arc<Ledger>,
    databases: [Database; 2],
    promises_count: Arc<AtomicBool>,
    number: Arc<AtomicU64>,
    pub random: Random,
}

impl<'a> Machine<'a> {
    pub fn new(lab: &'a Lab, boot: Boot, seed: u64) -> Self {
        let drive = Drive::new(&lab.folder("hardware"), &lab.folder("a"));
        let node = lab.node(1, "a").dies_with_test().create().start();
        // the creation itself is on the disk before it says so
        eventually(SOON, "the creation is over", || {
            let identity = std::fs::read_to_string(node.root.join("node.toml"));
            identity.unwrap().contains("in-use")
        });
        // what was not synced may have lost its bytes, which nobody else has
        node.set("wait", "1s");
        Self {
            lab,
            boot,
            drive,
            node: Some(node),
            ledger: Arc::default(),
            databases: ["wal", "delete"].map(Database::new),
            promises_count: Arc::default(),
            number: Arc::default(),
            random: Random::new(seed),
        }
    }

    /// Work, a power cut in the midst of it, another start, and a look.
    fn round(&mut self, round: u64) {
        let crew = self.work();
        let life = self.random.below(LIFE_MAX.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(life));
        self.ledger.close();
        self.promises_count.store(false, Ordering::SeqCst);
        self.drive.cut(&mut self.random);
        self.node.as_mut().unwrap().kill();
        self.rest(crew);
        let up = self.start_again();
        self.check(&format!("round {round}, cut after {life} ms, up in {up:?}"));
    }

    /// All kinds of work, whose promises count.
    pub fn work(&mut self) -> Crew {
        let mount = self.node.as_ref().unwrap().path("");
        self.ledger.open();
        self.promises_count.store(true, Ordering::SeqCst);
        let crew = load::start(&mount, &self.ledger, &self.number);
        for database in &mut self.databases {
            database.start(&mount, &self.promises_count);
        }
        crew
    }

    /// The work ends.
    pub fn rest(&mut self, crew: Crew) {
        crew.end();
        self.databases.iter_mut().for_each(Database::end);
    }

    /// The machine starts again, and the node; how long that took.
    pub fn start_again(&mut self) -> Duration {
        // the dead mount stays until nobody writes any more: below it is a folder
        let mut node = self.node.take().unwrap();
        node.kill();
        run_quietly(Command::new("umount").arg("-l").arg(node.path("")));
        node.abandon();
        self.drive.power_on(&mut self.random);
        self.boot.next(&mut self.random);
        let began = Instant::now();
        self.node = Some(self.lab.node(1, "a").dies_with_test().start());
        began.elapsed()
    }

    /// All that was promised is there, and nothing that nobody wrote. The number of paths, and of those promised.
    pub fn look(&self, when: &str) -> (usize, usize) {
        let mount = self.node.as_ref().unwrap().path("");
        self.ledger.check(&mount, when)
    }

    pub fn check(&self, when: &str) {
        let node = self.node.as_ref().unwrap();
        let mount = node.path("");
        let (paths, promised) = self.look(when);
        let rows = self
            .databases
            .each_ref()
            .map(|base| base.check(&mount, when));
        eprintln!("{when}: {paths} paths, {promised} promised; rows {rows:?}");
        let names = node.root.join("metadata.git");
        // what comes while it looks is missing to it
        eventually(SOON, &format!("{when}: the names are sound"), || {
            let mut fsck = Command::new("git");
            fsck.args(["-c", "safe.directory=*", "--git-dir"])
                .arg(&names);
            run_quietly(fsck.args(["fsck", "--full", "--no-dangling", "--no-progress"]))
        });
        assert_eq!(node.status()["read_only"], serde_json::Value::Null);
    }

    /// It goes on as any node does.
    pub fn ends_well(mut self) {
        let node = self.node.as_mut().unwrap();
        std::fs::write(node.path("last"), "last").unwrap();
        eventually(SOON, "all is sealed and committed", || {
            let contents = &node.status()["contents"];
            contents["unsealed"] == 0 && contents["uncommitted"] == 0
        });
        node.stop();
        // it unmounts what is there when it goes
        self.node.take();
        self.node = Some(self.lab.node(1, "a").dies_with_test().start());
        self.check("in the end");
        self.node.take();
    }
}

pub fn can_cut() -> bool {
    has(&["mkfs.ext4", "losetup", "git", "sqlite3"])
}

/// Runs a machine with a drive of its own, and lets it come to a good end.
pub fn with_machine(run: impl FnOnce(&mut Machine<'_>)) {
    if !can_cut() {
        return;
    }
    let seed = seed();
    eprintln!("SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let boot = Boot::new(folder.path());
    let lab = Lab::new(1);
    let mut machine = Machine::new(&lab, boot, seed);
    run(&mut machine);
    machine.ends_well();
}

fn cut_again_and_again(rounds: u64) {
    with_machine(|machine| {
        for round in 0..rounds {
            machine.round(round);
        }
    });
}

#[test]
fn what_was_synced_outlives_power_cuts() {
    cut_again_and_again(7);
}

#[test]
#[ignore = "long: minutes of power cuts"]
fn what_was_synced_outlives_many_power_cuts() {
    cut_again_and_again(100);
}
