//! Peers that lie: each pull ends with a clear error, no ref moves, nothing is left behind.

use super::super::pack_writer;
use super::super::pktline::{self, BandWriter, Line};
use super::super::store::Objects;
use super::super::{ExchangeError, PullLimits, PullOptions, Pulled, pull_into, serve_from};
use super::support::{Node, incarnation, raw_commit, serving, streams, trusting};
use crate::repository::packs::writer::{Form, entry_header};
use gix::ObjectId;
use gix::objs::Kind;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};

/// Objects that need not make sense.
#[derive(Default)]
struct Forged {
    objects: HashMap<ObjectId, (Kind, Vec<u8>)>,
    order: Vec<ObjectId>,
}

impl Forged {
    fn add(&mut self, kind: Kind, data: &[u8]) -> ObjectId {
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data).unwrap();
        self.objects.insert(id, (kind, data.to_vec()));
        self.order.push(id);
        id
    }

    fn tree(&mut self, entries: &[(&str, &[u8], ObjectId)]) -> ObjectId {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend_from_slice(mode.as_bytes());
            data.push(b' ');
            data.extend_from_slice(name);
            data.push(0);
            data.extend_from_slice(id.as_bytes());
        }
        self.add(Kind::Tree, &data)
    }

    fn commit(&mut self, tree: ObjectId, parents: &[ObjectId]) -> ObjectId {
        self.add(Kind::Commit, &raw_commit(tree, parents, 1_700_000_000))
    }

    fn pack(&mut self) -> Vec<u8> {
        let order = self.order.clone();
        let mut pack = Vec::new();
        pack_writer::write((self, None), &order, &mut pack).unwrap();
        pack
    }
}

impl Objects for Forged {
    fn read<'a>(
        &mut self,
        id: &gix::oid,
        buffer: &'a mut Vec<u8>,
    ) -> Result<Option<(Kind, &'a [u8])>, ExchangeError> {
        Ok(self.objects.get(id).map(|(kind, data)| {
            buffer.clone_from(data);
            (*kind, buffer.as_slice())
        }))
    }

    fn kind_of(&mut self, id: &gix::oid) -> Result<Option<Kind>, ExchangeError> {
        Ok(self.objects.get(id).map(|(kind, _)| *kind))
    }
}

/// What a server says up to the pack: its greeting, and authors' heads.
fn opening(heads: &[(u8, ObjectId)]) -> Vec<u8> {
    let mut wire = Vec::new();
    pktline::data(&mut wire, b"version 2\n").unwrap();
    pktline::special(&mut wire, &Line::Flush).unwrap();
    for (author, head) in heads {
        let line = format!("{head} refs/authors/{}\n", incarnation(*author));
        pktline::data(&mut wire, line.as_bytes()).unwrap();
    }
    pktline::special(&mut wire, &Line::Flush).unwrap();
    wire
}

pub(super) fn answer(author: u8, head: ObjectId, pack: &[u8]) -> Vec<u8> {
    answer_with(&[(author, head)], pack)
}

fn answer_with(heads: &[(u8, ObjectId)], pack: &[u8]) -> Vec<u8> {
    let mut wire = opening(heads);
    pktline::data(&mut wire, b"packfile\n").unwrap();
    let mut band = BandWriter::new(&mut wire);
    band.write_all(pack).unwrap();
    band.flush().unwrap();
    pktline::special(&mut wire, &Line::Flush).unwrap();
    wire
}

/// Pulls from a peer that says `wire`, whatever it is asked, and hangs up.
pub(super) fn pull_wire(to: &Node, wire: &[u8]) -> Result<Pulled, ExchangeError> {
    let options = PullOptions {
        limits: PullLimits {
            refs_max: 10,
            objects_max: 1000,
            blob_bytes_max: 100_000,
            ..PullLimits::default()
        },
        ..trusting()
    };
    let (client, mut server) = streams();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = server.write_all(wire);
            let _ = server.shutdown(std::net::Shutdown::Write);
            let _ = server.read_to_end(&mut Vec::new());
        });
        let pulled = pull_into(to, &client, &client, &options);
        let _ = client.shutdown(std::net::Shutdown::Both);
        pulled
    })
}

