//! What happens to a cluster, drawn from a seed, and what must hold in the end.

use crate::disk::{self, Crash, Image};
use crate::node::Node;
use crate::oracle::{self, Memory, Shown, TWIN, is_conflict, look, readable};
use crate::past::Kind;
use crate::ports::Faults;
use crate::random::Random;
use crate::report::Report;
use crate::users::{Synced, User};
use crate::world::{Next, World};
use delugefs::filesystem::{FsError, Source as _};
use delugefs_core::ids::{CommitId, InfoHash};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// After healing: see the simulation of the core. Hashing, upkeep and copies take a few seconds more.
const RECOVERY: Duration = Duration::from_secs(32);

pub(crate) const DAY: u64 = 86_400;

/// What the scenario does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// A user does something.
    Act(usize),
    /// Two users write the same bytes under one name.
    Twins(usize, usize),
    /// The process is killed, or the power fails.
    Crash(usize, Crash),
    /// The same, at a sync, after so many others.
    CrashAt(usize, Crash, u64),
    /// The disk is lost; the node begins anew.
    Wipe(usize),
    /// The disk is copied.
    BackUp(usize),
    /// It is put back to that copy.
    Restore(usize),
    /// The two are cut off from each other; if only one way, the second does not hear the first.
    Cut(usize, usize, bool),
    Heal,
    /// A connection of this node breaks.
    Reset(usize),
    /// The disk is full, or no longer.
    Full(usize, bool),
    /// The wall clock is set.
    Skew(usize, i64),
    /// The owner changes the volume's settings.
    Settings(usize),
    /// All are switched off for so many days.
    Sleep(u64),
}

/// One run.
pub(crate) struct Run {
    pub(crate) kind: Kind,
    pub(crate) world: World,
    /// Each works in a folder of its own, so nothing can be in conflict.
    pub(crate) is_apart: bool,
}

pub(crate) fn run(seed: u64, kind: Kind, is_told: bool) -> Report {
    let mut random = Random::new(seed);
    let nodes = [2, 2, 2, 3, 3, 3, 4, 4, 5, 7][random.below(10)];
    let slowest = [5, 20, 50, 150, 400][random.below(5)];
    let is_apart = random.percent(25);
    let mut world = World::new(nodes, (1, slowest), random, is_told);
    world.log(|| format!("{nodes} nodes, delays up to {slowest} ms, apart: {is_apart}"));
    for number in 0..nodes {
        if world.random.percent(60) {
            world.models[number] = Some(Shown::new());
        }
    }
    for node in &mut world.nodes {
        node.cuts = kind == Kind::Cutting;
    }
    let mut run = Run {
        kind,
        world,
        is_apart,
    };
    run.trouble();
    run.heal();
    let mut head = run.agree();
    if run.retires_soon() && run.world.random.percent(50) {
        head = run.drawer();
    }
    run.world.fall_silent();
    run.report(head)
}

impl Run {
    /// Some seconds in which everything goes wrong.
    fn trouble(&mut self) {
        let is_apart = self.is_apart;
        let world = &mut self.world;
        world.is_apart = is_apart;
        let nodes = world.nodes.len();
        world.failures = [0, 5, 20][world.random.below(3)];
        world.network.is_sloppy = world.random.percent(30);
        if self.kind == Kind::Cutting {
            let history = Duration::from_secs([0, 0, 60][world.random.below(3)]);
            let retire = Duration::from_secs([600, 3600, 180 * DAY][world.random.below(3)]);
            world.past = Some((history, retire));
            let setter = world.random.below(nodes);
            let at = world.random.ms(300, 800);
            world.after(at, Next::Script(Action::Settings(setter)));
        }
        for number in 0..nodes {
            if world.random.percent(20) {
                let error = world.random.within(0, 7200).cast_signed() - 3600;
                world.nodes[number].skew = error;
            }
            let delay = world.random.ms(0, 300);
            world.after(delay, Next::Start(number));
        }
        let seconds = world.random.within(2, 8);
        for _ in 0..self.kind.actions(&mut world.random) {
            let at = world.random.ms(300, seconds * 1000);
            let action = draw(world);
            world.after(at, Next::Script(action));
        }
        if world.random.percent(20) {
            let number = world.random.below(nodes);
            let copied = world.random.ms(300, seconds * 1000);
            let restored = copied + world.random.ms(0, seconds * 1000);
            world.after(copied, Next::Script(Action::BackUp(number)));
            world.after(restored, Next::Script(Action::Restore(number)));
        }
        world.pass(Duration::from_secs(seconds));
    }

