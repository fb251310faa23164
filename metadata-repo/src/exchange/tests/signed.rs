//! Peers that lie about who wrote what: the chain is refused and named, and keeps no other from arriving.

use super::super::{ExchangeError, GitStore as _, PullOptions, Pulled};
use super::volume::{create, exchange};
use crate::commit::nobodys;
use crate::repository::tests::support::{Node, incarnation, key};
use crate::signature::{Signer, signed};
use delugefs_core::ids::{CommitId, IncarnationId};
use gix::ObjectId;
use gix::objs::{Kind, Write as _};
use tempfile::TempDir;

/// Who is slandered.
const VICTIM: u8 = 3;

/// A repository that also has lies, beside an honest chain; and one that pulls from it.
struct Lie {
    _folder: TempDir,
    liar: Node,
    to: Node,
    /// The honest chain's head.
    good: ObjectId,
}

impl Lie {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let mut liar = Node::create(&folder.path().join("liar"), 2);
        let to = Node::create(&folder.path().join("to"), 9);
        create(&mut liar, 10, false);
        let good = object(liar.repository.authors().unwrap()[&incarnation(2)]);
        Self {
            _folder: folder,
            liar,
            to,
            good,
        }
    }

    fn write(&self, commit: &[u8]) -> ObjectId {
        let git = self.liar.repository.git();
        git.objects.write_buf(Kind::Commit, commit).unwrap()
    }

    fn set(&self, author: IncarnationId, head: ObjectId) {
        let name = format!("refs/authors/{author}");
        std::fs::write(self.liar.repository.path().join(name), format!("{head}\n")).unwrap();
    }

    /// A commit as the victim would write it, unsigned.
    fn unsigned(&self, parents: &[ObjectId], sequence: u64) -> Vec<u8> {
        unsigned(self.tree(), parents, incarnation(VICTIM), sequence)
    }

    fn tree(&self) -> ObjectId {
        ObjectId::Sha1(*self.liar.repository.view().tree.as_bytes())
    }

    fn pull(&self) -> Result<Pulled, ExchangeError> {
        exchange(
            &self.to.repository,
            &self.liar.repository,
            &PullOptions::default(),
        )
    }

    /// The lie is refused with this sentence; the honest chain arrives and is shown; nothing is asked for again.
    fn refused_as(self, what: &str) {
        let pulled = self.pull().unwrap();
        let good = CommitId::from_slice(self.good.as_slice()).unwrap();
        assert_eq!(pulled.moved, [(incarnation(2), good)], "{what}");
        let [refused] = &pulled.refused[..] else {
            panic!("{what}: {pulled:?}")
        };
        assert_eq!(refused.author, incarnation(VICTIM), "{what}");
        let said = refused.to_string();
        assert!(said.contains(what), "{said}, not: {what}");
        assert!(said.contains(&incarnation(VICTIM).to_string()), "{said}");
        let authors = self.to.repository.authors().unwrap();
        assert_eq!(authors.into_values().collect::<Vec<_>>(), [good], "{what}");
        let view = self.to.repository.refresh_view().unwrap();
        assert_eq!(view.heads, [good].into(), "{what}");
        assert_eq!(self.pull().unwrap(), Pulled::default(), "{what}");
    }
}

fn object(id: CommitId) -> ObjectId {
    ObjectId::Sha1(*id.as_bytes())
}

fn unsigned(
    tree: ObjectId,
    parents: &[ObjectId],
    incarnation: IncarnationId,
    sequence: u64,
) -> Vec<u8> {
    let parents: Vec<String> = parents.iter().map(|id| format!("parent {id}\n")).collect();
    let parents = parents.concat();
    let who = "x <x@x> 1700000000 +0000";
    let trailers = format!("Incarnation: {incarnation}\nJournal-Sequence: {sequence}\nFormat: 2\n");
    format!("tree {tree}\n{parents}author {who}\ncommitter {who}\n\nx\n\n{trailers}").into_bytes()
}

#[test]
fn an_honest_commit_is_taken() {
    let lie = Lie::new();
    let commit = signed(&lie.unsigned(&[lie.good], 1), &key(VICTIM)).unwrap();
    let head = lie.write(&commit);
    lie.set(incarnation(VICTIM), head);
    let pulled = lie.pull().unwrap();
    assert_eq!((pulled.moved.len(), pulled.refused.len()), (2, 0));
    let view = lie.to.repository.refresh_view().unwrap();
    assert_eq!(
        view.heads,
        [CommitId::from_slice(head.as_slice()).unwrap()].into()
    );
}

#[test]
fn without_a_signature() {
    let lie = Lie::new();
    let head = lie.write(&lie.unsigned(&[lie.good], 1));
    lie.set(incarnation(VICTIM), head);
    lie.refused_as("it is not signed");
}

#[test]
fn with_another_key() {
    let lie = Lie::new();
    let head = lie.write(&signed(&lie.unsigned(&[lie.good], 1), &key(4)).unwrap());
    lie.set(incarnation(VICTIM), head);
    lie.refused_as(&format!("{} has signed it", incarnation(4)));
}

#[test]
fn with_the_signature_of_another_commit() {
    let lie = Lie::new();
    let commit = signed(&lie.unsigned(&[lie.good], 1), &key(VICTIM)).unwrap();
    let commit = String::from_utf8(commit).unwrap();
    let moved = commit.replace("Journal-Sequence: 1", "Journal-Sequence: 2");
    let head = lie.write(moved.as_bytes());
    lie.set(incarnation(VICTIM), head);
    lie.refused_as("its signature is not of this commit");
}

