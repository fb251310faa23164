//! Many nodes write at the same time, connected or not.

use crate::crowd::Crowd;
use crate::support::{Lab, Node, can_run, eventually, noise};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// The same work on every node at the same time; what each answers.
fn at_once<T: Send>(crowd: &Crowd, work: impl Fn(usize, &Node) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(crowd.nodes.len());
    std::thread::scope(|scope| {
        let start = |(nth, node)| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(nth, node)
            })
        };
        let threads: Vec<_> = crowd.nodes.iter().enumerate().map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

fn different_files(number: u32) {
    if !can_run() {
        return;
    }
    const FILES: usize = 12;
    let lab = Lab::new(Crowd::hosts(number));
    let crowd = Crowd::meet(&lab, number);
    let before = crowd.commits();
    at_once(&crowd, |nth, node| {
        for file in 0..FILES {
            let bytes = noise((nth * FILES + file) as u64, file * 1500);
            fs::write(node.path(&format!("file{nth}-{file}")), bytes).unwrap();
        }
    });
    crowd.agree();
    let tree = crowd.tree();
    assert_eq!(tree.len(), number as usize * FILES);
    assert_eq!(crowd.conflicts(), Vec::<PathBuf>::new());
    let commits = crowd.commits();
    // a group has one file at least
    let authored = commits.authored - before.authored;
    assert!(authored <= number as usize * FILES, "{authored} groups");
    assert!(commits.merges <= 1, "{commits:?}");
    // a node merges when news has come, at most once for each group of the others
    assert!(commits.made - before.made <= authored, "{commits:?}");
    // nobody goes on committing when nothing changes
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(crowd.commits(), commits);
}

#[test]
fn two_nodes_write_different_files() {
    different_files(2);
}

#[test]
fn five_nodes_write_different_files() {
    different_files(5);
}

#[test]
#[ignore = "long: ten nodes on one machine"]
fn ten_nodes_write_different_files() {
    different_files(10);
}

/// Every node makes the same file, unless it sees another's already: each that was made is there in the end.
fn the_same_file(number: u32) {
    if !can_run() {
        return;
    }
    let lab = Lab::new(Crowd::hosts(number));
    let crowd = Crowd::meet(&lab, number);
    let made = at_once(&crowd, |nth, node| {
        let mut made = Vec::new();
        for round in 0..4 {
            let bytes = noise((round * 100 + nth) as u64, 100 + 3_000 * round);
            let path = node.path(&format!("same{round}.txt"));
            if let Ok(mut file) = File::create_new(&path) {
                file.write_all(&bytes).unwrap();
                made.push((round, bytes));
            }
        }
        made
    });
    crowd.agree();
    let tree = crowd.tree();
    let mut expected = 0;
    for (round, bytes) in made.into_iter().flatten() {
        let found = tree.values().flatten().any(|found| *found == bytes);
        assert!(
            found,
            "a version of same{round}.txt is gone: {:?}",
            tree.keys()
        );
        expected += 1;
    }
    for round in 0..4 {
        assert!(tree.contains_key(Path::new(&format!("same{round}.txt"))));
    }
    eprintln!("{expected} versions of 4 files");
    assert_eq!(tree.len(), expected, "{:?}", tree.keys());
}

#[test]
fn two_nodes_write_the_same_file() {
    the_same_file(2);
}

#[test]
fn five_nodes_write_the_same_file() {
    the_same_file(5);
}

#[test]
#[ignore = "long: ten nodes on one machine"]
fn ten_nodes_write_the_same_file() {
    the_same_file(10);
}

fn lone(lab: &Lab, crowd: &Crowd) {
    for node in &crowd.nodes {
        lab.cut(node.host);
    }
    eventually(SOON, "nobody is connected", || {
        crowd.nodes.iter().all(|node| node.connected() == 0)
    });
}

fn together(lab: &Lab, crowd: &Crowd) {
    for node in &crowd.nodes {
        lab.heal(node.host);
    }
    let others = crowd.nodes.len() - 1;
    eventually(SOON, "everyone is connected again", || {
        crowd.nodes.iter().all(|node| node.connected() == others)
    });
}

/// Two nodes that know the same, then each for itself, then together again.
fn apart(prepare: impl FnOnce(&Node), work: [&dyn Fn(&Node); 2], check: impl FnOnce(&Crowd)) {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let crowd = Crowd::meet(&lab, 2);
    prepare(&crowd.nodes[0]);
    crowd.agree();
    let _ = crowd.tree();
    lone(&lab, &crowd);
    for (node, work) in crowd.nodes.iter().zip(work) {
        work(node);
    }
    together(&lab, &crowd);
    crowd.agree();
    check(&crowd);
}

fn write(node: &Node, name: &str, text: &str) {
    fs::write(node.path(name), text).unwrap();
}

fn rename(node: &Node, from: &str, to: &str) {
    fs::rename(node.path(from), node.path(to)).unwrap();
}

