//! Packs with deltas: good ones are installed as they come, bad ones end with a clear error.

use super::super::pack_reader::receive;
use super::super::quarantine::Received;
use super::super::{ExchangeError, Foreign, PullLimits, PullOptions, fuzz_pack};
use super::hostile::{answer, pull_wire};
use super::support::{Node, git, raw_commit, trusting};
use crate::repository::packs::writer::{Form, entry_header};
use crate::repository::packs::{CHAIN_MAX, delta};
use delugefs_core::ids::{BlobId, CommitId, IncarnationId};
use gix::ObjectId;
use gix::objs::Kind;
use std::io::Write as _;

/// A pack under construction.
struct Pack {
    bytes: Vec<u8>,
    count: u32,
}

impl Pack {
    fn new() -> Self {
        let bytes = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
        Self { bytes, count: 0 }
    }

    /// Adds an entry: where it begins.
    fn add(&mut self, header: &[u8], data: &[u8]) -> u64 {
        let at = self.at();
        self.bytes.extend_from_slice(header);
        let mut deflate =
            gix::zlib::stream::deflate::Write::new(Vec::new(), gix::zlib::Compression::DEFAULT);
        deflate.write_all(data).unwrap();
        deflate.flush().unwrap();
        self.bytes.extend(deflate.into_inner());
        self.count += 1;
        at
    }

    fn at(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn whole(&mut self, kind: Kind, data: &[u8]) -> u64 {
        let header = entry_header(Form::Whole(kind), data.len() as u64, 0);
        self.add(&header, data)
    }

    fn on_offset(&mut self, base: u64, delta: &[u8]) -> u64 {
        let header = entry_header(Form::DeltaOn(base), delta.len() as u64, self.at());
        self.add(&header, delta)
    }

    fn on_id(&mut self, base: ObjectId, delta: &[u8]) -> u64 {
        let mut header = entry_header(Form::Whole(Kind::Commit), delta.len() as u64, 0);
        header[0] |= 7 << 4;
        header.extend_from_slice(base.as_slice());
        self.add(&header, delta)
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        hasher.update(&self.bytes);
        let trailer = hasher.try_finalize().unwrap();
        self.bytes.extend_from_slice(trailer.as_slice());
        self.bytes
    }
}

fn id(kind: Kind, data: &[u8]) -> ObjectId {
    gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, data).unwrap()
}

fn from_to(base: &[u8], target: &[u8]) -> Vec<u8> {
    delta::encode(base, target, usize::MAX).unwrap()
}

/// Version `number` of a file: 3000 bytes of which a few are its own.
fn version(number: usize) -> Vec<u8> {
    let mut text: Vec<u8> = (0..300)
        .flat_map(|line| format!("line {line:4}\n").into_bytes())
        .collect();
    text.splice(1500..1500, format!("version {number}").into_bytes());
    text
}

fn small() -> PullOptions<'static> {
    PullOptions {
        limits: PullLimits {
            blob_bytes_max: 100_000,
            tree_bytes_max: 300_000,
            ..PullLimits::default()
        },
        ..trusting()
    }
}

pub(super) fn read(pack: &[u8]) -> Result<Received, ExchangeError> {
    read_with(pack, &small())
}

fn read_with(pack: &[u8], options: &PullOptions<'_>) -> Result<Received, ExchangeError> {
    let folder = tempfile::tempdir().unwrap();
    let mut rest = pack;
    let mut source = |buffer: &mut [u8]| Ok(std::io::Read::read(&mut rest, buffer).unwrap());
    let received = receive(&mut source, folder.path(), options);
    if let Ok(received) = &received {
        received.assert_readable();
    }
    received
}

fn refused(pack: Pack) -> String {
    refused_with(pack, &small())
}

fn refused_with(pack: Pack, options: &PullOptions<'_>) -> String {
    let pack = pack.finish();
    fuzz_pack(&pack);
    read_with(&pack, options).unwrap_err().to_string()
}

/// A chain of so many deltas, on a whole blob.
fn chain(deltas: usize) -> Pack {
    let mut pack = Pack::new();
    let mut base = pack.whole(Kind::Blob, &version(0));
    for number in 1..=deltas {
        base = pack.on_offset(base, &from_to(&version(number - 1), &version(number)));
    }
    pack
}

