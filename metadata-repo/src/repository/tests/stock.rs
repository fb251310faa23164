//! Stock git on our repository.

use super::support::*;
use crate::Repository;
use delugefs_core::entry::Kind;
use delugefs_core::ids::EntryId;
use std::path::Path;
use std::process::Command;

/// Runs git, whose output counts only when it succeeds.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .expect("git is installed where these tests run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {text}");
    text
}

#[test]
fn fsck_is_clean_and_a_clone_has_the_torrents() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("metadata.git");
    let mut node = Node::create(&path, 1);
    let hard = [
        &b".git"[..],
        b"GIT~1",
        b".gitmodules",
        b"gi7eba~1",
        b".g\xe2\x80\x8cit",
        b"a.torrent",
        b"a.node",
        b"100%",
        b"end. ",
        b"back\\slash",
        b"new\nline",
        b"\xff\xfe",
        b"%dir",
        b".GITATTRIBUTES",
        b"git~1:x",
    ];
    let mut number = 0;
    let mut entries = Vec::new();
    for bytes in hard
        .into_iter()
        .chain([&[b'l'; 255][..], "é".repeat(127).as_bytes()])
    {
        let mut next = || {
            number += 1;
            id(number)
        };
        entries.push(placed(EntryId::ROOT, bytes, entry(next(), Kind::Directory)));
        let parent = id(number);
        entries.push(placed(
            parent,
            bytes,
            entry(
                {
                    number += 1;
                    id(number)
                },
                swarm(3),
            ),
        ));
        let mut node_name = bytes.to_vec();
        node_name[0] = b'~';
        entries.push(placed(
            parent,
            node_name,
            entry(
                {
                    number += 1;
                    id(number)
                },
                Kind::Symlink(b"/x".to_vec()),
            ),
        ));
    }
    for extra in 0..600 {
        number += 1;
        entries.push(placed(
            id(1),
            format!("file{extra}"),
            entry(id(number), inline(b"hi")),
        ));
    }
    node.put(entries);
    assert_eq!(read(&node.repository, node.view.tree), node.model);
    let report = git(&path, &["fsck", "--strict", "--full"]);
    assert_eq!(
        report
            .trim()
            .lines()
            .filter(|line| !line.starts_with("dangling"))
            .count(),
        0,
        "{report}"
    );
    let clone = scratch.path().join("clone");
    git(
        scratch.path(),
        &[
            "clone",
            "-q",
            path.to_str().unwrap(),
            clone.to_str().unwrap(),
        ],
    );
    assert!(clone.join("a%2Etorrent/a.torrent.torrent").is_file());
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    let head = git(&path, &["rev-parse", "refs/heads/main"]);
    assert_eq!(head.trim(), node.view.commit.unwrap().to_string());
    git(&path, &["repack", "-adq"]);
    git(&path, &["pack-refs", "--all"]);
    let again = Repository::open(&path).unwrap();
    assert_eq!(again.view(), node.view);
    assert_eq!(read(&again, node.view.tree), node.model);
}

/// `git log --show-signature` agrees: good for what authors wrote, none for what is nobody's, bad for a forgery.
#[test]
fn stock_git_verifies_the_signatures() {
    let scratch = tempfile::tempdir().unwrap();
    let mut one = Node::create(&scratch.path().join("one"), 1);
    let mut two = Node::create(&scratch.path().join("two"), 2);
    for number in 1..=3 {
        let node = match number {
            2 => &mut two,
            _ => &mut one,
        };
        let name = format!("file {number}");
        node.put([placed(
            EntryId::ROOT,
            name,
            entry(id(number), inline(b"text")),
        )]);
    }
    let options = crate::exchange::PullOptions::default();
    crate::exchange::tests::exchange_with(&one.repository, &two.repository, &options).unwrap();
    one.refresh();
    let signers: Vec<String> = (one.repository.signers().unwrap().into_iter())
        .map(|(author, key)| format!("{author}@delugefs.invalid namespaces=\"git\" {key}\n"))
        .collect();
    let allowed = scratch.path().join("allowed_signers");
    std::fs::write(&allowed, signers.concat()).unwrap();
    let clone = scratch.path().join("clone");
    let (from, to) = (one.repository.path(), clone.to_str().unwrap());
    git(scratch.path(), &["clone", "-q", from.to_str().unwrap(), to]);
    let allowed = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
    let log = git(
        &clone,
        &["-c", &allowed, "log", "--format=%G? %GS %GK %ce %s"],
    );
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 5, "{log}");
    for line in &lines[..3] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "G", "{log}");
        assert_eq!(words[1], words[3], "the committer has signed: {log}");
    }
    for (number, commits) in [(1, 2), (2, 1)] {
        let email = format!(" {}@delugefs.invalid 1 change", incarnation(number));
        assert_eq!(log.matches(&email).count(), commits, "{log}");
    }
    assert!(
        lines[3..].iter().all(|line| line.starts_with("N ")),
        "{log}"
    );
    let shown = git(&clone, &["-c", &allowed, "log", "--show-signature"]);
    let good = shown.matches("Good \"git\" signature for ").count();
    assert_eq!(good, 3, "{shown}");
    // the same commit with another message
    let head = one.view.heads.first().unwrap().to_string();
    let text = git(&clone, &["cat-file", "commit", &head]).replace("1 change", "no change");
    let file = scratch.path().join("forged");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let forged = git(&clone, &["hash-object", "-w", "-t", "commit", file]);
    let verdict = git(
        &clone,
        &["-c", &allowed, "log", "-1", "--format=%G?", forged.trim()],
    );
    assert_eq!(verdict.trim(), "B");
}
