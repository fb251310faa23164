//! Between two repositories.

use super::super::GitStore as _;
use super::super::{
    ExchangeError, Foreign, PullOptions, Pulled, Refusal, Refused, ServeLimits, ServeOptions,
    pull_into, serve_from,
};
use super::support::{
    Node, commit_id, git, incarnation, pull, pull_with, serving, streams, trusting,
};
use delugefs_core::ids::{BlobId, CommitId, IncarnationId};
use std::cell::Cell;
use std::time::{Duration, Instant};

#[test]
fn everything_then_one_commit_then_nothing() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a.torrent", "a"), ("d/b.torrent", "b")]);
    let pulled = pull(&to, &from);
    assert_eq!(pulled.moved, [(incarnation(1), commit_id(first))]);
    assert_eq!(pulled.objects, 5);
    let second = from.commit(1, &[first], &[("a.torrent", "a"), ("d/b.torrent", "new")]);
    let pulled = pull(&to, &from);
    assert_eq!(pulled.moved, [(incarnation(1), commit_id(second))]);
    assert_eq!(pulled.objects, 4, "a commit, two trees, a blob");
    assert_eq!(pull(&to, &from), Pulled::default());
    assert_eq!(to.author(1), Some(second));
    to.fsck();
}

#[test]
fn both_ways_with_work_on_both_sides() {
    let (one, two) = (Node::new(), Node::new());
    let base = one.commit(1, &[], &[("a", "0")]);
    pull(&two, &one);
    let ours = one.commit(1, &[base], &[("a", "1")]);
    let theirs = two.commit(2, &[base], &[("a", "0"), ("b", "2")]);
    assert_eq!(
        pull(&one, &two).moved,
        [(incarnation(2), commit_id(theirs))]
    );
    assert_eq!(pull(&two, &one).moved, [(incarnation(1), commit_id(ours))]);
    let merged = two.commit(2, &[ours, theirs], &[("a", "1"), ("b", "2")]);
    let pulled = pull(&one, &two);
    assert_eq!(pulled.moved, [(incarnation(2), commit_id(merged))]);
    assert_eq!(
        pulled.objects, 2,
        "the merge and its tree: the rest is known by one parent or the other"
    );
    one.fsck();
    two.fsck();
}

#[test]
fn a_peer_that_is_behind_moves_nothing_back() {
    let (ahead, behind) = (Node::new(), Node::new());
    let first = ahead.commit(1, &[], &[("a", "0")]);
    pull(&behind, &ahead);
    let second = ahead.commit(1, &[first], &[("a", "1")]);
    assert_eq!(pull(&ahead, &behind), Pulled::default());
    assert_eq!(ahead.author(1), Some(second));
}

#[test]
fn a_revert_that_repeats_a_tree_is_whole() {
    let (from, to) = (Node::new(), Node::new());
    let files = |text| [("d/a", text), ("d/b", "same"), ("c", "same")];
    let mut head = from.commit(1, &[], &files("0"));
    for text in ["1", "0", "1", "0"] {
        head = from.commit(1, &[head], &files(text));
    }
    assert_eq!(pull(&to, &from).moved.len(), 1);
    to.fsck();
    let halfway = Node::new();
    let first = from
        .git()
        .rev_parse_single(format!("{head}~3").as_str())
        .unwrap()
        .detach();
    from.set_author(1, first);
    pull(&halfway, &from);
    from.set_author(1, head);
    pull(&halfway, &from);
    halfway.fsck();
}

#[test]
fn a_head_that_came_with_another_chain_needs_no_pack() {
    let (from, to) = (Node::new(), Node::new());
    let one = from.commit(1, &[], &[("a", "0")]);
    let two = from.commit(2, &[one], &[("a", "1")]);
    from.git()
        .find_reference(&format!("refs/authors/{}", incarnation(1)))
        .unwrap()
        .delete()
        .unwrap();
    pull(&to, &from);
    from.set_author(1, one);
    let pulled = pull(&to, &from);
    assert_eq!(
        (pulled.moved, pulled.objects),
        (vec![(incarnation(1), commit_id(one))], 0)
    );
    assert_eq!(to.author(2), Some(two));
}

#[test]
fn a_pull_that_another_has_overtaken_takes_nothing_for_a_fork() {
    let (slow, quick, to) = (Node::new(), Node::new(), Node::new());
    let first = slow.commit(1, &[], &[("a", "0")]);
    for node in [&quick, &to] {
        pull(node, &slow);
    }
    let second = slow.commit(1, &[first], &[("a", "1")]);
    pull(&quick, &slow);
    let third = quick.commit(1, &[second], &[("a", "2")]);
    let overtaken = Cell::new(false);
    let overtake = |_| {
        if !overtaken.replace(true) {
            let moved = pull(&to, &quick).moved;
            assert_eq!(moved, [(incarnation(1), commit_id(third))]);
        }
    };
    let options = PullOptions {
        progress: &overtake,
        ..trusting()
    };
    let pulled = pull_with(&to, &slow, &options).0.unwrap();
    assert!(overtaken.get());
    assert_eq!((pulled.moved, pulled.refused), (vec![], vec![]));
    assert_eq!(to.author(1), Some(third));
}