#[test]
fn deltas_of_both_kinds_arrive_and_are_stored_as_they_came() {
    let versions: Vec<_> = (0..4).map(version).collect();
    let ids: Vec<_> = versions.iter().map(|text| id(Kind::Blob, text)).collect();
    let mut tree = Vec::new();
    for (number, blob) in ids.iter().enumerate() {
        tree.extend(format!("100644 v{number}\0").bytes());
        tree.extend(blob.as_slice());
    }
    let commit = raw_commit(id(Kind::Tree, &tree), &[], 1_700_000_000);
    let mut pack = Pack::new();
    // before what it rests on, which is a delta itself
    pack.on_id(ids[1], &from_to(&versions[1], &versions[2]));
    let base = pack.whole(Kind::Blob, &versions[0]);
    pack.on_offset(base, &from_to(&versions[0], &versions[1]));
    pack.on_id(ids[0], &from_to(&versions[0], &versions[3]));
    pack.whole(Kind::Tree, &tree);
    pack.whole(Kind::Commit, &commit);
    let pack = pack.finish();
    let (to, head) = (Node::new(), id(Kind::Commit, &commit));
    pull_wire(&to, &answer(1, head, &pack)).unwrap();
    assert_eq!(to.author(1), Some(head));
    to.fsck();
    let (files, folder) = (to.leftovers(), to.path().join("objects/pack"));
    let stored = files.iter().find_map(|name| name.strip_suffix(".pack"));
    let stored = &format!("{}.pack", stored.unwrap());
    assert_eq!(std::fs::read(folder.join(stored)).unwrap(), pack);
    let verified = git(&folder, &["verify-pack", "-v", stored]);
    assert!(
        verified.contains("chain length = 2: 1 object"),
        "{verified}"
    );
}

#[test]
fn chains_have_a_limit() {
    let longest = usize::from(CHAIN_MAX);
    let received = read(&chain(longest).finish()).unwrap();
    assert_eq!(received.objects(), longest + 1);
    assert_eq!(
        refused(chain(longest + 1)),
        "more than 50 deltas in a chain"
    );
}

#[test]
fn bases_that_are_not_there() {
    let nothing = "bad pack: a delta on what is no object before it";
    for back in [0, 1, 12, 13, 1_000_000, u64::MAX / 2] {
        let mut pack = Pack::new();
        pack.whole(Kind::Blob, &version(0));
        let mut header = entry_header(Form::DeltaOn(0), 20, back);
        if back == 0 {
            header = vec![0xe0 | 4, 1, 0];
        }
        pack.add(&header, &[0; 20]);
        assert_eq!(refused(pack), nothing, "{back}");
    }
    let mut pack = Pack::new();
    pack.add(&[&[0xe4, 1][..], &[0xff; 30]].concat(), &[0; 20]);
    assert_eq!(refused(pack), nothing, "a distance without end");
    let rests = "bad pack: a delta whose base is not in the pack, or rests on it";
    let [first, second] = [1, 2].map(|number| id(Kind::Blob, &version(number)));
    let mut pack = Pack::new();
    pack.whole(Kind::Blob, &version(0));
    pack.on_id(first, &from_to(&version(1), &version(2)));
    assert_eq!(refused(pack), rests, "elsewhere");
    let mut pack = Pack::new();
    pack.on_id(first, &from_to(&version(1), &version(2)));
    pack.on_id(second, &from_to(&version(2), &version(1)));
    assert_eq!(refused(pack), rests, "a circle");
}

#[test]
fn a_base_that_the_repository_has_is_not_taken() {
    let to = Node::new();
    to.write(Kind::Blob, &version(0));
    let mut pack = Pack::new();
    pack.on_id(
        id(Kind::Blob, &version(0)),
        &from_to(&version(0), &version(1)),
    );
    let error = pull_wire(&to, &answer(1, ObjectId::Sha1([1; 20]), &pack.finish()));
    assert!(matches!(error, Err(ExchangeError::Pack(_))), "{error:?}");
    assert_eq!(to.leftovers(), Vec::<String>::new());
}