/// What is wrong with the one chain that was pulled.
fn refusal(pulled: &Pulled) -> String {
    assert_eq!((pulled.moved.len(), pulled.refused.len()), (0, 1));
    pulled.refused[0].why.to_string()
}

/// Why a pull of these objects, after which nothing has changed, has moved nothing.
fn refused(forged: &mut Forged, head: ObjectId) -> String {
    let to = Node::new();
    let mine = to.commit(9, &[], &[("mine", "1")]);
    let pulled = pull_wire(&to, &answer(1, head, &forged.pack()));
    let why = pulled.map_or_else(|error| error.to_string(), |pulled| refusal(&pulled));
    assert_eq!((to.author(1), to.author(9)), (None, Some(mine)));
    assert_eq!(to.leftovers(), Vec::<String>::new());
    to.fsck();
    why
}

#[test]
fn a_forged_but_good_pack_is_taken() {
    let mut forged = Forged::default();
    let blob = forged.add(Kind::Blob, b"x");
    let tree = forged.tree(&[("100644", b"a", blob)]);
    let head = forged.commit(tree, &[]);
    let to = Node::new();
    pull_wire(&to, &answer(1, head, &forged.pack())).unwrap();
    assert_eq!(to.author(1), Some(head));
    to.fsck();
}

#[test]
fn incomplete_packs() {
    let absent = ObjectId::Sha1([0x77; 20]);
    let missing = |head| format!("commit {head} is incomplete: object {absent} is missing");
    let mut forged = Forged::default();
    let tree = forged.tree(&[("100644", b"a", absent)]);
    let head = forged.commit(tree, &[]);
    assert_eq!(refused(&mut forged, head), missing(head), "a blob");
    let mut forged = Forged::default();
    let tree = forged.tree(&[("40000", b"a", absent)]);
    let head = forged.commit(tree, &[]);
    assert_eq!(refused(&mut forged, head), missing(head), "a tree");
    let mut forged = Forged::default();
    let head = forged.commit(absent, &[]);
    assert_eq!(refused(&mut forged, head), missing(head), "a root tree");
    let mut forged = Forged::default();
    let tree = forged.tree(&[]);
    let head = forged.commit(tree, &[absent]);
    assert_eq!(refused(&mut forged, head), missing(absent), "a parent");
    let mut forged = Forged::default();
    forged.tree(&[]);
    assert_eq!(
        refused(&mut forged, absent),
        missing(absent),
        "the head itself"
    );
}

#[test]
fn a_chain_that_lacks_something_keeps_no_other_from_moving() {
    let absent = ObjectId::Sha1([0x77; 20]);
    let mut forged = Forged::default();
    let blob = forged.add(Kind::Blob, b"x");
    let whole = forged.tree(&[("100644", b"a", blob)]);
    let good = forged.commit(whole, &[]);
    // both name the same folder, half of which is missing
    let half = forged.tree(&[("100644", b"b", absent)]);
    let below = forged.tree(&[("40000", b"d", half)]);
    let lacking = forged.commit(below, &[good]);
    let lacking_too = forged.commit(below, &[]);
    let on_it = forged.commit(whole, &[lacking]);
    let orphan = forged.commit(whole, &[ObjectId::Sha1([0x66; 20])]);
    let to = Node::new();
    let heads = [
        (1, lacking),
        (2, good),
        (3, on_it),
        (4, orphan),
        (5, lacking_too),
    ];
    let wire = answer_with(&heads, &forged.pack());
    for _ in 0..2 {
        // told each time: another peer may have what is missing
        let pulled = pull_wire(&to, &wire).unwrap();
        let authors: Vec<_> = pulled.refused.iter().map(|it| it.author).collect();
        assert_eq!(authors, [1, 3, 4, 5].map(incarnation));
        assert_eq!((to.author(1), to.author(2)), (None, Some(good)));
    }
    to.fsck();
    // it comes after all
    forged.tree(&[]);
    let found = forged.add(Kind::Blob, b"what was missing");
    let now = forged.tree(&[("100644", b"b", found)]);
    let mended = forged.commit(now, &[good]);
    pull_wire(&to, &answer(1, mended, &forged.pack())).unwrap();
    assert_eq!(to.author(1), Some(mended));
}