    /// Everything works again, and users close what they have open.
    pub(crate) fn heal(&mut self) {
        let world = &mut self.world;
        world.act(&Action::Heal);
        world.failures = 0;
        world.network.is_sloppy = false;
        for number in 0..world.nodes.len() {
            world.act(&Action::Full(number, false));
            disk::disarm(&world.nodes[number].root);
        }
        world.pass(Duration::from_secs(5));
        for number in 0..world.nodes.len() {
            world.close_all(number);
        }
        world.pass(RECOVERY);
    }

    /// All have the same head, show the same, and that is all that was acknowledged.
    pub(crate) fn agree(&mut self) -> CommitId {
        let world = &mut self.world;
        let heads: Vec<_> = world.nodes.iter().map(state).collect();
        let first = heads[0].clone();
        for (number, head) in heads.iter().enumerate() {
            assert_eq!(*head, first, "node {number} and node 0: {heads:#?}");
        }
        let mut shown = Vec::new();
        for number in 0..world.nodes.len() {
            shown.push(world.look(number));
            world.versions.check_all(number, &shown[number]);
            assert_eq!(shown[number], shown[0], "nodes {number} and 0");
            world.check_catalogue(number);
        }
        // who comes back after too long may not know that others know what it wrote last
        let is_apart = self.is_apart && world.counts.imports == 0;
        for (path, thing) in shown[0].iter().filter(|_| is_apart) {
            // what was synced, then removed or overwritten may be back, where a power cut has taken that it was; who finds
            // it may write to it, and beside it
            let is_known = |bytes: &[u8]| {
                world.versions.is_over(bytes) || world.versions.was_written_to(bytes, path)
            };
            let is_back = world.counts.power_cuts > 0 && thing.bytes().is_some_and(is_known);
            assert!(
                !is_conflict(path) || path.ends_with('~') || is_back,
                "changes to different things are in conflict: {path}"
            );
        }
        world.check_copies();
        first.head.expect("a head")
    }

    fn report(mut self, head: CommitId) -> Report {
        let shown = self.world.look(0);
        if self.kind == Kind::Cutting {
            self.world.check_histories();
        }
        Report {
            runs: 1,
            counts: self.world.counts,
            checks: self.world.versions.checks,
            conflicts: shown.keys().filter(|path| is_conflict(path)).count() as u64,
            entries: shown.len() as u64,
            head: Some(head),
        }
    }
}

/// What a node has come to.
#[derive(Debug, Clone, PartialEq)]
struct State {
    head: Option<CommitId>,
    base: delugefs::filesystem::BaseView,
    waits: usize,
}

fn state(node: &Node) -> State {
    assert!(node.is_running(), "{} is down", node.number);
    let status = node.filesystem().status();
    State {
        head: node.parts().repository.view().commit,
        base: node.filesystem().base(),
        waits: status.uncommitted + status.unsealed + status.writing,
    }
}

fn draw(world: &mut World) -> Action {
    let nodes = world.nodes.len();
    let node = world.random.below(nodes);
    let other = world.random.below(nodes);
    match world.random.within(0, 999) {
        0..780 => Action::Act(node),
        780..810 => Action::Twins(node, other),
        810..825 => Action::Crash(node, Crash::Killed),
        825..835 => Action::Crash(node, Crash::PowerCut),
        835..844 => Action::CrashAt(node, Crash::Killed, world.random.within(0, 20)),
        844..850 => Action::CrashAt(node, Crash::PowerCut, world.random.within(0, 20)),
        850..860 => Action::Wipe(node),
        860..890 => Action::Reset(node),
        890..935 => Action::Cut(node, other, world.random.percent(30)),
        935..950 => Action::Heal,
        950..970 => Action::Full(node, world.random.percent(60)),
        970..980 => Action::Skew(node, world.random.within(0, 40).cast_signed() - 20),
        980..990 => Action::Settings(node),
        _ => Action::Sleep(world.random.within(1, 12)),
    }
}

