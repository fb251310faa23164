//! When this node commits, and when it takes others' commits into its view. One at a time.

use super::agenda::{Agenda, Jitter, pause};
use super::event::{Effect, Now};
use super::limits::{COMMIT_RETRY_MAX, COMMIT_RETRY_MIN, GATHER, GATHER_MAX};

/// What the repository's one writer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Idle,
    Committing { since: Now },
    Rebasing { since: Now },
}

#[derive(Debug)]
pub(super) struct Committer {
    work: Work,
    /// Since when there are local changes that no commit under way has taken.
    pending: Option<Now>,
    /// Since when there are heads that the view does not show.
    arrived: Option<Now>,
    /// Not before this: a while after the last commit, about as long as it took, so that under load groups
    /// grow; longer after a failure.
    rest_until: Now,
    failures: u32,
}

impl Committer {
    pub(super) fn new() -> Self {
        Self {
            work: Work::Idle,
            pending: None,
            arrived: None,
            rest_until: Now::ZERO,
            failures: 0,
        }
    }

    pub(super) fn changed_here(&mut self, now: Now) {
        self.pending.get_or_insert(now);
    }

    pub(super) fn arrived(&mut self, now: Now) {
        self.arrived.get_or_insert(now);
    }

    /// The work under way is done, well or not.
    pub(super) fn finished(&mut self, is_done: bool, now: Now, jitter: &mut Jitter) {
        let since = match self.work {
            Work::Idle => return,
            Work::Committing { since } => {
                if !is_done {
                    self.pending = Some(since);
                }
                since
            }
            Work::Rebasing { since } => {
                if !is_done {
                    self.pending = Some(since);
                    self.arrived = Some(since);
                }
                since
            }
        };
        self.work = Work::Idle;
        self.failures = if is_done { 0 } else { self.failures + 1 };
        let rest = if is_done {
            now.saturating_sub(since).clamp(GATHER, GATHER_MAX)
        } else {
            jitter.spread(pause(self.failures, COMMIT_RETRY_MIN, COMMIT_RETRY_MAX))
        };
        self.rest_until = now + rest;
    }

    /// Whether all that is known is committed and shown.
    pub(super) fn is_settled(&self) -> bool {
        self.work == Work::Idle && self.pending.is_none() && self.arrived.is_none()
    }

    pub(super) fn decide(&mut self, pulls_run: bool, agenda: &mut Agenda) {
        if self.work != Work::Idle {
            return;
        }
        let gather = if pulls_run { GATHER } else { Now::ZERO };
        if let Some(arrived) = self.arrived {
            if agenda.due((arrived + gather).max(self.rest_until)) {
                // A rebase commits what is pending, too.
                self.work = Work::Rebasing { since: agenda.now };
                self.arrived = None;
                self.pending = None;
                agenda.push(Effect::Rebase);
            }
        } else if let Some(pending) = self.pending
            && agenda.due((pending + gather).max(self.rest_until))
        {
            self.work = Work::Committing { since: agenda.now };
            self.pending = None;
            agenda.push(Effect::Commit);
        }
    }
}
