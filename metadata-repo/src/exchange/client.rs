//! The pulling side: asks a peer for its author chains, fetches what is new, and moves our copies of them.

mod anew;
mod cut;
mod install;

use super::history::History;
use super::pack_reader;
use super::pktline::{self, BandReader, Line, Reader};
use super::quarantine::{Quarantine, Received};
use super::refs::{self, Locked};
use super::refusal::Lasting;
use super::store::Objects;
use super::verify::{Here, Move, Verdict, goes_on, is_in_others, verify};
use super::{ExchangeError, GitStore, PullLimits, Refusal, Refused, commit_id, object_id, request};
pub use anew::Anew;
pub(super) use anew::fetch_anew;
use cut::Cut;
use delugefs_core::ids::{BlobId, CommitId, IncarnationId};
use gix::ObjectId;
use gix::objs::Kind;
use std::collections::{BTreeMap, HashSet};
use std::io::{BufReader, BufWriter, Read, Write};

/// Rules for what comes from elsewhere, beyond Git's; an error is a sentence that says what is wrong.
pub trait Foreign {
    /// A blob of a received pack.
    fn check_blob(&self, blob: BlobId, raw: &[u8]) -> Result<(), String>;
    /// A commit that is new here, as it is stored.
    fn check_commit(&self, commit: CommitId, raw: &[u8]) -> Result<(), String>;
    /// A commit that is to become an author's head.
    fn check_head(&self, author: IncarnationId, commit: CommitId, raw: &[u8])
    -> Result<(), String>;
    /// Whether history may begin only where the tree of a head says that it is to be cut.
    fn wants_cuts_recorded(&self) -> bool {
        false
    }
}

/// No rules beyond Git's and the exchange's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trusting;

impl Foreign for Trusting {
    fn check_blob(&self, _: BlobId, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn check_commit(&self, _: CommitId, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn check_head(&self, _: IncarnationId, _: CommitId, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// How to pull.
pub struct PullOptions<'a> {
    /// This node's own incarnation, whose chain nobody else moves.
    pub own: Option<IncarnationId>,
    /// What a peer may send.
    pub limits: PullLimits,
    /// Rules beyond the volume's own.
    pub foreign: &'a dyn Foreign,
    /// Hears how far it has come, many times a second, on the thread that pulls.
    pub progress: &'a dyn Fn(PullProgress),
}

/// How far a pull has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullProgress {
    /// The peer looks for what it has to send, and says so now and then.
    Listed,
    /// Objects arrive.
    Arriving {
        /// So many have.
        objects: u32,
        /// Of so many.
        of: u32,
        /// Bytes of them, as they come.
        bytes: u64,
    },
    /// All has arrived, and is being checked.
    Checking,
}

fn in_silence(_: PullProgress) {}

impl Default for PullOptions<'_> {
    fn default() -> Self {
        Self {
            own: None,
            limits: PullLimits::default(),
            foreign: &Trusting,
            progress: &in_silence,
        }
    }
}

/// What a pull has brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pulled {
    /// Author chains that moved, and their heads now: all that is needed for them is here and synced.
    pub moved: Vec<(IncarnationId, CommitId)>,
    /// Chains that did not move since they break the rules; each head is told once, and not fetched again.
    pub refused: Vec<Refused>,
    /// Objects received.
    pub objects: usize,
}

/// Most lines of a capability advertisement: git sends about ten.
const CAPABILITIES_MAX: usize = 100;

/// Most commits at which a peer's history may be cut: nodes cut at one.
const CUTS_MAX: usize = 64;

/// Most bytes of a line that names a ref.
const REF_BYTES_MAX: usize = 1024;