#[test]
fn own_chain_ahead_is_told_and_not_taken() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a", "0")]);
    pull(&to, &from);
    let own = PullOptions {
        own: Some(incarnation(1)),
        ..trusting()
    };
    assert_eq!(pull_with(&to, &from, &own).0.unwrap(), Pulled::default());
    let lost = from.commit(1, &[first], &[("a", "1")]);
    from.commit(2, &[lost], &[("a", "2")]);
    let (pulled, _) = pull_with(&to, &from, &own);
    let Err(ExchangeError::OwnChainAhead { ours, theirs }) = pulled else {
        panic!("{pulled:?}")
    };
    assert_eq!((ours, theirs), (Some(commit_id(first)), commit_id(lost)));
    assert_eq!((to.author(1), to.author(2)), (Some(first), None));
}

#[test]
fn a_chain_that_forks_is_refused_and_the_others_move() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a", "0")]);
    let ours = from.commit(1, &[first], &[("a", "1")]);
    pull(&to, &from);
    let theirs = from.commit(1, &[first], &[("a", "other")]);
    let good = from.commit(2, &[first], &[("a", "2")]);
    let pulled = pull(&to, &from);
    assert_eq!(pulled.moved, [(incarnation(2), commit_id(good))]);
    let refused = Refused {
        author: incarnation(1),
        head: commit_id(theirs),
        why: Refusal::Forked {
            ours: commit_id(ours),
            theirs: commit_id(theirs),
        },
    };
    assert_eq!(pulled.refused, [refused]);
    assert_eq!((to.author(1), to.author(2)), (Some(ours), Some(good)));
    assert_eq!(
        pull(&to, &from),
        Pulled::default(),
        "neither asked for nor told again"
    );
    // the same rival from another peer, and one that goes on from it
    let next = from.commit(1, &[theirs], &[("a", "more")]);
    let third = Node::new();
    pull(&third, &from);
    let pulled = pull(&to, &third);
    assert_eq!((pulled.moved.len(), pulled.refused.len()), (0, 1));
    assert_eq!(pulled.refused[0].head, commit_id(next));
    to.fsck();
}

#[test]
fn a_rival_that_others_have_built_on_is_in_their_history() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a", "0")]);
    let ours = from.commit(1, &[first], &[("a", "1")]);
    pull(&to, &from);
    let theirs = from.commit(1, &[first], &[("a", "other")]);
    let on_it = from.commit(2, &[theirs], &[("a", "2")]);
    let pulled = pull(&to, &from);
    assert_eq!(pulled.moved, [(incarnation(2), commit_id(on_it))]);
    assert_eq!(pulled.refused.len(), 1);
    assert_eq!(to.author(1), Some(ours));
    to.fsck();
}

#[test]
fn a_fork_stays_where_it_is_and_keeps_nothing_else_from_moving() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a", "0")]);
    let second = from.commit(1, &[first], &[("a", "1")]);
    pull(&to, &from);
    // a disk that was restored has gone on from an older state, and then continued with another chain
    let other = from.commit(1, &[first], &[("a", "other")]);
    let continued = from.commit(2, &[other], &[("a", "other")]);
    let pulled = pull(&to, &from);
    assert_eq!(pulled.moved, [(incarnation(2), commit_id(continued))]);
    assert_eq!(to.author(1), Some(second));
    to.fsck();
}

#[test]
fn what_other_chains_have_can_be_left_for_what_they_have_not() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a", "0")]);
    let second = from.commit(1, &[first], &[("a", "1")]);
    pull(&to, &from);
    to.commit(3, &[second], &[("a", "1")]);
    let other = from.commit(1, &[first], &[("a", "other")]);
    assert_eq!(pull(&to, &from).moved, [(incarnation(1), commit_id(other))]);
    to.fsck();
}

#[test]
fn of_two_branches_that_other_chains_have_all_nodes_keep_the_same() {
    let (one, two) = (Node::new(), Node::new());
    let first = one.commit(1, &[], &[("a", "0")]);
    pull(&two, &one);
    let left = one.commit(1, &[first], &[("a", "left")]);
    one.commit(2, &[left], &[("a", "left")]);
    let right = two.commit(1, &[first], &[("a", "right")]);
    two.commit(3, &[right], &[("a", "right")]);
    pull(&one, &two);
    pull(&two, &one);
    pull(&one, &two);
    assert_eq!(one.author(1), Some(left.max(right)));
    assert_eq!(two.author(1), one.author(1));
    assert_eq!(pull(&one, &two), Pulled::default());
    assert_eq!(pull(&two, &one), Pulled::default());
}

