//! Who comes back from before where history is cut brings along what it has made and changed, and nothing else.

use super::cut::{cut, edits, file, pull, record, sweep};
use super::faults::with_good_syncs;
use super::support::*;
use super::upkeep::assert_whole;
use crate::exchange::tests::{exchange_with, fetch_all};
use crate::exchange::{Anew, ExchangeError, PullOptions};
use crate::{Authoring, Repository, RepositoryError, Said, Today, View};
use delugefs_core::change::Changes;
use delugefs_core::entry::{Content, Kind};
use delugefs_core::ids::{CommitId, EntryId};
use delugefs_core::time::Timestamp;
use std::collections::BTreeSet;
use std::path::Path;
use tempfile::TempDir;

/// Names and texts of what a node shows.
pub(super) fn shown(node: &Node) -> Vec<String> {
    let mut shown = Vec::new();
    for listed in node.repository.directory(node.view.tree).unwrap() {
        if let Kind::File(file) = &listed.entry.kind
            && let Content::Inline(text) = &file.content
        {
            let text = String::from_utf8_lossy(text);
            shown.push(format!("{}: {text}", listed.name));
        }
    }
    shown
}

pub(super) fn remove(node: &mut Node, number: u32) {
    let changes = [change(&node.model, id(number), None)];
    node.author(&changes.into_iter().collect());
}

/// One that was away, and has worked on, and one that has cut history since.
struct Away {
    scratch: TempDir,
    late: Node,
    today: Node,
    /// The last commit that both have.
    last: CommitId,
}

fn away() -> Away {
    let scratch = TempDir::new().unwrap();
    let mut today = Node::create(&scratch.path().join("today"), 1);
    let mut late = Node::create(&scratch.path().join("late"), 2);
    for node in [&mut today, &mut late] {
        node.durable = true;
    }
    today.put([2, 3, 4, 5, 8].map(|number| file(number, "old")));
    pull(&mut late, &today);
    late.put([file(6, "of late")]);
    pull(&mut today, &late);
    let last = edits(&mut today, 1)[0];
    pull(&mut late, &today);
    late.put([file(7, "made away"), file(2, "edited away")]);
    late.put([file(5, "edited by late")]);
    remove(&mut late, 3);
    // another one takes the name of one that moves
    let moved = placed(EntryId::ROOT, "moved", entry(id(8), inline(b"old")));
    let named = placed(EntryId::ROOT, "f8", entry(id(18), inline(b"new")));
    late.put([moved, named]);
    today.put([file(4, "edited today"), file(5, "edited by both")]);
    remove(&mut today, 6);
    let commits = edits(&mut today, 3);
    record(&mut today, commits[1]);
    cut(&today, commits[1]);
    sweep(&today);
    Away {
        scratch,
        late,
        today,
        last,
    }
}

fn fetched(away: &Away) -> Today {
    let (late, today) = (&away.late.repository, &away.today.repository);
    let pulled = exchange_with(late, today, &PullOptions::default());
    assert!(
        matches!(pulled, Err(ExchangeError::Cut { .. })),
        "{pulled:?}"
    );
    let options = PullOptions {
        own: Some(away.late.incarnation),
        ..PullOptions::default()
    };
    let history = fetch_all(late, today, &options).unwrap();
    assert_eq!(history.cut.len(), 1);
    let shared = BTreeSet::from([away.last]);
    Today {
        history,
        shared,
        left: BTreeSet::new(),
    }
}

pub(super) fn import(node: &Node, today: &Today) -> Result<View, RepositoryError> {
    node.repository.import(
        &Authoring {
            signer: &node.key,
            label: "late",
            base: &node.view,
            changes: &Changes::new(),
            settings: None,
            infos: &node.infos,
            journal_sequence: 0,
            now: Timestamp::from_seconds(node.now),
            durable: true,
            even_if_nothing: false,
            resolve: &|_| None,
        },
        today,
    )
}

/// As it is on disk.
fn reopened(path: &Path, boot: &str) -> Node {
    Node::new(Repository::open_in(path, boot).unwrap(), 2)
}

#[test]
fn what_was_made_and_edited_away_comes_along_and_nothing_is_removed_or_brought_back() {
    let mut away = away();
    let today = fetched(&away);
    let view = import(&away.late, &today).unwrap();
    away.late.refresh();
    assert_eq!(away.late.view, view);
    let found = shown(&away.late);
    let conflict = |line: &&String| line.contains("(conflict ");
    let conflicts: Vec<_> = found.iter().filter(conflict).collect();
    assert_eq!(conflicts.len(), 2, "{found:?}");
    assert!(conflicts[0].starts_with("f5 (conflict "), "{found:?}");
    assert!(conflicts[1].starts_with("f8 (conflict "), "{found:?}");
    let others: Vec<_> = found.iter().filter(|line| !conflict(line)).collect();
    assert!(others[0].starts_with("f1: edit "), "{found:?}");
    let expected = ["f2: edited away", "f3: old", "f4: edited today"];
    assert_eq!(others[1..4], expected, "{found:?}");
    assert!(others[4].starts_with("f5: edited by "), "{found:?}");
    assert_eq!(others[5], "f7: made away", "f6 was removed meanwhile");
    assert!(
        others[6].starts_with("f8: ") && others.len() == 7,
        "{found:?}"
    );

    let sequence = away.late.repository.sequence(incarnation(2)).unwrap();
    assert_eq!(
        sequence,
        Some(away.late.sequence),
        "its place in the journal"
    );
    assert_eq!(away.late.repository.cuts().unwrap(), today.history.cut);
    pull(&mut away.today, &away.late);
    assert_eq!(away.today.view, away.late.view);
    for _ in 0..2 {
        edits(&mut away.late, 1);
        pull(&mut away.today, &away.late);
        edits(&mut away.today, 1);
        pull(&mut away.late, &away.today);
    }
    assert_eq!(away.today.view, away.late.view);
    sweep(&away.late);
    for node in [&away.late, &away.today] {
        assert_whole(node);
    }
}

