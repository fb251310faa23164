//! What the owner is told of a start that had something to do: one line.

use crate::bytes::torn::Checked;
use crate::cli::units::show_size;
use crate::filesystem::Recovered;
use std::time::Duration;

/// `None` where the last run has ended well.
pub(super) fn sentence(found: Recovered, checked: Checked, took: Duration) -> Option<String> {
    if found == Recovered::default() && checked == Checked::default() {
        return None;
    }
    let size = show_size(checked.bytes);
    let parts = [
        (found.changes, "changes taken from the journal".to_owned()),
        (
            found.taken_up,
            "files that were being written taken up".to_owned(),
        ),
        (
            found.older,
            "files shown in their older version (never synced)".to_owned(),
        ),
        (
            checked.whole + checked.damaged,
            format!("contents read again ({size})"),
        ),
        (checked.damaged, "of those damaged".to_owned()),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let took = took.as_secs_f32();
    Some(format!("recovered in {took:.1} s: {}", parts.join(", ")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn says_only_what_was_done() {
        let took = Duration::from_millis(1234);
        assert_eq!(
            sentence(Recovered::default(), Checked::default(), took),
            None
        );
        let found = Recovered {
            changes: 7,
            older: 1,
            ..Recovered::default()
        };
        let checked = Checked {
            whole: 2,
            damaged: 1,
            bytes: 3 << 20,
        };
        assert_eq!(
            sentence(found, checked, took).unwrap(),
            "recovered in 1.2 s: 7 changes taken from the journal, 1 files shown in their older version (never synced), \
             3 contents read again (3.0 MiB), 1 of those damaged"
        );
    }
}