/// Refuses one author.
struct Without(IncarnationId);

impl Foreign for Without {
    fn check_blob(&self, _: BlobId, raw: &[u8]) -> Result<(), String> {
        if raw == b"bad" {
            Err("not that one either".into())
        } else {
            Ok(())
        }
    }

    fn check_commit(&self, _: CommitId, raw: &[u8]) -> Result<(), String> {
        assert!(raw.starts_with(b"tree "));
        Ok(())
    }

    fn check_head(&self, author: IncarnationId, _: CommitId, _: &[u8]) -> Result<(), String> {
        if author == self.0 {
            Err("not that one".into())
        } else {
            Ok(())
        }
    }
}

#[test]
fn the_volumes_own_rules_decide() {
    let (from, to) = (Node::new(), Node::new());
    from.commit(1, &[], &[("a", "0")]);
    for (refused, good) in [(1, false), (2, true)] {
        let to = Node::new();
        let rules = Without(incarnation(refused));
        let options = PullOptions {
            foreign: &rules,
            ..trusting()
        };
        let (pulled, _) = pull_with(&to, &from, &options);
        let pulled = pulled.unwrap();
        let came = (pulled.moved.len(), pulled.refused.len());
        assert_eq!(came, if good { (1, 0) } else { (0, 1) });
        assert_eq!(to.leftovers().is_empty(), !good);
    }
    from.commit(3, &[], &[("a", "bad")]);
    let rules = Without(incarnation(2));
    let options = PullOptions {
        foreign: &rules,
        ..trusting()
    };
    let error = pull_with(&to, &from, &options).0.unwrap_err().to_string();
    assert!(
        error.starts_with("bad object") && error.ends_with("not that one either"),
        "{error}"
    );
    assert_eq!(to.author(3), None);
}

#[test]
fn fifty_authors() {
    let (from, to) = (Node::new(), Node::new());
    let root = from.commit(0, &[], &[("a", "0")]);
    for author in 1..50 {
        from.commit(author, &[root], &[("a", "0"), ("b", &author.to_string())]);
    }
    assert_eq!(pull(&to, &from).moved.len(), 50);
    assert_eq!(pull(&to, &from), Pulled::default());
    to.fsck();
}

#[test]
fn new_authors_beyond_the_limit_are_refused_and_the_others_go_on() {
    let (from, other, to) = (Node::new(), Node::new(), Node::new());
    let root = from.commit(0, &[], &[("a", "0")]);
    let first = from.commit(1, &[root], &[("a", "1")]);
    let mut options = trusting();
    options.limits.refs_max = 2;
    let pull_few = |from| pull_with(&to, from, &options).0.unwrap();
    assert_eq!(pull_few(&from).moved.len(), 2);
    pull(&other, &from);
    let new = other.commit(2, &[first], &[("a", "2")]);
    let next = other.commit(1, &[first], &[("a", "3")]);
    git(
        other.path(),
        &[
            "update-ref",
            "-d",
            &format!("refs/authors/{}", incarnation(0)),
        ],
    );
    let pulled = pull_few(&other);
    assert_eq!(pulled.moved, [(incarnation(1), commit_id(next))]);
    let why = Refusal::Crowded { limit: 2 };
    let (author, head) = (incarnation(2), commit_id(new));
    assert_eq!(pulled.refused, [Refused { author, head, why }]);
    assert_eq!(pull_few(&other), Pulled::default(), "told once");
    to.fsck();
}

#[test]
fn two_pulls_at_once_meet_without_harm() {
    let (from, to) = (Node::new(), Node::new());
    let mut head = from.commit(1, &[], &[("a", "0")]);
    for round in 0..20 {
        head = from.commit(1, &[head], &[("a", &round.to_string())]);
        let moved = std::thread::scope(|scope| {
            let pulls = [(); 3].map(|()| scope.spawn(|| pull(&to, &from).moved.len()));
            pulls.map(|pull| pull.join().unwrap()).iter().sum::<usize>()
        });
        assert!(moved >= 1);
        assert_eq!(to.author(1), Some(head));
    }
    assert!(
        !to.leftovers()
            .iter()
            .any(|name| name.contains("lock") || name.contains("tmp"))
    );
    to.fsck();
}

