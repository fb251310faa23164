//! Stock git as the client, over loopback.

use super::super::{GitStore as _, PullOptions, PullProgress, ServeLimits, ServeOptions};
use super::support::{
    Node, VOLUME, git, import, incarnation, pull, pull_as, serving, trusting, try_git, with_server,
    with_server_as,
};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A volume with some history.
fn volume() -> Node {
    let node = Node::new();
    let first = node.commit(1, &[], &[("a.torrent", "a"), ("d/b.torrent", "b")]);
    let second = node.commit(1, &[first], &[("a.torrent", "a2"), ("d/b.torrent", "b")]);
    let other = node.commit(
        2,
        &[first],
        &[("a.torrent", "a"), ("d/b.torrent", "b"), ("c", "c")],
    );
    let both = [("a.torrent", "a2"), ("d/b.torrent", "b"), ("c", "c")];
    let third = node.commit(2, &[second, other], &both);
    node.set_main(third);
    node
}

#[test]
fn clone_then_fetch() {
    let node = volume();
    let folder = TempDir::new().unwrap();
    let clone = folder.path().join("clone");
    with_server(&node, |url| {
        git(folder.path(), &["clone", "-q", url, "clone"]);
        git(&clone, &["fsck", "--strict", "--full"]);
        assert_eq!(std::fs::read(clone.join("a.torrent")).unwrap(), b"a2");
        let head = node.git().head_id().unwrap().detach();
        assert_eq!(git(&clone, &["rev-parse", "HEAD"]), head.to_string());
        let next = node.commit(1, &[head], &[("a.torrent", "a3"), ("d/b.torrent", "b")]);
        node.set_main(next);
        git(&clone, &["fetch", "-q"]);
        assert_eq!(git(&clone, &["rev-parse", "origin/main"]), next.to_string());
        git(
            &clone,
            &["fetch", "-q", "origin", "refs/authors/*:refs/authors/*"],
        );
        let author = format!("refs/authors/{}", incarnation(1));
        assert_eq!(git(&clone, &["rev-parse", &author]), next.to_string());
        git(&clone, &["fsck", "--strict", "--full"]);
        git(&clone, &["fetch", "-q"]);
    });
}

#[test]
fn a_main_that_is_replaced_not_continued_is_fetched_too() {
    let node = volume();
    let folder = TempDir::new().unwrap();
    with_server(&node, |url| {
        git(folder.path(), &["clone", "-q", "--mirror", url, "clone"]);
        let clone = folder.path().join("clone");
        let author = node.author(1).unwrap();
        let next = node.commit(1, &[author], &[("a.torrent", "x")]);
        node.set_main(next);
        git(&clone, &["fetch", "-q"]);
        assert_eq!(git(&clone, &["rev-parse", "main"]), next.to_string());
        git(&clone, &["fsck", "--strict", "--full"]);
    });
}

#[test]
fn shallow_then_deeper_then_whole() {
    let node = Node::new();
    let mut head = node.commit(1, &[], &[("a", "0"), ("d/x", "x")]);
    for round in 1..10 {
        head = node.commit(1, &[head], &[("a", &round.to_string()), ("d/x", "x")]);
    }
    node.set_main(head);
    let folder = TempDir::new().unwrap();
    let clone = folder.path().join("clone");
    let count = || git(&clone, &["rev-list", "--count", "HEAD"]);
    with_server(&node, |url| {
        git(
            folder.path(),
            &["clone", "-q", "--depth", "1", url, "clone"],
        );
        assert_eq!(count(), "1");
        git(&clone, &["fsck", "--strict"]);
        git(&clone, &["fetch", "-q", "--depth", "3"]);
        assert_eq!(count(), "3");
        git(&clone, &["fsck", "--strict"]);
        head = node.commit(1, &[head], &[("a", "new"), ("d/x", "x")]);
        node.set_main(head);
        git(&clone, &["pull", "-q", "--ff-only"]);
        assert_eq!(count(), "4");
        git(&clone, &["fetch", "-q", "--unshallow"]);
        assert_eq!(count(), "11");
        git(&clone, &["fsck", "--strict", "--full"]);
    });
}

#[test]
fn refusals_are_told() {
    let node = volume();
    let folder = TempDir::new().unwrap();
    with_server(&node, |url| {
        let refused = |arguments: &[&str], why: &str| {
            let (good, said) = try_git(folder.path(), arguments);
            assert!(!good && said.contains(why), "{said}");
        };
        let other = url.replace(VOLUME, "other");
        refused(&["clone", &other, "x"], "no volume of that name");
        for version in ["0", "1"] {
            let version = format!("protocol.version={version}");
            refused(
                &["-c", &version, "clone", url, "x"],
                "only Git's protocol version 2",
            );
        }
        let since = "--shallow-since=2000-01-01";
        refused(&["clone", since, url, "x"], "only --depth");
        git(folder.path(), &["init", "-q", "y"]);
        let unknown = "1234567890123456789012345678901234567890";
        let clone = folder.path().join("y");
        let (good, said) = try_git(&clone, &["fetch", url, unknown]);
        assert!(!good && said.contains("volume's history"), "{said}");
    });
}