#[test]
fn an_object_that_is_here_but_not_whole_does_not_help() {
    let absent = ObjectId::Sha1([0x77; 20]);
    let mut forged = Forged::default();
    let half = forged.tree(&[("100644", b"a", absent)]);
    let to = Node::new();
    assert_eq!(to.write(Kind::Tree, &forged.objects[&half].1), half);
    let mut forged = Forged::default();
    let tree = forged.tree(&[("40000", b"d", half)]);
    let head = forged.commit(tree, &[]);
    let missing = format!("object {absent} is missing");
    let pulled = pull_wire(&to, &answer(1, head, &forged.pack())).unwrap();
    assert!(refusal(&pulled).ends_with(&missing));
    let junk = to.loose_commit(half, &[], 5);
    let pulled = pull_wire(&to, &answer(1, junk, &Forged::default().pack())).unwrap();
    assert!(refusal(&pulled).ends_with(&missing));
    assert_eq!(to.author(1), None);
}

#[test]
fn objects_that_are_not_what_they_should_be() {
    let mut forged = Forged::default();
    let blob = forged.add(Kind::Blob, b"x");
    let head = forged.commit(blob, &[]);
    assert!(refused(&mut forged, head).contains("a blob where a tree should be"));
    let mut forged = Forged::default();
    let inner = forged.tree(&[]);
    let tree = forged.tree(&[("100644", b"a", inner)]);
    let head = forged.commit(tree, &[]);
    assert!(refused(&mut forged, head).contains("a tree where a blob should be"));
    let mut forged = Forged::default();
    let head = forged.tree(&[]);
    assert!(refused(&mut forged, head).contains("a tree where a commit should be"));
}

