//! The fuzz entry points, with mutations of good input: a short run of what `fuzz/` does at length.

use super::super::GitStore as _;
use super::super::{
    fuzz_advertisement, fuzz_pack, fuzz_pktline, fuzz_refs, fuzz_request, fuzz_tree, pack_writer,
};
use super::support::Node;
use gix::objs::Kind;

/// A small generator with a fixed seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            _ => bytes.insert(at, random.below(256) as u8),
        }
    }
    bytes
}

fn good_pack() -> Vec<u8> {
    let node = Node::new();
    let commit = node.commit(1, &[], &[("a", "hello"), ("d/b", "b")]);
    let mut repository = node.git();
    let tree = repository
        .find_commit(commit)
        .unwrap()
        .tree_id()
        .unwrap()
        .detach();
    let blob = node.write(Kind::Blob, b"hello");
    let mut pack = Vec::new();
    pack_writer::write((&mut repository, None), &[commit, tree, blob], &mut pack).unwrap();
    pack
}

/// A delta on an object behind it, which is itself a delta on one before.
const DELTAS: &[u8] = include_bytes!("../../../../fuzz/seeds/git_objects/deltas");

#[test]
fn the_seed_with_deltas_is_a_pack() {
    assert_eq!(super::deltas::read(DELTAS).unwrap().objects(), 3);
}

type Target = fn(&[u8]);

#[test]
fn mutated_input_never_panics() {
    let zeros = "00".repeat(16);
    let reference = format!("0054{} refs/authors/{zeros}\n0000", "ab".repeat(20));
    let request = b"0012command=fetch\n0001000ddeepen 3\n0009done\n0000".to_vec();
    let greeting = b"000eversion 2\n0015agent=delugefs\n0000".to_vec();
    let tree = [&b"100644 a.torrent\0"[..], &[7; 20], b"40000 d\0", &[8; 20]].concat();
    let seeds: [(Vec<u8>, Target); 8] = [
        (b"0006a\n0005\x010005\x020000".to_vec(), fuzz_pktline),
        (request, fuzz_request),
        (
            b"git-upload-pack /big\0host=h\0\0version=2\0".to_vec(),
            fuzz_request,
        ),
        (reference.into_bytes(), fuzz_refs),
        (greeting, fuzz_advertisement),
        (tree, fuzz_tree),
        (good_pack(), fuzz_pack),
        (DELTAS.to_vec(), fuzz_pack),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (seed, target) in seeds {
        target(&seed);
        for _ in 0..3000 {
            target(&mutate(&seed, &mut random));
        }
    }
}