/// Pulls over one connection to [`super::serve_from`]'s side, which is of no further use then. Takes one round
/// trip where nothing is new.
pub(crate) fn pull_into(
    store: &dyn GitStore,
    read: impl Read,
    write: impl Write,
    options: &PullOptions<'_>,
) -> Result<Pulled, ExchangeError> {
    let (mut lines, mut write, theirs) = begin(read, write, options)?;
    // read after the peer has answered: it cannot know more of our own chain than we do now
    let mut repository = store.git();
    let ours = refs::authors(&repository)?;
    let theirs = without_refused((store, &mut repository), &ours, theirs, options)?;
    let (theirs, crowded) = with_room(&ours, theirs, options.limits.refs_max);
    for one in &crowded {
        store.refusals().add(one);
    }
    let mut plan = plan(&mut repository, &ours, &theirs, options)?;
    if plan.moves.is_empty() {
        end(&mut write)?;
        return Ok(Pulled {
            refused: crowded,
            ..Pulled::default()
        });
    }
    let (received, told) = fetch(&mut lines, &mut write, &repository, (&plan, options))?;
    let _held = store.hold();
    let repository = store.git();
    // read again: others may have moved references, and history may have been cut
    let ours = refs::authors(&repository)?;
    plan.start_from(&ours);
    let here = Here {
        authors: &ours,
        genesis: refs::target(&repository, refs::GENESIS)?,
        boundary: store.boundary()?,
    };
    let cut = Cut::with(&repository, received.as_ref(), &told, (&plan.moves, &here))?;
    let objects = received.as_ref().map_or(0, Received::objects);
    let (ready, refused) = check(
        &repository,
        received.as_ref(),
        (&plan.moves, &here, &cut.commits),
        options,
    )?;
    let (locked, moved): (Vec<_>, Vec<_>) = ready.into_iter().unzip();
    if !moved.is_empty() {
        install::install(store, received, (cut.if_new(), locked))?;
        store.refresh();
    }
    for one in &refused {
        store.refusals().add(one);
    }
    Ok(Pulled {
        moved,
        refused: [crowded, refused].concat(),
        objects,
    })
}

/// Leaves out new authors beyond the limit: whoever has more can announce them to nobody.
fn with_room(
    ours: &BTreeMap<IncarnationId, ObjectId>,
    mut theirs: BTreeMap<IncarnationId, ObjectId>,
    limit: usize,
) -> (BTreeMap<IncarnationId, ObjectId>, Vec<Refused>) {
    let mut room = limit.saturating_sub(ours.len());
    let mut crowded = Vec::new();
    theirs.retain(|author, head| {
        if ours.contains_key(author) {
            return true;
        }
        if room == 0 {
            crowded.push(Refused {
                author: *author,
                head: commit_id(head),
                why: Refusal::Crowded { limit },
            });
            return false;
        }
        room -= 1;
        true
    });
    (theirs, crowded)
}

/// Leaves out what was refused before: it is neither fetched nor told again. A fork is looked at again once other
/// chains have what is here, for then it may move aside.
fn without_refused(
    (store, repository): (&dyn GitStore, &mut gix::Repository),
    ours: &BTreeMap<IncarnationId, ObjectId>,
    mut theirs: BTreeMap<IncarnationId, ObjectId>,
    options: &PullOptions<'_>,
) -> Result<BTreeMap<IncarnationId, ObjectId>, ExchangeError> {
    let cut = refs::cut(repository)?;
    let mut history = History::new(repository, cut, options.limits.commits_max);
    let mut refused = Vec::new();
    for (author, head) in &theirs {
        let known = store.refusals().find(*author, commit_id(head));
        let still = match (known, ours.get(author)) {
            (None, _) | (Some(Lasting::AsLongAsAlone), None) => false,
            (Some(Lasting::AsLongAsAlone), Some(own)) => {
                !is_in_others(&mut history, *author, *own, ours)?
            }
            (Some(_), _) => true,
        };
        if still {
            refused.push(*author);
        }
    }
    theirs.retain(|author, _| !refused.contains(author));
    Ok(theirs)
}

/// A ref that is ready to move, and how that is told.
type Ready = (Locked, (IncarnationId, CommitId));

