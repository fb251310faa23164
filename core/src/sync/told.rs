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
    said: Option<(M, Now)>,
    /// The peer repeats itself, so it does not know where we are.
    is_asked: bool,
}

impl<M: PartialEq + Clone> Told<M> {
    /// Takes the peer's announcement.
    pub(super) fn hear(&mut self, announced: M, ours: &M, now: Now) {
        // Who was told just now will soon know; this also keeps two nodes from answering each other for ever.
        let said = self.said.as_ref();
        let knows = said.is_some_and(|(told, at)| told == ours && now < *at + ANNOUNCE_REPEAT / 2);
        self.is_asked = self.announced == announced && !knows;
        self.announced = announced;
    }

    /// Whether to announce `ours` now; counts as done if so.
    pub(super) fn is_due(&mut self, ours: &M, interval: Duration, agenda: &mut Agenda) -> bool {
        if self.announced == *ours && !self.is_asked {
            return false;
        }
        let at = match &self.said {
            None => Now::ZERO,
            Some((told, at)) if told == ours && !self.is_asked => *at + ANNOUNCE_REPEAT,
            Some((_, at)) => *at + interval,
        };
        if !agenda.due(at) {
            return false;
        }
        self.said = Some((ours.clone(), agenda.now));
        self.is_asked = false;
        true
    }
}
