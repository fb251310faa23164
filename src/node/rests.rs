//! Who rests on what, as far as this node has heard, and its own word: what `core::past::rests` decides, in the file
//! `holdings/rests` and between nodes.
//!
//! The file is written before a node that is new is given history, and before an own word is told. One that is lost
//! or damaged begins anew, as one that may have forgotten somebody: then nothing is cut.

use super::inbox;
use super::members::Members;
use super::moving::base_view;
use super::names;
use super::shared::{Shared, unix_time};
use crate::durable;
use crate::link::Message;
use crate::link::codec::{FRAME_BYTES_MAX, WORDS_MAX};
use crate::link::keys::verify;
use crate::sync_ext::lock;
use bytes::Bytes;
use delugefs_core::ids::{CommitId, IncarnationId, VolumeId};
use delugefs_core::past::rests::codec::{self, CodecError, LIST_BYTES_MAX, WORD_BYTES_MAX};
use delugefs_core::past::rests::{Heard, Keys, Rests, Word};
use delugefs_core::sync::LinkId;
use delugefs_metadata_repo::{AHEAD_MAX, Repository, RepositoryError, Said};
use ed25519_dalek::{Signer as _, SigningKey};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

/// Bytes of words in one message; a frame has room for one more.
const MESSAGE_BYTES: usize = FRAME_BYTES_MAX - WORD_BYTES_MAX - 4096;

/// How seldom, at most, a node looks whether it rests on something new. The past is cut months later; but a disk may be
/// connected for minutes only.
const LOOK_EVERY_MAX: Duration = Duration::from_mins(5);

/// And a node looks so many times while history is kept.
pub(super) const LOOK_DIVISOR: u32 = 64;

/// How often, at most.
pub(super) const LOOK_EVERY_MIN: Duration = Duration::from_secs(2);

/// The list and its file.
pub struct RestFile {
    path: PathBuf,
    volume: VolumeId,
    state: Mutex<State>,
}

struct State {
    rests: Rests,
    /// Not written down yet.
    is_news: bool,
}

/// ed25519, as for commits.
struct Ed25519;

impl Keys for Ed25519 {
    fn verify(&self, key: &[u8; 32], bytes: &[u8], signature: &[u8; 64]) -> bool {
        verify(key, bytes, signature)
    }
}

/// Makes the list of an identity that is new and has met nobody: before that identity is ever used.
pub fn begin(holdings: &Path, own: IncarnationId) -> io::Result<()> {
    std::fs::create_dir_all(holdings)?;
    store(&file(holdings), &Rests::new(own))
}

fn file(holdings: &Path) -> PathBuf {
    holdings.join("rests")
}

fn store(path: &Path, rests: &Rests) -> io::Result<()> {
    durable::replace(path, &codec::encode(rests))?;
    durable::sync_name(path)
}

