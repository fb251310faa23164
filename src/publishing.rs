//! Whether a node goes on publishing. What must not be false has been found false (a sync that failed, a merge that
//! panicked, a journal that takes nothing more): what is written from then on might be lost or wrong, and must reach
//! neither the disk as if it were safe nor other nodes. So the node becomes read-only for the volume, once and until it
//! is started again: it refuses changes, commits and pulls nothing, says why, and keeps serving what it has.

use crate::sync_ext::lock;
use std::sync::{Arc, Mutex};

/// One node's; all clones are the same. Whoever finds an invariant broken calls [`Publishing::stop`].
#[derive(Debug, Clone, Default)]
pub struct Publishing(Arc<Mutex<Option<String>>>);

impl Publishing {
    /// Ends it. The first reason stays: what fails afterwards mostly follows from it.
    pub fn stop(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut stopped = lock(&self.0);
        if stopped.is_some() {
            tracing::debug!("once more: {reason}");
            return;
        }
        tracing::error!(
            "READ-ONLY from now on: {reason}. Nothing more is taken or published by this node, reading goes on; \
             what was not published waits in the journal. Look after the disk, then start the node again"
        );
        *stopped = Some(reason);
    }

    /// Why it has ended, if it has.
    pub fn stopped(&self) -> Option<String> {
        lock(&self.0).clone()
    }

    /// Does work on a thread that may block. A panic in it is a broken invariant: of what, it is to be said.
    pub async fn guard<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => Some(done),
            Err(panic) => {
                self.stop(format!("{what}: {panic}"));
                None
            }
        }
    }

    /// Whether it goes on.
    pub fn goes_on(&self) -> bool {
        lock(&self.0).is_none()
    }
}

/// What a panic says, for the reason.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_stays() {
        let publishing = Publishing::default();
        let clone = publishing.clone();
        assert!(publishing.goes_on() && publishing.stopped().is_none());
        clone.stop("one");
        publishing.stop("two");
        assert!(!clone.goes_on());
        assert_eq!(publishing.stopped().as_deref(), Some("one"));
    }

    #[tokio::test]
    async fn a_panic_ends_it_and_says_where() {
        let publishing = Publishing::default();
        assert_eq!(publishing.guard("a merge has broken", || 7).await, Some(7));
        assert!(publishing.goes_on());
        let broken = || panic!("two parents");
        let merged: Option<()> = publishing.guard("a merge has broken", broken).await;
        assert_eq!(merged, None);
        let reason = publishing.stopped().unwrap_or_default();
        assert!(reason.starts_with("a merge has broken: "), "{reason}");
        assert!(reason.contains("two parents"), "{reason}");
    }
}
