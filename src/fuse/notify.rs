//! Telling the kernel what to forget, from a thread that nothing waits for: it may have to wait for a folder
//! that a request holds, and that request must be free to go on.

use super::waits::Resizing;
use crate::filesystem::{Inode, Invalidation};
use fuser::{INodeNo, Notifier};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Invalidations that wait, about 17 µs of work each: a few seconds of it. Beyond this, senders wait; none is
/// dropped, as the kernel would show the old state for up to an hour.
const INVALIDATIONS_MAX: usize = 1 << 18;

/// Hands invalidations to the kernel, in order. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Invalidator(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Invalidation>,
    ended: bool,
}

impl Invalidator {
    /// Starts the thread; it ends with [`Invalidator::end`].
    pub(super) fn start(notifier: Notifier, resizing: Resizing) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let thread = std::thread::Builder::new().name("fuse-invalidate".into());
        let own = Arc::clone(&queue);
        thread.spawn(move || {
            while let Some(invalidation) = own.next() {
                tell(&notifier, &resizing, &invalidation);
            }
        })?;
        Ok(Self(queue))
    }

    /// Queues; returns at once unless a quarter of a million are waiting. Never call it from within the
    /// filesystem or under a lock that a request may need. Does nothing once unmounted.
    pub fn send(&self, invalidations: Vec<Invalidation>) {
        let mut state = self.0.lock();
        for invalidation in invalidations {
            while state.waiting.len() >= INVALIDATIONS_MAX && !state.ended {
                state = self.0.wait(state);
            }
            if state.ended {
                return;
            }
            state.waiting.push_back(invalidation);
            if state.waiting.len() == 1 {
                self.0.changed.notify_all();
            }
        }
    }

    /// Nothing is mounted any more.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.waiting.clear();
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Invalidation> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            if let Some(next) = state.waiting.pop_front() {
                if state.waiting.len() + 1 == INVALIDATIONS_MAX {
                    self.changed.notify_all();
                }
                return Some(next);
            }
            state = self.wait(state);
        }
    }
}

fn tell(notifier: &Notifier, resizing: &Resizing, invalidation: &Invalidation) {
    let told = match invalidation {
        Invalidation::Entry { parent, name } => forget(notifier, *parent, name),
        Invalidation::Deleted {
            parent,
            child,
            name,
        } => delete(notifier, resizing, (*parent, *child), name),
        // Attributes alone: a range of bytes would wait for reads of them, which wait for us.
        Invalidation::Attributes(inode) => notifier.inval_inode(INodeNo(inode.0), -1, 0),
    };
    if let Err(error) = told {
        tracing::debug!(%error, ?invalidation, "the kernel did not take an invalidation");
    }
}

fn forget(notifier: &Notifier, parent: Inode, name: &[u8]) -> io::Result<()> {
    notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
}

/// A deletion takes the child's lock, which a truncation holds while it waits for bytes: then the name alone
/// is forgotten, and no watcher of the file is told.
fn delete(
    notifier: &Notifier,
    resizing: &Resizing,
    (parent, child): (Inode, Inode),
    name: &[u8],
) -> io::Result<()> {
    if resizing.contains(child) {
        return forget(notifier, parent, name);
    }
    let (parent_number, child) = (INodeNo(parent.0), INodeNo(child.0));
    let deleted = notifier.delete(parent_number, child, OsStr::from_bytes(name));
    // A folder that the kernel has names of, or something mounted there.
    deleted.or_else(|_| forget(notifier, parent, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: usize) -> Vec<Invalidation> {
        let each = 0..count as u64;
        each.map(|inode| Invalidation::Attributes(Inode(inode)))
            .collect()
    }

    #[test]
    fn a_full_queue_makes_senders_wait_and_loses_nothing() {
        let queue = Invalidator(Arc::default());
        queue.send(some(INVALIDATIONS_MAX));
        let sender = queue.clone();
        let more = std::thread::spawn(move || sender.send(some(2)));
        for inode in 0..INVALIDATIONS_MAX as u64 {
            let next = queue.0.next();
            assert_eq!(next, Some(Invalidation::Attributes(Inode(inode))));
        }
        for inode in 0..2 {
            let next = queue.0.next();
            assert_eq!(next, Some(Invalidation::Attributes(Inode(inode))));
        }
        assert!(more.join().is_ok());
    }

    #[test]
    fn the_end_frees_senders_and_the_thread() {
        let queue = Invalidator(Arc::default());
        queue.send(some(INVALIDATIONS_MAX));
        let sender = queue.clone();
        let more = std::thread::spawn(move || sender.send(some(2)));
        queue.end();
        assert!(more.join().is_ok());
        assert_eq!(queue.0.next(), None);
    }
}
