#![allow(clippy::unwrap_used)]
use super::*;
use crate::bytes::catalogue::tests::{content, placed};
use delugefs_core::change::Change;
use delugefs_core::ids::VolumeId;
use delugefs_core::settings::Settings;

fn replica(root: &Path) -> Replica {
    let store = ContentStore::open(root).unwrap();
    let settings = Settings::new(VolumeId::new([1; 16]), "test".to_owned());
    let names = root.join("metadata.git");
    let repository = Repository::create(&names, &settings).unwrap();
    let key = SigningKey::from_bytes(&[1; 32]);
    Replica::open(root, store, repository, key, (Some([1; 16]), 0)).unwrap()
}

fn seal(root: &Path, replica: &Replica, bytes: &[u8]) -> InfoHash {
    let staged = root.join("staging").join("new");
    std::fs::create_dir_all(staged.parent().unwrap()).unwrap();
    std::fs::write(&staged, bytes).unwrap();
    replica.store.seal(&staged).unwrap().info_hash()
}

fn reap(replica: &Replica, in_use: &[InfoHash], others: &[IncarnationId]) -> usize {
    let expired = replica.expired(1000, Duration::ZERO);
    let in_use = in_use.iter().copied().collect();
    let others = others.iter().copied().collect();
    replica.reap(&expired, &in_use, &others).0
}

#[test]
fn what_was_replaced_goes_only_when_the_new_bytes_are_durable_somewhere() {
    let root = tempfile::tempdir().unwrap();
    let replica = replica(root.path());
    let old = seal(root.path(), &replica, &[1; 10_000]);
    let new = InfoHash::new([7; 20]);
    let died = lock(&replica.retention).died(old, 100, Some(new));
    died.unwrap();
    assert_eq!(reap(&replica, &[], &[]), 0, "nobody holds the new bytes");
    let there = tempfile::tempdir().unwrap();
    let key = SigningKey::from_bytes(&[2; 32]);
    let other = key.incarnation();
    let mut holdings = HoldingsFiles::open(there.path(), key, 0).unwrap();
    let records = [(Operation::Held, new)].into_iter();
    holdings.push(records).unwrap();
    let told = holdings.answer(other, &Wanted::default()).unwrap();
    replica.take_holdings(other, &told).2.unwrap();
    assert_eq!(reap(&replica, &[], &[]), 0, "as a former incarnation");
    assert_eq!(reap(&replica, &[old], &[other]), 0, "a handle is open");
    assert_eq!(reap(&replica, &[], &[other]), 1);
    assert_eq!(replica.store.state(&old), State::Absent);
}

#[test]
fn bytes_that_get_a_name_again_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let replica = replica(root.path());
    let content = seal(root.path(), &replica, &[1; 10_000]);
    let died = lock(&replica.retention).died(content, 100, None);
    died.unwrap();
    let expired = replica.expired(1000, Duration::ZERO);
    assert!(replica.keep(&content));
    let none = (BTreeSet::new(), BTreeSet::new());
    assert_eq!(replica.reap(&expired, &none.0, &none.1), (0, 0));
    assert!(!replica.keep(&InfoHash::new([9; 20])), "not there");
}

#[test]
fn who_is_asked_to_hold_what_has_no_name_passes_it_over() {
    let root = tempfile::tempdir().unwrap();
    let replica = replica(root.path());
    let named = placed(1, 7);
    let id = named.entry.id;
    let change = Change {
        before: None,
        after: Some(named),
    };
    let blobs = [(id, BlobId::new([9; 20]))].into();
    replica.follow(&[(id, change)].into_iter().collect(), &blobs, 0);
    replica.take_subjects();
    let asked = [8, 7, 9].map(|byte| content(byte).info_hash);
    assert!(replica.asked_to_hold(asked.to_vec()), "there is room");
    let looked_at = replica.take_subjects();
    assert_eq!(looked_at.some, [content(7).info_hash].into());
    assert!(!looked_at.all && !looked_at.unmet);
}