#[test]
fn an_empty_volume_can_be_cloned() {
    let node = Node::new();
    let folder = TempDir::new().unwrap();
    with_server(&node, |url| {
        git(folder.path(), &["clone", "-q", url, "clone"]);
        let first = node.commit(1, &[], &[("a", "0")]);
        node.set_main(first);
        let clone = folder.path().join("clone");
        git(&clone, &["pull", "-q"]);
        assert_eq!(git(&clone, &["rev-parse", "HEAD"]), first.to_string());
    });
}

/// Never silent: speaks at every object that is listed.
fn talkative() -> ServeOptions {
    ServeOptions {
        limits: ServeLimits {
            silence_max: Duration::ZERO,
            ..ServeLimits::default()
        },
        ..serving()
    }
}

#[test]
fn progress_is_told_while_objects_are_listed() {
    let node = volume();
    let folder = TempDir::new().unwrap();
    with_server_as(&node, &talkative(), |url| {
        let said = git(folder.path(), &["clone", "--progress", url, "told"]);
        assert!(said.contains("remote: walking commits: 1"), "{said}");
        assert!(said.contains("remote: listing objects: 1"), "{said}");
        let said = git(folder.path(), &["clone", "-q", url, "quiet"]);
        assert_eq!(said, "");
        for clone in ["told", "quiet"] {
            git(&folder.path().join(clone), &["fsck", "--strict", "--full"]);
        }
    });
    let to = Node::new();
    let heard = RefCell::new(Vec::new());
    let options = PullOptions {
        progress: &|progress| heard.borrow_mut().push(progress),
        ..trusting()
    };
    let (pulled, served) = pull_as(&to, &node, (&options, &talkative()));
    let objects = pulled.unwrap().objects;
    assert_eq!(objects, served.unwrap().objects);
    let heard = heard.into_inner();
    assert_eq!(heard.first(), Some(&PullProgress::Listed));
    assert_eq!(heard.last(), Some(&PullProgress::Checking));
    let all = |it: &PullProgress| matches!(it, PullProgress::Arriving { objects: n, of, .. } if n == of && *n as usize == objects);
    assert_eq!(heard.iter().filter(|it| all(it)).count(), 1);
    to.fsck();
}

#[test]
fn a_listing_that_exceeds_its_limit_is_told_within_the_pack() {
    let node = volume();
    let folder = TempDir::new().unwrap();
    let mut options = talkative();
    options.limits.objects_max = 3;
    with_server_as(&node, &options, |url| {
        let (good, said) = try_git(folder.path(), &["clone", url, "clone"]);
        assert!(!good && said.contains("objects in one pack"), "{said}");
    });
}

/// 20,000 files in 200 folders, and a second commit that changes one of them.
fn large_volume() -> Node {
    let node = Node::new();
    let author = format!("refs/authors/{}", incarnation(1));
    let mut stream = String::new();
    let start = |stream: &mut String, time: u32| {
        writeln!(
            stream,
            "commit {author}\ncommitter n <n@v> {time} +0000\ndata 1\nx"
        )
        .unwrap();
    };
    start(&mut stream, 1_700_000_000);
    for number in 0..20_000 {
        let text = format!("descriptor {number}");
        let folder = number % 200;
        writeln!(
            stream,
            "M 644 inline d{folder}/{number}.torrent\ndata {}\n{text}",
            text.len()
        )
        .unwrap();
    }
    start(&mut stream, 1_700_000_001);
    writeln!(stream, "M 644 inline d7/7.torrent\ndata 3\nnew").unwrap();
    import(&node, stream.as_bytes());
    node.set_main(node.author(1).unwrap());
    node
}

#[test]
fn twenty_thousand_files() {
    let node = large_volume();
    let folder = TempDir::new().unwrap();
    with_server(&node, |url| {
        let started = Instant::now();
        git(folder.path(), &["clone", "-q", "--bare", url, "clone"]);
        println!("stock clone of 20,000 files: {:?}", started.elapsed());
    });
    git(&folder.path().join("clone"), &["fsck", "--strict"]);
    let to = Node::new();
    let started = Instant::now();
    let pulled = pull(&to, &node);
    println!("pull of 20,000 files: {:?}", started.elapsed());
    assert_eq!(pulled.objects, 20_000 + 1 + 200 + 1 + 2 + 2 + 1 - 1);
    to.fsck();
}