impl World {
    pub(crate) fn act(&mut self, action: &Action) {
        self.log(|| format!("{action:?}"));
        match *action {
            Action::Act(number) => self.user_acts(number),
            Action::Twins(a, b) => self.twins(a, b),
            Action::Crash(number, crash) => self.crash(number, crash),
            Action::CrashAt(number, crash, after) => {
                let random = Random::new(self.random.next());
                disk::arm(&self.nodes[number].root, after, crash, random);
            }
            Action::Wipe(number) => self.wipe(number),
            Action::BackUp(number) => self.back_up(number),
            Action::Restore(number) => self.restore(number),
            Action::Cut(a, b, is_one_way) => {
                self.network.cut[a][b] = true;
                self.network.cut[b][a] |= !is_one_way;
            }
            Action::Heal => {
                for row in &mut self.network.cut {
                    row.fill(false);
                }
                self.discover_all();
            }
            Action::Reset(number) => {
                let mut all = self.network.connections.iter();
                let one = all.find(|(_, c)| c.ends.contains(&number));
                if let Some(id) = one.map(|(id, _)| *id) {
                    self.hang_up(id, None);
                }
            }
            Action::Full(number, is_full) => {
                self.nodes[number].faults.is_full.store(is_full, Relaxed);
            }
            Action::Skew(number, hours) => self.nodes[number].skew += hours * 3600,
            Action::Settings(number) => self.settings(number),
            Action::Sleep(days) => self.sleep(days),
        }
    }

    /// Some acts in a row, as of a script.
    fn user_acts(&mut self, number: usize) {
        for _ in 0..self.random.within(1, 5) {
            self.with_user(number, |user| {
                let act = user.draw();
                (format!("{act:?}"), user.act(&act))
            });
        }
    }

    /// Lets a user do something, and checks what came of it.
    pub(crate) fn with_user(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut User<'_>) -> (String, Result<(), FsError>),
    ) {
        if !self.nodes[number].is_running() {
            return;
        }
        self.goes_to_work(number);
        let home = match self.is_apart {
            // who has lost his disk does not know what he had there
            true => format!("n{number}-{}/", self.nodes[number].identity.serial),
            false => String::new(),
        };
        self.make_home(number, &home);
        let is_alone = self.random.percent(30);
        let faults = Arc::clone(&self.nodes[number].faults);
        let now = self.nodes[number].source.now();
        let running = self.nodes[number].running.as_mut().expect("running");
        let mut user = User {
            node: number,
            running,
            random: &mut self.random,
            versions: &mut self.versions,
            model: self.models[number].as_mut(),
            home: &home,
            serial: &mut self.serial,
            now,
            faults: &faults,
            is_alone,
            synced: Vec::new(),
        };
        let (what, done) = act(&mut user);
        let synced = user.synced;
        if self.has_crashed(number) {
            self.log(|| format!("{number} was at {what}"));
            return;
        }
        self.note_synced(number, &synced);
        self.log(|| format!("{number} {what}: {done:?}"));
        self.counts.acts += 1;
        self.counts.refused += u64::from(done.is_err());
        if let Err(error @ (FsError::Damaged(_) | FsError::BadHandle)) = &done {
            panic!("{number} {what}: {error}");
        }
        self.check_model(number, &what);
        self.settle(number);
    }

    fn make_home(&mut self, number: usize, home: &str) {
        let Some(name) = home.strip_suffix('/') else {
            return;
        };
        let filesystem = self.nodes[number].filesystem();
        let me = delugefs::filesystem::Caller { uid: 7, gid: 8 };
        let root = delugefs::filesystem::Inode::ROOT;
        let made = filesystem.make_directory(root, name.as_bytes(), 0o755, me);
        if let (Ok(stat), Some(model)) = (made, &mut self.models[number]) {
            let thing = crate::oracle::Thing {
                body: crate::oracle::Body::Directory,
                mode: stat.mode,
                xattr: None,
            };
            model.insert(name.to_owned(), thing);
        }
    }