#[test]
fn serving_goes_on_while_commits_are_made() {
    let (from, to) = (Node::new(), Node::new());
    let mut head = from.commit(1, &[], &[("a", "0")]);
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| {
            for round in 0..200 {
                head = from.commit(1, &[head], &[("a", &round.to_string()), ("d/b", "b")]);
                from.set_main(head);
            }
            head
        });
        while !committing.is_finished() {
            pull(&to, &from);
        }
        let head = committing.join().unwrap();
        pull(&to, &from);
        assert_eq!(to.author(1), Some(head));
    });
    to.fsck();
}

#[test]
fn repositories_that_stock_git_has_repacked() {
    let (from, to) = (Node::new(), Node::new());
    let long = "long ".repeat(5000);
    let mut head = from.commit(1, &[], &[("a", &long), ("d/b", "b")]);
    pull(&to, &from);
    for round in 0..5 {
        let text = format!("{long}{round}");
        head = from.commit(1, &[head], &[("a", &text), ("d/b", "b")]);
    }
    for node in [&from, &to] {
        git(node.path(), &["pack-refs", "--all", "--prune"]);
        git(node.path(), &["repack", "-q", "-a", "-d", "-f"]);
    }
    let verified = git(from.path(), &["count-objects", "-v"]);
    assert!(verified.contains("count: 0"), "{verified}");
    assert_eq!(pull(&to, &from).moved, [(incarnation(1), commit_id(head))]);
    assert_eq!(to.author(1), Some(head));
    to.fsck();
}

#[test]
fn a_peer_that_falls_silent_ends_with_the_streams_timeout() {
    let to = Node::new();
    let (client, _server) = streams();
    client
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let pulled = pull_into(&to, &client, &client, &trusting());
    assert!(
        matches!(pulled, Err(ExchangeError::Connection(_))),
        "{pulled:?}"
    );
}

#[test]
fn a_server_has_limits() {
    let (from, to) = (Node::new(), Node::new());
    let first = from.commit(1, &[], &[("a", "0")]);
    from.commit(1, &[first], &[("a", "1")]);
    for (limits, what) in [
        (
            ServeLimits {
                objects_max: 3,
                ..ServeLimits::default()
            },
            "objects",
        ),
        (
            ServeLimits {
                commits_max: 1,
                ..ServeLimits::default()
            },
            "commits",
        ),
        (
            ServeLimits {
                requests_max: 1,
                ..ServeLimits::default()
            },
            "requests",
        ),
        (
            ServeLimits {
                request_lines_max: 2,
                ..ServeLimits::default()
            },
            "lines",
        ),
    ] {
        let options = ServeOptions {
            limits,
            ..serving()
        };
        let (client, server) = streams();
        let (pulled, outcome) = std::thread::scope(|scope| {
            let serving_it = scope.spawn(|| serve_from(&from, &server, &server, &options));
            let pulled = pull_into(&to, &client, &client, &trusting());
            (pulled, serving_it.join().unwrap())
        });
        assert!(
            matches!(outcome, Err(ExchangeError::Limit { .. })),
            "{outcome:?}"
        );
        if what != "requests" {
            assert!(
                matches!(&pulled, Err(ExchangeError::Refused(why)) if why.contains(what)),
                "{pulled:?}"
            );
        }
    }
}

/// Prints what a pull costs; the bounds are wide, for machines that are shared.
#[test]
fn one_new_commit_is_quick() {
    let (from, to) = (Node::new(), Node::new());
    let many: Vec<_> = (0..100)
        .map(|n| format!("d{}/{n}.torrent", n % 10))
        .collect();
    let mut files: Vec<_> = many.iter().map(|path| (path.as_str(), "x")).collect();
    let mut head = from.commit(1, &[], &files);
    pull(&to, &from);
    let (mut new, mut nothing) = (Vec::new(), Vec::new());
    let texts: Vec<_> = (0..20).map(|round| round.to_string()).collect();
    for text in &texts {
        files[7].1 = text;
        head = from.commit(1, &[head], &files);
        let started = Instant::now();
        assert_eq!(pull(&to, &from).objects, 4);
        new.push(started.elapsed());
        let started = Instant::now();
        assert_eq!(pull(&to, &from).objects, 0);
        nothing.push(started.elapsed());
    }
    new.sort();
    nothing.sort();
    println!(
        "median: one commit {:?}, nothing new {:?}",
        new[10], nothing[10]
    );
    assert!(new[10].as_millis() < 1000 && nothing[10].as_millis() < 500);
}

#[test]
fn nothing_new_takes_one_round_trip() {
    use std::io::Write as _;
    let from = Node::new();
    from.commit(1, &[], &[("a", "0")]);
    let (client, server) = streams();
    // all that the client says is said before the server says anything
    (&client)
        .write_all(b"0014command=ls-refs\n0001001cref-prefix refs/authors/00000000")
        .unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let outcome = serve_from(&from, &server, &server, &serving()).unwrap();
    assert_eq!(outcome.requests, 1);
}