/// Checks everything, then locks and writes the refs that are to move.
fn check(
    repository: &gix::Repository,
    received: Option<&Received>,
    asked: Asked<'_>,
    options: &PullOptions<'_>,
) -> Result<(Vec<Ready>, Vec<Refused>), ExchangeError> {
    checked(repository, received, asked, options, |history, verdict| {
        let mut ready = Vec::new();
        for one in verdict.good {
            if let Some(locked) = lock_ref(repository, history, one)? {
                ready.push((locked, (one.incarnation, commit_id(&one.new))));
            }
        }
        Ok((ready, verdict.refused))
    })
}

/// What is to move, from what, and where history is cut.
type Asked<'a> = (&'a [Move], &'a Here<'a>, &'a HashSet<ObjectId>);

/// Checks everything, and goes on with what came of it.
fn checked<T>(
    repository: &gix::Repository,
    received: Option<&Received>,
    (moves, here, cut): Asked<'_>,
    options: &PullOptions<'_>,
    go_on: impl FnOnce(&mut History<'_>, Verdict) -> Result<T, ExchangeError>,
) -> Result<T, ExchangeError> {
    let mut local = repository.clone();
    let mut quarantine;
    let objects: &mut dyn Objects = match received {
        None => &mut local,
        Some(received) => {
            quarantine = Quarantine::new(received, local)?;
            &mut quarantine
        }
    };
    let mut history = History::new(objects, cut.clone(), options.limits.commits_max).with_holes();
    let verdict = verify(&mut history, moves, here, options)?;
    check_own(&verdict, moves, options.own)?;
    cut::check_latest(&mut history, &verdict.refused, here, options.foreign)?;
    if here.authors.is_empty() && options.foreign.wants_cuts_recorded() {
        cut::check_recorded(&mut history, &verdict.good)?;
    }
    go_on(&mut history, verdict)
}

/// What this very incarnation has signed and has not here proves that there is, or was, another copy of it. What it
/// has not signed proves nothing: anyone can name any commit as its head.
fn check_own(
    verdict: &Verdict,
    moves: &[Move],
    own: Option<IncarnationId>,
) -> Result<(), ExchangeError> {
    let Some(asked) = moves.iter().find(|moved| Some(moved.incarnation) == own) else {
        return Ok(());
    };
    let is_forgery = verdict.refused.iter().any(|refused| {
        refused.author == asked.incarnation && !matches!(refused.why, Refusal::Forked { .. })
    });
    if is_forgery {
        return Ok(());
    }
    Err(ExchangeError::OwnChainAhead {
        ours: asked.old.map(|id| commit_id(&id)),
        theirs: commit_id(&asked.new),
    })
}

/// Locks a ref, unless another pull has meanwhile moved it as far or farther, or aside: the next pull tells of that.
fn lock_ref(
    repository: &gix::Repository,
    history: &mut History<'_>,
    one: Move,
) -> Result<Option<Locked>, ExchangeError> {
    let locked = Locked::take(repository, one.incarnation).map_err(ExchangeError::repository)?;
    let now = locked.current(repository)?;
    if now != one.old {
        let Some(now) = now else { return Ok(None) };
        if goes_on(history, now, one.new)? || !goes_on(history, one.new, now)? {
            return Ok(None);
        }
    }
    locked.write(one.new).map_err(ExchangeError::repository)?;
    Ok(Some(locked))
}

/// Both directions of a conversation that has begun, and the peer's refs.
type Begun<R, W> = (
    Reader<BufReader<R>>,
    BufWriter<W>,
    BTreeMap<IncarnationId, ObjectId>,
);

/// Asks a peer what it has.
fn begin<R: Read, W: Write>(
    read: R,
    write: W,
    options: &PullOptions<'_>,
) -> Result<Begun<R, W>, ExchangeError> {
    let mut write = BufWriter::new(write);
    let mut lines = Reader::new(BufReader::new(read));
    ask_refs(&mut write)?;
    read_advertisement(&mut lines)?;
    let theirs = read_refs(&mut lines, options.limits.refs_max)?;
    Ok((lines, write, theirs))
}

fn ask_refs(out: &mut dyn Write) -> Result<(), ExchangeError> {
    pktline::data(out, b"command=ls-refs\n")?;
    pktline::special(out, &Line::Delimiter)?;
    pktline::data(out, format!("ref-prefix {}\n", refs::AUTHORS).as_bytes())?;
    end(out)
}

/// Ends a request, and without one the conversation.
fn end(out: &mut dyn Write) -> Result<(), ExchangeError> {
    pktline::special(out, &Line::Flush)?;
    out.flush().map_err(ExchangeError::Connection)
}

fn read_advertisement(lines: &mut Reader<impl Read>) -> Result<(), ExchangeError> {
    if lines.expect("a greeting")?.text() != Some(b"version 2") {
        return Err(ExchangeError::protocol(
            "the peer does not speak Git's protocol version 2",
        ));
    }
    for _ in 0..CAPABILITIES_MAX {
        let line = lines.expect("a greeting")?;
        match line.text() {
            Some(text)
                if text
                    .strip_prefix(b"object-format=")
                    .is_some_and(|it| it != b"sha1") =>
            {
                return Err(ExchangeError::protocol(
                    "the peer's object format is not sha1",
                ));
            }
            Some(_) => {}
            None if line == Line::Flush => return Ok(()),
            None => break,
        }
    }
    Err(ExchangeError::protocol("a greeting that is none"))
}

fn read_refs(
    lines: &mut Reader<impl Read>,
    refs_max: usize,
) -> Result<BTreeMap<IncarnationId, ObjectId>, ExchangeError> {
    let mut refs = BTreeMap::new();
    loop {
        let line = lines.expect("a list of refs")?;
        let Some(text) = line.text() else {
            return match line {
                Line::Flush => Ok(refs),
                _ => Err(ExchangeError::protocol("a list of refs that is none")),
            };
        };
        let (incarnation, id) = parse_ref(text)?;
        if refs.len() >= refs_max {
            return Err(ExchangeError::Limit {
                what: "author chains",
                limit: refs_max as u64,
            });
        }
        if refs.insert(incarnation, id).is_some() {
            return Err(ExchangeError::protocol("a ref named twice"));
        }
    }
}

/// `ID NAME`, perhaps with attributes, none of which author refs have.
fn parse_ref(text: &[u8]) -> Result<(IncarnationId, ObjectId), ExchangeError> {
    let bad = || ExchangeError::protocol("a line that names no author's chain");
    let (id, name) = text.split_at_checked(40).ok_or_else(bad)?;
    let name = name.strip_prefix(b" ").ok_or_else(bad)?;
    if text.len() > REF_BYTES_MAX {
        return Err(bad());
    }
    let incarnation = refs::parse_author(name).ok_or_else(bad)?;
    let id = request::parse_id(id)?;
    if id.is_null() {
        return Err(bad());
    }
    Ok((incarnation, id))
}

/// What follows from the peer's refs and ours.
#[derive(Debug, Default)]
struct Plan {
    moves: Vec<Move>,
    /// New heads that are not surely here.
    wants: Vec<ObjectId>,
    /// What the peer needs not send.
    haves: Vec<ObjectId>,
}

fn plan(
    repository: &mut gix::Repository,
    ours: &BTreeMap<IncarnationId, ObjectId>,
    theirs: &BTreeMap<IncarnationId, ObjectId>,
    options: &PullOptions<'_>,
) -> Result<Plan, ExchangeError> {
    let cut = refs::cut(repository)?;
    let tips: Vec<_> = ours.values().copied().collect();
    let mut objects = repository.clone();
    let mut history = History::new(&mut objects, cut, options.limits.commits_max);
    let mut haves: HashSet<_> = tips.iter().copied().collect();
    let (mut plan, mut wants) = (Plan::default(), HashSet::new());
    for (incarnation, new) in theirs {
        let old = ours.get(incarnation).copied();
        if old == Some(*new) {
            continue;
        }
        let is_here = repository.kind_of(new)? == Some(Kind::Commit);
        let is_behind = match old {
            Some(old) if is_here => goes_on(&mut history, old, *new)?,
            _ => false,
        };
        if is_behind {
            haves.insert(*new);
            continue;
        }
        let has_arrived = is_here
            && history
                .unreachable(&tips, HashSet::from([*new]))?
                .is_empty();
        if !has_arrived {
            wants.insert(*new);
        }
        plan.moves.push(Move {
            incarnation: *incarnation,
            old,
            new: *new,
        });
    }
    plan.wants = sorted(wants);
    plan.haves = sorted(haves);
    Ok(plan)
}

impl Plan {
    /// The references that are to move are where they are now.
    fn start_from(&mut self, ours: &BTreeMap<IncarnationId, ObjectId>) {
        for one in &mut self.moves {
            one.old = ours.get(&one.incarnation).copied();
        }
        self.moves.retain(|one| one.old != Some(one.new));
    }
}

fn sorted(ids: HashSet<ObjectId>) -> Vec<ObjectId> {
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    ids
}

/// What comes of a fetch: the pack, if anything was wanted, and commits whose parents the peer has not.
type Fetched = (Option<Received>, HashSet<ObjectId>);

/// Fetches what is wanted, if anything, and ends the conversation. Where history is cut here is not told: what lies
/// below, the peer takes to be here.
fn fetch(
    lines: &mut Reader<impl Read>,
    out: &mut dyn Write,
    repository: &gix::Repository,
    (plan, options): (&Plan, &PullOptions<'_>),
) -> Result<Fetched, ExchangeError> {
    if plan.wants.is_empty() {
        end(out)?;
        return Ok(Fetched::default());
    }
    pktline::data(out, b"command=fetch\n")?;
    pktline::special(out, &Line::Delimiter)?;
    for (word, ids) in [("want", &plan.wants), ("have", &plan.haves)] {
        for id in ids {
            pktline::data(out, format!("{word} {id}\n").as_bytes())?;
        }
    }
    pktline::data(out, b"ofs-delta\n")?;
    pktline::data(out, b"done\n")?;
    end(out)?;
    let cut = read_sections(lines)?;
    let heard = || (options.progress)(PullProgress::Listed);
    let mut band = BandReader::new(lines, &heard);
    let directory = repository.objects.store_ref().path().to_owned();
    let received = pack_reader::receive(&mut |buffer| band.read(buffer), &directory, options)?;
    // whether the peer still hears that we are done does not matter: all has arrived
    let _ = end(out);
    Ok((Some(received), cut))
}

/// What stands before the pack: perhaps where the peer's history is cut.
fn read_sections(lines: &mut Reader<impl Read>) -> Result<HashSet<ObjectId>, ExchangeError> {
    let mut cut = HashSet::new();
    let mut first = lines.expect("an answer")?;
    if first.text() == Some(b"shallow-info") {
        loop {
            let line = lines.expect("where history is cut")?;
            let Some(text) = line.text() else { break };
            let id = text.strip_prefix(b"shallow ");
            let id = id.ok_or_else(|| ExchangeError::protocol("history that was not asked for"))?;
            cut.insert(request::parse_id(id)?);
            if cut.len() > CUTS_MAX {
                return Err(ExchangeError::Limit {
                    what: "commits at which history is cut",
                    limit: CUTS_MAX as u64,
                });
            }
        }
        first = lines.expect("a pack")?;
    }
    match first.text() {
        Some(b"packfile") => Ok(cut),
        _ => Err(ExchangeError::protocol(
            "something else than the pack that was asked for",
        )),
    }
}

/// Any bytes as a peer's greeting and list of refs: no panic, and no more refs than allowed.
pub fn fuzz_refs(bytes: &[u8]) {
    if let Ok(refs) = read_refs(&mut Reader::new(bytes), 10) {
        assert!(refs.len() <= 10);
        for id in refs.values() {
            assert_eq!(object_id(commit_id(id)), *id);
        }
    }
}

/// Any bytes as a peer's greeting: no panic.
pub fn fuzz_advertisement(bytes: &[u8]) {
    let _ = read_advertisement(&mut Reader::new(bytes));
}