    /// The mount shows what it should, if it is watched.
    fn check_model(&mut self, number: usize, what: &str) {
        if self.models[number].is_some() {
            let shown = self.look(number);
            self.versions.check(number, &shown);
            let model = self.models[number].as_ref();
            assert_eq!(Some(&shown), model, "node {number} after {what}");
        }
    }

    /// All that a node shows, wherever the bytes are.
    pub(crate) fn look(&mut self, number: usize) -> Shown {
        Faults::set_alone(&self.nodes[number].faults, false);
        look(self.nodes[number].running.as_mut().expect("running"))
    }

    /// Two users make a file with the same bytes, or change it in the same way. Nobody else touches it.
    fn twins(&mut self, a: usize, b: usize) {
        if self.is_apart || a == b {
            return;
        }
        self.serial += 1;
        let path = format!(
            "{TWIN}{}-{}-{}",
            a.min(b),
            a.max(b),
            self.random.within(1, 2)
        );
        // small: what is still to be hashed when another's version comes becomes a conflict copy, whatever its bytes
        let bytes = format!("<twin {}>", self.serial).repeat(self.random.within(1, 4) as usize);
        let mut see = |number: usize| {
            let running = self.nodes[number].running.as_mut()?;
            Some(oracle::at(running, &path))
        };
        // both must be there, and see the same before
        let (one, other) = (see(a), see(b));
        if one.is_none() || one != other {
            return;
        }
        self.versions.twins(bytes.as_bytes());
        for number in [a, b] {
            self.with_user(number, |user| {
                let put = user.put(&path, bytes.as_bytes());
                (format!("twin {path}"), put)
            });
        }
    }

    pub(crate) fn close_all(&mut self, number: usize) {
        self.goes_to_work(number);
        if let Some(running) = &mut self.nodes[number].running {
            for open in std::mem::take(&mut running.open) {
                running.parts.filesystem.release(open.handle);
            }
            self.settle(number);
        }
    }

    /// The process ends at once. Whether there was one.
    pub(crate) fn kill(&mut self, number: usize) -> bool {
        if self.nodes[number].running.take().is_none() {
            return false;
        }
        self.counts.kills += 1;
        let all: Vec<_> = self
            .network
            .connections
            .iter()
            .map(|(id, c)| (*id, c.ends))
            .collect();
        for (id, ends) in all {
            if let Some(end) = ends.iter().position(|end| *end == number) {
                if self.random.percent(50) {
                    self.hang_up(id, Some(end));
                } else {
                    // A host that is gone does not even say so.
                    self.network.connections.remove(&id);
                }
            }
        }
        let delay = self.random.ms(50, 3000);
        self.after(delay, Next::Start(number));
        true
    }

    /// A crash between two steps.
    fn crash(&mut self, number: usize, crash: Crash) {
        if crash == Crash::Killed {
            self.kill(number);
        } else if self.nodes[number].is_running() {
            let root = self.nodes[number].root.clone();
            let image = disk::crash_now(&root, crash, &mut self.random);
            self.crash_to(number, crash, image, false);
        }
    }

    /// Whether a crash has come in the middle of what this node has just done; then nobody hears of that.
    pub(crate) fn has_crashed(&mut self, number: usize) -> bool {
        let root = self.nodes[number].root.clone();
        let Some((crash, image)) = disk::crashed(&root) else {
            return false;
        };
        self.log(|| format!("{number} {crash:?} in the middle of that"));
        self.crash_to(number, crash, image, true);
        true
    }

    fn crash_to(&mut self, number: usize, crash: Crash, image: Image, is_amidst: bool) {
        self.kill(number);
        let node = &mut self.nodes[number];
        node.is_adrift |= is_amidst;
        image.restore(&node.root);
        if crash == Crash::PowerCut {
            node.is_adrift = true;
            node.has_lost_power = true;
            node.source.boots.fetch_add(1, Relaxed);
            self.counts.power_cuts += 1;
            self.versions.power_lost(number);
            self.note_lost();
        }
    }

    /// Contents that are whole on no disk any more.
    pub(crate) fn note_lost(&mut self) {
        for content in self.not_whole(|_| true) {
            let bytes = self.archive.get(&content).unwrap_or_default();
            self.versions.lost(&bytes);
            self.lost.insert(content);
        }
    }