#[track_caller]
fn shows(crowd: &Crowd, expected: &[(&str, Option<&str>)]) {
    let tree = crowd.tree();
    let found: Vec<(String, Option<String>)> = tree
        .into_iter()
        .map(|(path, bytes)| {
            let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            (path.to_string_lossy().into_owned(), text)
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(path, text)| ((*path).to_owned(), text.map(str::to_owned)))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn changes_of_different_things_while_apart_are_all_there() {
    apart(
        |node| {
            for folder in ["d1", "d2", "d3", "d4"] {
                fs::create_dir(node.path(folder)).unwrap();
                write(node, &format!("{folder}/f"), "old");
            }
            write(node, "edited", "old");
            write(node, "same", "old");
            write(node, "moved", "old");
            write(node, "gone", "old");
        },
        [
            &|node| {
                rename(node, "d1", "d1-renamed");
                fs::remove_dir_all(node.path("d2")).unwrap();
                write(node, "edited", "by a");
                write(node, "same", "equal");
                rename(node, "moved", "d3/moved");
                fs::remove_file(node.path("gone")).unwrap();
                rename(node, "d4/f", "d4/g");
            },
            &|node| {
                write(node, "d1/new", "from b");
                write(node, "d2/new", "from b");
                rename(node, "edited", "renamed");
                write(node, "same", "equal");
                write(node, "moved", "by b");
                write(node, "gone", "by b");
                rename(node, "d4", "d5");
            },
        ],
        |crowd| {
            shows(
                crowd,
                &[
                    ("d1-renamed", None),
                    ("d1-renamed/f", Some("old")),
                    ("d1-renamed/new", Some("from b")),
                    ("d2", None),
                    ("d2/new", Some("from b")),
                    ("d3", None),
                    ("d3/f", Some("old")),
                    ("d3/moved", Some("by b")),
                    ("d5", None),
                    ("d5/g", Some("old")),
                    ("gone", Some("by b")),
                    ("renamed", Some("by a")),
                    ("same", Some("equal")),
                ],
            );
        },
    );
}

#[test]
fn every_version_made_while_apart_is_there() {
    apart(
        |node| write(node, "both.txt", "old"),
        [
            &|node| {
                write(node, "both.txt", "by a");
                write(node, "new.txt", "new by a");
                write(node, "mixed", "a file");
                fs::create_dir_all(node.path("folder/below")).unwrap();
                write(node, "folder/below/a", "a");
            },
            &|node| {
                write(node, "both.txt", "by b");
                write(node, "new.txt", "new by b");
                fs::create_dir(node.path("mixed")).unwrap();
                write(node, "mixed/inside", "in a folder");
                fs::create_dir_all(node.path("folder/below")).unwrap();
                write(node, "folder/below/b", "b");
            },
        ],
        |crowd| {
            let tree = crowd.tree();
            let texts: Vec<_> = tree.values().flatten().cloned().collect();
            for text in [
                "by a",
                "by b",
                "new by a",
                "new by b",
                "a file",
                "in a folder",
            ] {
                assert!(
                    texts.contains(&text.as_bytes().to_vec()),
                    "{text} is gone: {tree:?}"
                );
            }
            for path in [
                "both.txt",
                "new.txt",
                "mixed",
                "folder/below/a",
                "folder/below/b",
            ] {
                assert!(tree.contains_key(Path::new(path)), "{path}: {tree:?}");
            }
            assert_eq!(crowd.conflicts().len(), 3, "{:?}", tree.keys());
            assert_eq!(tree.len(), 11, "{:?}", tree.keys());
        },
    );
}

/// Five nodes, each for itself, at the same files.
#[test]
fn five_sides_work_alone_and_nothing_is_lost() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(5);
    let crowd = Crowd::meet(&lab, 5);
    write(&crowd.nodes[0], "shared.txt", "old");
    crowd.agree();
    let before = crowd.commits();
    lone(&lab, &crowd);
    at_once(&crowd, |nth, node| {
        write(node, "shared.txt", &format!("shared by {nth}"));
        write(node, "made.txt", &format!("made by {nth}"));
        write(node, &format!("own{nth}"), "own");
    });
    together(&lab, &crowd);
    crowd.agree();
    let tree = crowd.tree();
    for nth in 0..5 {
        for text in [format!("shared by {nth}"), format!("made by {nth}")] {
            let found = tree
                .values()
                .flatten()
                .any(|bytes| *bytes == text.as_bytes());
            assert!(found, "{text} is gone: {:?}", tree.keys());
        }
    }
    assert_eq!(tree.len(), 15, "{:?}", tree.keys());
    assert_eq!(crowd.conflicts().len(), 8);
    // each its own groups, and one merge that shows them; on the way there at most one for each side that came back
    let commits = crowd.commits();
    assert!(commits.authored - before.authored <= 5 * 3, "{commits:?}");
    assert_eq!(commits.merges, 1);
    assert!(commits.made - before.made <= 5, "{commits:?}");
}

/// As editors save: each side in turn, having seen the other's version.
#[test]
fn saving_in_turns_makes_no_conflict_copies() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let crowd = Crowd::meet(&lab, 2);
    for turn in 0..30 {
        let (node, other) = (&crowd.nodes[turn % 2], &crowd.nodes[(turn + 1) % 2]);
        let text = noise(turn as u64, if turn % 3 == 0 { 20_000 } else { 300 });
        let temporary = node.path(&format!(".document.{turn}.swp"));
        fs::write(&temporary, &text).unwrap();
        fs::rename(&temporary, node.path("document")).unwrap();
        eventually(SOON, "the other side has the new version", || {
            fs::read(other.path("document")).is_ok_and(|found| found == text)
        });
    }
    crowd.agree();
    let tree = crowd.tree();
    assert_eq!(tree.len(), 1, "{:?}", tree.keys());
}