#[test]
fn deltas_that_are_none() {
    for (delta, why) in [
        (&b""[..], "the delta is cut off"),
        (b"\x03\x01\x01a", "the delta is for another base"),
        (b"\x04\x01\x00", "the delta has an unknown instruction"),
        (b"\x04\x02\x02a", "the delta is cut off"),
        (b"\x04\x05\x90\x05", "the delta copies from beyond its base"),
        (
            b"\x04\x01\x90\x04",
            "the delta's result is not as long as it should be",
        ),
        (
            b"\x04\x05\x90\x04",
            "the delta's result is not as long as it should be",
        ),
    ] {
        let mut pack = Pack::new();
        let base = pack.whole(Kind::Blob, b"base");
        pack.on_offset(base, delta);
        assert_eq!(refused(pack), format!("bad pack: {why}"), "{delta:?}");
    }
}

#[test]
fn what_a_delta_makes_is_checked_like_anything_else() {
    let mut tree = b"100644 a\0".to_vec();
    tree.extend([7; 20]);
    let mut bad = tree.clone();
    bad[7] = b'/';
    let mut pack = Pack::new();
    let base = pack.whole(Kind::Tree, &tree);
    pack.on_offset(base, &from_to(&tree, &bad));
    assert!(refused(pack).contains("a name that git refuses"));
    struct NoBlob;
    impl Foreign for NoBlob {
        fn check_blob(&self, _: BlobId, raw: &[u8]) -> Result<(), String> {
            let is_bad = raw == version(1);
            if is_bad {
                Err("not this".into())
            } else {
                Ok(())
            }
        }
        fn check_commit(&self, _: CommitId, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        fn check_head(&self, _: IncarnationId, _: CommitId, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
    }
    let options = PullOptions {
        foreign: &NoBlob,
        ..PullOptions::default()
    };
    assert!(refused_with(chain(1), &options).ends_with("not this"));
}

#[test]
fn an_object_that_is_there_twice_costs_no_more_than_twice() {
    let mut pack = Pack::new();
    pack.whole(Kind::Blob, &version(0));
    for number in 1..40 {
        let base = id(Kind::Blob, &version(number - 1));
        for _ in 0..2 {
            pack.on_id(base, &from_to(&version(number - 1), &version(number)));
        }
    }
    let twice = refused(pack);
    assert!(twice.ends_with("twice"), "{twice}");
}

/// A blob of so many zeros, and deltas that repeat it, each with a number at its end.
fn bomb(size: usize, deltas: u32) -> Pack {
    let mut pack = Pack::new();
    let base = vec![0; size];
    let at = pack.whole(Kind::Blob, &base);
    for number in 0..deltas {
        let target = [&base[..], &number.to_be_bytes()].concat();
        pack.on_offset(at, &from_to(&base, &target));
    }
    pack
}

#[test]
fn bombs_end_at_their_limits() {
    assert_eq!(refused(bomb(99_998, 1)), "more than 100000 bytes in a blob");
    assert_eq!(
        refused(bomb(90_000, 200)),
        "more than 1032 bytes made by deltas for each byte of a pack"
    );
    let mut pack = Pack::new();
    let base = pack.whole(Kind::Blob, b"base");
    pack.on_offset(base, &vec![1; 300_001]);
    assert_eq!(refused(pack), "more than 300000 bytes in a delta");
    let mut options = small();
    options.limits.bases_bytes_max = 5000;
    assert_eq!(
        read_with(&chain(50).finish(), &options).unwrap().objects(),
        51
    );
    let mut forks = chain(1);
    let first = 12;
    forks.on_offset(first, &from_to(&version(0), &version(7)));
    forks.on_id(
        id(Kind::Blob, &version(7)),
        &from_to(&version(7), &version(8)),
    );
    let said = refused_with(forks, &options);
    assert_eq!(said, "more than 5000 bytes that deltas rest on");
}

#[test]
fn any_byte_of_a_delta_that_is_spoilt_is_found() {
    let good = chain(2).finish();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        assert!(read(&bad).is_err(), "{at}");
    }
    for length in 0..good.len() {
        assert!(read(&good[..length]).is_err(), "{length}");
    }
}