    /// A node was asked to make this durable. What it shows and has elsewhere is none of its disk's.
    fn note_synced(&mut self, number: usize, synced: &[Synced]) {
        if synced.is_empty() {
            return;
        }
        let elsewhere = self.not_whole(|node| node == number);
        let bytes = elsewhere
            .iter()
            .filter_map(|content| self.archive.get(content));
        let elsewhere: BTreeSet<_> = bytes.map(|bytes| bytes.to_vec()).collect();
        for synced in synced {
            match synced {
                Synced::File(bytes) if elsewhere.contains(bytes) => {}
                Synced::File(bytes) => self.versions.synced(number, bytes),
                Synced::All => self.versions.synced_all(number, &elsewhere),
            }
        }
    }

    /// Contents that are whole on none of these nodes' disks.
    fn not_whole(&self, is_asked: impl Fn(usize) -> bool) -> Vec<InfoHash> {
        let has = |node: &Node, content: &InfoHash| {
            let hex = content.to_string();
            let found = std::fs::read(node.root.join("data").join(&hex[..2]).join(&hex));
            found.is_ok_and(|found| self.archive.get(content).as_deref() == Some(&found[..]))
        };
        let nodes = self.nodes.iter().enumerate();
        let asked: Vec<_> = nodes.filter(|(number, _)| is_asked(*number)).collect();
        let mut contents = self.archive.all();
        contents.retain(|content| !asked.iter().any(|(_, node)| has(node, content)));
        contents
    }

    /// What was there before is there again.
    pub(crate) fn check_restarted(&mut self, number: usize) {
        if !std::mem::take(&mut self.nodes[number].is_adrift) {
            self.check_model(number, "a restart");
        }
    }

    /// Bytes that were synced have survived.
    pub(crate) fn check_power_cut(&mut self, number: usize) {
        if !std::mem::take(&mut self.nodes[number].has_lost_power) {
            return;
        }
        self.check_whole(number);
        let shown = self.look(number);
        self.versions.check(number, &shown);
        self.nodes[number].faults.set_alone(true);
        let running = self.nodes[number].running.as_mut().expect("running");
        let mut readable = readable(running, &shown);
        self.nodes[number].faults.set_alone(false);
        let lost: Vec<_> = self.archive.all();
        for content in lost.iter().filter(|content| !self.lost.contains(content)) {
            readable.extend(self.archive.get(content).map(|bytes| bytes.to_vec()));
        }
        self.versions
            .check_synced(number, |bytes| readable.contains(bytes));
    }

    /// What a node knows of contents, from wherever it has it, is what its names say.
    pub(crate) fn check_catalogue(&self, number: usize) {
        let parts = self.nodes[number].parts();
        let mut said = BTreeSet::new();
        let mut tell = |content, _| {
            said.insert(content);
        };
        let tree = parts.filesystem.base().tree;
        parts.repository.contents(tree, &mut tell).unwrap();
        let known: BTreeSet<_> = parts.replica.contents().into_iter().collect();
        assert_eq!(known, said, "node {number}");
    }

    /// What a disk calls complete, and so shows and serves, has the bytes that were sealed.
    fn check_whole(&self, number: usize) {
        let store = &self.nodes[number].parts().replica.store;
        for held in store.list().into_iter().filter(|held| held.complete) {
            let content = held.content.info_hash;
            let found = std::fs::read(store.path(&content)).unwrap();
            let sealed = self.archive.get(&content);
            assert!(
                sealed.as_deref() == Some(&found[..]),
                "node {number} takes {content} for complete, and it is torn"
            );
        }
    }

    fn wipe(&mut self, number: usize) {
        if !self.kill(number) {
            return;
        }
        self.counts.wipes += 1;
        std::fs::remove_dir_all(&self.nodes[number].root).unwrap();
        disk::forget(&self.nodes[number].root);
        self.note_lost();
        self.nodes[number].begin_anew(None);
        self.versions.disk_is(number, &Memory::new());
        if let Some(model) = &mut self.models[number] {
            model.clear();
        }
    }

    fn sleep(&mut self, days: u64) {
        for number in 0..self.nodes.len() {
            self.kill(number);
        }
        self.slept += Duration::from_secs(days * DAY);
    }
}
