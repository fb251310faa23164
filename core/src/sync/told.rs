//! One kind of announcement between this node and one peer: what the peer said last, and what it was told.

use super::agenda::Agenda;
use super::event::Now;
use super::limits::ANNOUNCE_REPEAT;
use std::time::Duration;

/// A map that both ends announce whole, again and again as it grows.
#[derive(Debug, Default)]
pub(super) struct Told<M> {
    /// What the peer announced last.
    pub(super) announced: M,
    said: Option<Said<M>>,
    /// The peer repeats itself, so it does not know where we are.
    is_asked: bool,
}

/// What the peer was told last.
#[derive(Debug)]
struct Said<M> {
    map: M,
    first: Now,
    last: Now,
    /// The peer has heard it, and keeps to what it has.
    is_heard: bool,
}

impl<M: PartialEq + Clone> Told<M> {
    /// Takes the peer's announcement.
    pub(super) fn hear(&mut self, announced: M, ours: &M, now: Now) {
        let is_repeated = self.announced == announced;
        let mut knows = false;
        if let Some(said) = self.said.as_mut().filter(|said| said.map == *ours) {
            // Who was told just now will soon know; this also keeps two nodes from answering each other for ever.
            knows = now < said.last + ANNOUNCE_REPEAT / 2;
            // Two can differ for good: history is cut here, and there not yet.
            said.is_heard |= is_repeated && now >= said.first + ANNOUNCE_REPEAT / 2;
        }
        self.is_asked = is_repeated && !knows;
        self.announced = announced;
    }

    /// Whether to announce `ours` now; counts as done if so.
    pub(super) fn is_due(&mut self, ours: &M, interval: Duration, agenda: &mut Agenda) -> bool {
        let said = self.said.as_ref();
        let same = said.filter(|said| said.map == *ours);
        let is_known = self.announced == *ours || same.is_some_and(|said| said.is_heard);
        if is_known && !self.is_asked {
            return false;
        }
        let pause = match same {
            Some(_) if !self.is_asked => ANNOUNCE_REPEAT,
            _ => interval,
        };
        if !agenda.due(said.map_or(Now::ZERO, |said| said.last + pause)) {
            return false;
        }
        let (now, first) = (agenda.now, same.map(|said| said.first));
        self.said = Some(Said {
            map: ours.clone(),
            first: first.unwrap_or(now),
            last: now,
            is_heard: same.is_some_and(|said| said.is_heard),
        });
        self.is_asked = false;
        true
    }
}