impl RestFile {
    /// Reads the list of an incarnation. Where there is none, one begins that may have forgotten whom was met before
    /// `now` (seconds since 1970).
    pub fn open(
        holdings: &Path,
        (own, volume): (IncarnationId, VolumeId),
        now: i64,
    ) -> io::Result<Self> {
        let path = file(holdings);
        let invalid = |error: CodecError| {
            let text = format!("{}: {error}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let rests = match read(&path)?.map(|bytes| codec::decode(&bytes, volume, &Ed25519)) {
            Some(Ok(rests)) if rests.own() == own => Some(rests),
            Some(Err(error @ CodecError::Version(_))) => return Err(invalid(error)),
            Some(Err(error)) => {
                let path = path.display();
                tracing::warn!("{path} is damaged ({error}): no history is cut for a while");
                None
            }
            Some(Ok(_)) | None => None,
        };
        let is_news = rests.is_none();
        let rests = rests.unwrap_or_else(|| Rests::lost(own, now));
        let state = Mutex::new(State { rests, is_news });
        let file = Self {
            path,
            volume,
            state,
        };
        file.store()?;
        Ok(file)
    }

    /// Somebody is about to be given history. On an error it must not be.
    pub fn meet(&self, incarnation: IncarnationId, now: i64) -> io::Result<()> {
        let mut state = lock(&self.state);
        state.is_news |= state.rests.meet(incarnation, now);
        state.store(&self.path)
    }

    /// Somebody was alive at a time, in seconds since 1970.
    pub fn note(&self, incarnation: IncarnationId, seen: i64) {
        let mut state = lock(&self.state);
        state.is_news |= state.rests.note(incarnation, seen);
    }

    /// Takes a word; what it comes to.
    pub fn hear(&self, word: &[u8], now: i64) -> Result<Heard, CodecError> {
        let word = Word::read(word, self.volume, &Ed25519)?;
        let mut state = lock(&self.state);
        let heard = state.rests.hear(word, now);
        state.is_news |= heard == Heard::News;
        Ok(heard)
    }

    /// Says that this incarnation rests on some heads, durably. The word, if that is news.
    pub fn say(
        &self,
        heads: &BTreeSet<CommitId>,
        key: &SigningKey,
        (now, retire): (i64, i64),
    ) -> io::Result<Option<Bytes>> {
        let mut state = lock(&self.state);
        let Some(rest) = state.rests.say(heads, now, retire) else {
            return Ok(None);
        };
        let sign = |bytes: &[u8]| key.sign(bytes).to_bytes();
        let public = key.verifying_key().to_bytes();
        let word = Word::sign(&rest, self.volume, (&public, &sign));
        let bytes = Bytes::copy_from_slice(word.bytes());
        // what cannot be written down is not said to anyone: after a restart it would be another's
        let mut with_it = state.rests.clone();
        with_it.said(word, now);
        store(&self.path, &with_it)?;
        state.rests = with_it;
        state.is_news = false;
        Ok(Some(bytes))
    }

    /// Writes down what is new.
    pub fn store(&self) -> io::Result<()> {
        lock(&self.state).store(&self.path)
    }

    /// What everyone rests on who is not retired; `None` if somebody may be missing.
    pub fn asked(&self, now: i64, retire: Duration) -> Option<Vec<BTreeSet<CommitId>>> {
        lock(&self.state).rests.asked(now, seconds(retire))
    }

    /// What each incarnation has said last.
    pub fn said(&self) -> Said {
        let state = lock(&self.state);
        let words = state.rests.words();
        words
            .map(|word| (word.incarnation(), word.rest().heads.clone()))
            .collect()
    }

    /// All words that are known.
    pub fn words(&self) -> Vec<Bytes> {
        let state = lock(&self.state);
        let words = state.rests.words();
        words
            .map(|word| Bytes::copy_from_slice(word.bytes()))
            .collect()
    }
}

impl State {
    fn store(&mut self, path: &Path) -> io::Result<()> {
        if self.is_news {
            store(path, &self.rests)?;
            self.is_news = false;
        }
        Ok(())
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match path.metadata() {
        Ok(metadata) if metadata.len() <= LIST_BYTES_MAX as u64 => std::fs::read(path).map(Some),
        Ok(_) => Ok(Some(Vec::new())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The volume's time, and when somebody was seen who is seen now, in seconds since 1970, by this node's clock and the
/// times at which authors last committed. The one is never far ahead of the newest commits, so that a clock that is wrong
/// retires nobody; the other is not before them.
pub fn times(authors: &BTreeMap<IncarnationId, i64>, clock: i64) -> (i64, i64) {
    let newest = authors.values().copied().max().unwrap_or(0);
    let now = clock.min(newest.saturating_add(AHEAD_MAX));
    (now, clock.max(newest))
}

fn clock() -> i64 {
    i64::try_from(unix_time()).unwrap_or(i64::MAX)
}

/// When somebody was last seen who is seen now: not before the newest commits, whatever this node's clock says.
pub(super) fn seen_now(repository: &Repository) -> i64 {
    let authors = repository.times().unwrap_or_default();
    times(&authors, clock()).1
}

/// Tells a new peer all words.
pub(super) fn introduce(shared: &Shared, link: LinkId) {
    for message in messages(shared.rests.words()) {
        shared.links.send(link, &message);
    }
}

/// Words in as few messages as they fit into.
fn messages(words: Vec<Bytes>) -> Vec<Message> {
    let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for word in words {
        bytes += word.len() + 4;
        part.push(word);
        if bytes >= MESSAGE_BYTES || part.len() >= WORDS_MAX {
            messages.push(Message::Rests(std::mem::take(&mut part)));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        messages.push(Message::Rests(part));
    }
    messages
}

/// A peer has told words; those that are news go on to all. Verifying takes time: the words keep their place among what
/// is taken from that link until it is done.
pub(super) fn heard(
    shared: &Arc<Shared>,
    link: LinkId,
    words: Vec<Bytes>,
    place: OwnedSemaphorePermit,
) {
    let worker = Arc::clone(shared);
    let peer = shared.links.get(link).map(|up| up.peer);
    let from = peer.map_or_else(String::new, |peer| inbox::label(shared, peer));
    tokio::task::spawn_blocking(move || {
        take(&worker, words, &from);
        drop(place);
    });
}

fn take(shared: &Shared, words: Vec<Bytes>, from: &str) {
    let now = seen_now(&shared.repository);
    let mut news = Vec::new();
    for word in words {
        match shared.rests.hear(&word, now) {
            Ok(Heard::News) => news.push(word),
            Ok(Heard::Known) => {}
            Ok(Heard::OwnNewer) => return names::restored(shared, from),
            Err(error) => tracing::debug!("{from} tells what nobody has signed: {error}"),
        }
    }
    for message in messages(news) {
        shared.links.broadcast(&message);
    }
}

/// Says again and again on what this node rests, as long as it runs.
pub(super) async fn keep_saying(shared: Arc<Shared>) {
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = sleep(LOOK_EVERY_MIN) => {}
        }
        // the settings may have changed meanwhile
        let every = shared.settings().history / LOOK_DIVISOR;
        if looked.elapsed() < every.min(LOOK_EVERY_MAX) {
            continue;
        }
        looked = Instant::now();
        let worker = Arc::clone(&shared);
        match tokio::task::spawn_blocking(move || say(&worker)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("cannot tell what this disk rests on: {error}"),
            Err(panic) => tracing::error!("telling what this disk rests on broke: {panic}"),
        }
    }
}

/// Says on what this node rests, if its mount shows all that it knows.
fn say(shared: &Shared) -> Result<(), SayError> {
    if !shared.publishing.goes_on() {
        return Ok(());
    }
    let now = note_all(shared)?;
    let heads = {
        let _still = lock(&shared.names_moving);
        let is_shown = shared.filesystem.base() == base_view(&shared.repository.view());
        match shared.repository.rests_on()? {
            Some(heads) if is_shown => heads,
            _ => return Ok(shared.rests.store()?),
        }
    };
    let retire = seconds(shared.settings().retire);
    let key = &shared.file.identity.keys.signing;
    if let Some(word) = shared.rests.say(&heads, key, (now, retire))? {
        shared.links.broadcast(&Message::Rests(vec![word]));
    }
    Ok(shared.rests.store()?)
}

/// Notes everyone that this node knows of by any other way, and gives the volume's time.
pub(super) fn note_all(shared: &Shared) -> Result<i64, RepositoryError> {
    let authors = shared.repository.times()?;
    let (now, seen) = times(&authors, clock());
    for (author, time) in authors {
        shared.rests.note(author, time);
    }
    note_members(&shared.rests, &lock(&shared.members), seen);
    Ok(now)
}

fn note_members(rests: &RestFile, members: &Members, now: i64) {
    for (_, member) in members.iter() {
        let seen = match member.address {
            Some(_) => now,
            None => i64::try_from(member.seen).unwrap_or(i64::MAX),
        };
        rests.note(member.incarnation, seen);
    }
}

/// Whole seconds.
pub(super) fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Why a node did not say on what it rests.
#[derive(Debug, thiserror::Error)]
enum SayError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use delugefs_metadata_repo::signature::Signer as _;

    const VOLUME: VolumeId = VolumeId::new([5; 16]);
    const RETIRE: i64 = 100;
    const NOW: i64 = 1000;

    fn key(number: u8) -> SigningKey {
        SigningKey::from_bytes(&[number; 32])
    }

    fn who(number: u8) -> IncarnationId {
        key(number).incarnation()
    }

    fn heads(number: u8) -> BTreeSet<CommitId> {
        [CommitId::new([number; 20])].into()
    }

    fn open(folder: &Path, number: u8) -> RestFile {
        RestFile::open(folder, (who(number), VOLUME), NOW).unwrap()
    }

    fn say(file: &RestFile, number: u8, on: u8) -> Option<Bytes> {
        file.say(&heads(on), &key(number), (NOW, RETIRE)).unwrap()
    }

    /// What everyone is asked for rests on; `None` if somebody may be missing.
    fn asked(file: &RestFile) -> Option<Vec<BTreeSet<CommitId>>> {
        file.asked(NOW, Duration::from_secs(RETIRE.cast_unsigned()))
    }

    #[test]
    fn what_was_said_met_and_heard_is_known_after_a_restart() {
        let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        begin(one.path(), who(1)).unwrap();
        begin(two.path(), who(2)).unwrap();
        let other = open(two.path(), 2);
        let word = say(&other, 2, 7).unwrap();
        let file = open(one.path(), 1);
        file.meet(who(3), NOW).unwrap();
        assert_eq!(file.hear(&word, NOW), Ok(Heard::News));
        let own = say(&file, 1, 8).unwrap();
        drop(file);
        let file = open(one.path(), 1);
        let rests = asked(&file).unwrap();
        assert_eq!(rests.len(), 3);
        assert!(rests.contains(&heads(7)) && rests.contains(&heads(8)));
        assert!(say(&file, 1, 8).is_none(), "it is said already");
        assert_eq!(other.hear(&own, NOW), Ok(Heard::News));
        assert_eq!(
            asked(&other).unwrap().len(),
            3,
            "also whom the other has met"
        );
        assert_eq!(file.words().len(), 2);
    }

    #[test]
    fn what_is_lost_damaged_or_anothers_has_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let is_silent = |number| {
            let file = open(folder.path(), number);
            asked(&file).is_none() && say(&file, number, 1).is_none()
        };
        assert!(is_silent(1), "no file");
        assert!(is_silent(1), "nor at the next start");
        begin(folder.path(), who(1)).unwrap();
        assert!(!is_silent(1));
        assert!(is_silent(2), "another incarnation's");
        begin(folder.path(), who(1)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(is_silent(1), "cut off");
        std::fs::write(&path, [&bytes[..7], &[9], &bytes[8..]].concat()).unwrap();
        assert!(RestFile::open(folder.path(), (who(1), VOLUME), NOW).is_err());
    }

    #[test]
    fn nobody_speaks_for_another() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), who(1)).unwrap();
        let file = open(folder.path(), 1);
        let word = say(&file, 1, 1).unwrap();
        let mut forged = word.to_vec();
        forged[..32].copy_from_slice(key(2).verifying_key().as_bytes());
        assert_eq!(file.hear(&forged, NOW), Err(CodecError::Signature));
    }

    #[test]
    fn words_travel_in_messages_that_fit_into_a_frame() {
        let word = Bytes::from(vec![0; WORD_BYTES_MAX]);
        let all = messages(vec![word; 100]);
        assert!(all.iter().all(|it| crate::link::codec::encode(it).is_ok()));
        let count = |message: &Message| match message {
            Message::Rests(words) => words.len(),
            _ => 0,
        };
        assert_eq!(all.iter().map(count).sum::<usize>(), 100);
        assert!(messages(Vec::new()).is_empty());
    }
}