#[test]
fn anothers_commit_as_head() {
    let lie = Lie::new();
    lie.set(incarnation(VICTIM), lie.good);
    lie.refused_as(&format!("it is a commit of {}", incarnation(2)));
}

#[test]
fn a_parent_that_its_author_has_not_signed() {
    let lie = Lie::new();
    let tree = lie.tree();
    let forged = unsigned(tree, &[lie.good], incarnation(5), 1);
    let forged = lie.write(&signed(&forged, &key(6)).unwrap());
    let head = lie.write(&signed(&lie.unsigned(&[forged], 1), &key(VICTIM)).unwrap());
    lie.set(incarnation(VICTIM), head);
    lie.refused_as(&format!("commit {forged}"));
}

#[test]
fn what_was_refused_is_not_let_in_by_what_stands_on_it() {
    let lie = Lie::new();
    let forged = lie.write(&lie.unsigned(&[lie.good], 1));
    lie.set(incarnation(VICTIM), forged);
    lie.pull().unwrap();
    // it is stored now, with the good chain's pack, and still no part of anything
    let head = lie.write(&signed(&lie.unsigned(&[forged], 2), &key(VICTIM)).unwrap());
    lie.set(incarnation(VICTIM), head);
    let pulled = lie.pull().unwrap();
    assert_eq!((pulled.moved.len(), pulled.refused.len()), (0, 1));
    assert!(pulled.refused[0].to_string().contains("not signed"));
}

#[test]
fn a_merge_as_head_or_as_parent() {
    for as_parent in [false, true] {
        let lie = Lie::new();
        let merge = nobodys(lie.tree(), vec![lie.good], 1_700_000_000, "Merge").unwrap();
        let mut head = lie.write(&merge);
        if as_parent {
            head = lie.write(&signed(&lie.unsigned(&[head], 1), &key(VICTIM)).unwrap());
        }
        lie.set(incarnation(VICTIM), head);
        lie.refused_as("it has no author");
    }
}

#[test]
fn our_own_merge_as_parent() {
    let mut lie = Lie::new();
    create(&mut lie.to, 20, false);
    lie.pull().unwrap();
    let main = lie.to.repository.refresh_view().unwrap();
    assert_eq!(main.heads.len(), 2);
    // the liar makes the same merge, as every node does
    let back = exchange(
        &lie.liar.repository,
        &lie.to.repository,
        &PullOptions::default(),
    );
    assert_eq!(back.unwrap().moved.len(), 1);
    assert_eq!(lie.liar.repository.refresh_view().unwrap(), main);
    let main = object(main.commit.unwrap());
    let head = lie.write(&signed(&lie.unsigned(&[main], 1), &key(VICTIM)).unwrap());
    lie.set(incarnation(VICTIM), head);
    let pulled = lie.pull().unwrap();
    assert_eq!(
        (pulled.moved.len(), pulled.refused.len()),
        (0, 1),
        "{pulled:?}"
    );
}

#[test]
fn another_volumes_history() {
    let lie = Lie::new();
    let root = nobodys(lie.tree(), vec![], 0, "A new volume").unwrap();
    let root = lie.write(&root);
    let head = lie.write(&signed(&lie.unsigned(&[root], 1), &key(VICTIM)).unwrap());
    lie.set(incarnation(VICTIM), head);
    lie.refused_as(&format!("commit {root}"));
}

#[test]
fn huge_signatures() {
    for (kilobytes, is_fatal) in [(500, false), (1100, true)] {
        let lie = Lie::new();
        let commit = signed(&lie.unsigned(&[lie.good], 1), &key(VICTIM)).unwrap();
        let commit = String::from_utf8(commit).unwrap();
        let line = format!("{}\n ", "A".repeat(1022));
        let huge = commit.replacen("gpgsig ", &format!("gpgsig {}", line.repeat(kilobytes)), 1);
        let head = lie.write(huge.as_bytes());
        lie.set(incarnation(VICTIM), head);
        if is_fatal {
            let error = lie.pull().unwrap_err().to_string();
            assert_eq!(error, "more than 1048576 bytes in a commit");
        } else {
            lie.refused_as("its signature is not written as this program writes one");
        }
    }
}

#[test]
fn a_replayed_commit_moves_nothing_back() {
    let mut lie = Lie::new();
    let first = lie.good;
    create(&mut lie.liar, 12, false);
    assert_eq!(lie.pull().unwrap().moved.len(), 1);
    lie.set(incarnation(2), first);
    assert_eq!(lie.pull().unwrap(), Pulled::default());
    assert_ne!(
        object(lie.to.repository.authors().unwrap()[&incarnation(2)]),
        first
    );
}

#[test]
fn only_what_it_has_signed_tells_a_node_of_a_copy_of_itself() {
    let options = PullOptions {
        own: Some(incarnation(VICTIM)),
        ..PullOptions::default()
    };
    for (signer, is_copy) in [(VICTIM, true), (4, false)] {
        let lie = Lie::new();
        let head = lie.write(&signed(&lie.unsigned(&[lie.good], 1), &key(signer)).unwrap());
        lie.set(key(VICTIM).incarnation(), head);
        let pulled = exchange(&lie.to.repository, &lie.liar.repository, &options);
        match pulled {
            Err(ExchangeError::OwnChainAhead { theirs, .. }) => {
                assert!(is_copy);
                assert_eq!(object(theirs), head);
            }
            Ok(pulled) => {
                assert!(!is_copy, "{pulled:?}");
                assert_eq!((pulled.moved.len(), pulled.refused.len()), (1, 1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}