#[test]
fn trees_that_git_would_refuse() {
    for (entries, why) in [
        (&[("100644", &b".git"[..])][..], "a name that git refuses"),
        (
            &[("100644", b"a"), ("100644", b"a")],
            "two entries of one name",
        ),
        (&[("100644", b"b"), ("100644", b"a")], "out of order"),
        (&[("120000", b"a")], "neither a folder nor a plain file"),
    ] {
        let mut forged = Forged::default();
        let blob = forged.add(Kind::Blob, b"x");
        let entries: Vec<_> = entries
            .iter()
            .map(|(mode, name)| (*mode, *name, blob))
            .collect();
        let tree = forged.tree(&entries);
        let head = forged.commit(tree, &[]);
        let said = refused(&mut forged, head);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn commits_that_git_would_not_write() {
    let tree = ObjectId::empty_tree(gix::hash::Kind::Sha1);
    let good = String::from_utf8(raw_commit(tree, &[], 5)).unwrap();
    for bad in [
        good.replace("+0000", "zone"),
        good.replace("author node <node@volume> 5 +0000\n", ""),
        good.replace("committer node <node@volume>", "committer"),
        good.replace("change", "cha\0nge"),
        good.replace("tree ", "tree  "),
        good.replace("author", &format!("parent {tree}\nparent {tree}\nauthor")),
        String::new(),
    ] {
        let mut forged = Forged::default();
        forged.tree(&[]);
        let head = forged.add(Kind::Commit, bad.as_bytes());
        let said = refused(&mut forged, head);
        assert!(said.contains("commit"), "{said}");
    }
}

#[test]
fn broken_packs() {
    let mut forged = Forged::default();
    let blob = forged.add(Kind::Blob, b"hello hello hello");
    let tree = forged.tree(&[("100644", b"a", blob)]);
    let head = forged.commit(tree, &[]);
    let good = forged.pack();
    let to = Node::new();
    let checked = |pack: &[u8], what: &str| {
        let pulled = pull_wire(&to, &answer(1, head, pack));
        assert!(pulled.is_err(), "{what}");
        assert_eq!((to.author(1), to.leftovers()), (None, vec![]), "{what}");
    };
    for length in 0..good.len() {
        checked(&good[..length], "cut");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        checked(&bad, "spoilt");
    }
    checked(&[&good[..], b"x"].concat(), "longer");
    forged.order.push(head);
    checked(&forged.pack(), "an object twice");
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let to = Node::new();
    let head = ObjectId::Sha1([1; 20]);
    let mut forged = Forged::default();
    forged.add(Kind::Blob, &vec![0; 200_000]);
    let error = pull_wire(&to, &answer(1, head, &forged.pack())).unwrap_err();
    assert_eq!(error.to_string(), "more than 100000 bytes in a blob");
    // the same bytes behind a header that says less
    let (lie, truth) = (
        entry_header(Form::Whole(Kind::Blob), 99_999, 0),
        entry_header(Form::Whole(Kind::Blob), 200_000, 0),
    );
    let mut pack = forged.pack();
    assert_eq!(lie.len(), truth.len());
    pack[12..12 + lie.len()].copy_from_slice(&lie);
    let error = pull_wire(&to, &answer(1, head, &pack)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bad pack: an object that is not as long as announced"
    );
    let error = pull_wire(&to, &answer(1, head, b"PACK\0\0\0\x02\xff\xff\xff\xff")).unwrap_err();
    assert_eq!(error.to_string(), "more than 1000 objects in one pack");
    assert_eq!(to.leftovers(), Vec::<String>::new());
}

#[test]
fn garbage_and_half_frames() {
    let to = Node::new();
    let head = ObjectId::Sha1([1; 20]);
    let whole = answer(1, head, b"PACK");
    for length in 0..whole.len() {
        assert!(pull_wire(&to, &whole[..length]).is_err(), "{length}");
    }
    let mut many = Vec::new();
    pktline::data(&mut many, b"version 2\n").unwrap();
    pktline::special(&mut many, &Line::Flush).unwrap();
    for author in 0..20 {
        let line = format!("{head} refs/authors/{}\n", incarnation(author));
        pktline::data(&mut many, line.as_bytes()).unwrap();
    }
    pktline::special(&mut many, &Line::Flush).unwrap();
    let error = pull_wire(&to, &many).unwrap_err();
    assert_eq!(error.to_string(), "more than 10 author chains");
    let refusal = [&opening(&[(1, head)])[..], b"000dERR later"].concat();
    let error = pull_wire(&to, &refusal).unwrap_err();
    assert_eq!(error.to_string(), "the peer refused: later");
    for garbage in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\x13BitTorrent protocol",
        &[0xff; 5000],
    ] {
        assert!(pull_wire(&to, garbage).is_err());
    }
}

#[test]
fn a_server_survives_garbage() {
    let node = Node::new();
    node.commit(1, &[], &[("a", "0")]);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"0014command=ls-refs\n",
        b"0012command=fetch\n0001000bwant x\n0000",
        b"0012command=fetch\n00010000",
        b"002bgit-receive-pack /bigstore\0host=h\0\0version=2",
        &[0xff; 5000],
    ] {
        let (mut client, server) = streams();
        client.write_all(garbage).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(
            serve_from(&node, &server, &server, &serving()).is_err(),
            "{garbage:?}"
        );
        drop(server);
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
    }
}