#[test]
fn an_import_that_is_stopped_at_any_sync_is_done_or_not() {
    for good in 0..100 {
        let away = away();
        let before = away.late.view.clone();
        let path = away.scratch.path().join("late");
        let today = fetched(&away);
        if let Ok(view) = with_good_syncs(good, || import(&away.late, &today)) {
            assert!(good > 8, "{good} syncs in all");
            assert_ne!(view, before);
            return;
        }
        assert_eq!(away.late.repository.view(), before, "reading goes on");
        for boot in ["the same", "another boot"] {
            let again = reopened(&path, boot);
            let is_done = !again.repository.cuts().unwrap().is_empty();
            let texts = shown(&again);
            assert_eq!(again.view != before, is_done, "after {good} syncs");
            assert!(texts.contains(&"f7: made away".to_owned()), "{texts:?}");
            let has_today = texts.contains(&"f4: edited today".to_owned());
            assert_eq!(has_today, is_done);
            assert_eq!(again.repository.authors().unwrap().len(), 2);
            let sequence = again.repository.sequence(incarnation(2)).unwrap();
            assert_eq!(sequence, Some(away.late.sequence));
        }
    }
    panic!("never more than some syncs");
}

#[test]
fn what_has_come_and_is_not_shown_yet_is_not_left_behind() {
    let mut away = away();
    let mut third = Node::create(&away.scratch.path().join("third"), 3);
    third.put([file(9, "of a third")]);
    let today = fetched(&away);
    let pulled = exchange_with(
        &away.late.repository,
        &third.repository,
        &PullOptions::default(),
    );
    assert_eq!(pulled.unwrap().moved.len(), 1);
    let imported = import(&away.late, &today);
    assert!(
        matches!(imported, Err(RepositoryError::Rules { .. })),
        "{imported:?}"
    );
    away.late.refresh();
    import(&away.late, &today).unwrap();
    away.late.refresh();
    assert!(shown(&away.late).contains(&"f9: of a third".to_owned()));
}

#[test]
fn who_has_cut_later_does_not_go_back() {
    let away = away();
    let mut today = fetched(&away);
    let mut other = Node::create(&away.scratch.path().join("other"), 2);
    let commits = edits(&mut other, 3);
    other.now += 10;
    record(&mut other, commits[1]);
    let history: Anew = fetch_all(
        &other.repository,
        &away.today.repository,
        &PullOptions::default(),
    )
    .unwrap();
    today.history = history;
    let imported = import(&other, &today);
    assert!(
        matches!(imported, Err(RepositoryError::Rules { .. })),
        "{imported:?}"
    );
}

#[test]
fn what_lies_beside_a_boundary_comes_over_it() {
    let scratch = TempDir::new().unwrap();
    let mut today = Node::create(&scratch.path().join("today"), 1);
    let mut late = Node::create(&scratch.path().join("late"), 2);
    today.put([2, 3].map(|number| file(number, "old")));
    pull(&mut late, &today);
    late.put([file(7, "made away"), file(2, "edited away")]);
    remove(&mut late, 3);
    let commits = edits(&mut today, 3);
    record(&mut today, commits[1]);
    // it has recorded, and not cut: all can be pulled
    pull(&mut late, &today);
    let mut late = Node {
        view: late.repository.view(),
        ..late
    };
    assert!(!shown(&late).contains(&"f3: old".to_owned()));
    let beside = |node: &Node| {
        node.repository
            .without_what_lies_beside(commits[1])
            .unwrap()
    };
    assert_eq!(beside(&today), None);
    let history = beside(&late).unwrap();
    assert_eq!(history.history.authors.len(), 1);
    import(&late, &history).unwrap();
    late.refresh();
    let found = shown(&late);
    assert!(found[0].starts_with("f1: edit "), "{found:?}");
    assert_eq!(found[1..], ["f2: edited away", "f3: old", "f7: made away"]);
    assert_eq!(beside(&late), None);
    pull(&mut today, &late);
    assert_eq!(today.view, late.view);
    assert!(
        today
            .repository
            .cut(commits[1], today.incarnation, &Said::new())
            .unwrap()
    );
    assert_whole(&today);
    assert_whole(&late);
}
