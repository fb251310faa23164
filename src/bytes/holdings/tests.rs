#![allow(clippy::unwrap_used)]

use super::*;

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn own() -> IncarnationId {
    public(&key(1)).incarnation()
}

fn hash(byte: u8) -> InfoHash {
    InfoHash::new([byte; 20])
}

fn open(folder: &Path, number: u8) -> HoldingsFiles {
    HoldingsFiles::open(folder, key(number), 0).unwrap()
}

fn hold(files: &mut HoldingsFiles, byte: u8) {
    let records = [(Operation::Held, hash(byte))];
    files.push(records.into_iter()).unwrap();
}

fn take(to: &mut HoldingsFiles, answer: &[u8]) -> Result<Brought, HoldingsFileError> {
    let mut brought = Brought::default();
    to.apply(own(), answer, &mut brought)?;
    Ok(brought)
}

/// All that `from` says of the first's log, told to `to`.
fn tell(from: &HoldingsFiles, to: &mut HoldingsFiles) -> Brought {
    let wanted = to.holdings().wanted(own());
    take(to, &from.answer(own(), &wanted).unwrap()).unwrap()
}

fn held_by_first(known: &HoldingsFiles) -> BTreeSet<InfoHash> {
    known.holdings().log(own()).unwrap().held().clone()
}

#[test]
fn what_was_said_and_heard_is_known_after_a_restart() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = open(here.path(), 1);
    first.set_own(&[hash(1), hash(2)].into()).unwrap();
    let mut other = open(there.path(), 2);
    assert_eq!(tell(&first, &mut other).moved.len(), 2);
    first
        .push([(Operation::Dropped, hash(1))].into_iter())
        .unwrap();
    tell(&first, &mut other);
    for files in [open(here.path(), 1), open(there.path(), 2)] {
        assert!(files.holdings().holds(own(), &hash(2)));
        assert!(!files.holdings().holds(own(), &hash(1)));
    }
}

#[test]
fn what_a_disk_has_not_signed_is_not_believed_of_it_whoever_brings_it() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut first = open(folders[0].path(), 1);
    hold(&mut first, 1);
    let truth = first.answer(own(), &Wanted::default()).unwrap();
    let behind = Wanted {
        from: 1,
        page: None,
    };
    let record = first.answer(own(), &behind).unwrap();
    let mut other = open(folders[1].path(), 2);
    // each byte changed: the key, the position, the operation, the content, the signature
    for at in 0..record.len() {
        let mut lie = record.clone();
        lie[at] ^= 1;
        assert!(take(&mut other, &lie).is_err(), "byte {at}");
    }
    // signed well, by somebody else
    let mut liar = open(folders[2].path(), 3);
    hold(&mut liar, 2);
    let by = public(&key(3)).incarnation();
    let lie = liar.answer(by, &Wanted::default()).unwrap();
    let refused = take(&mut other, &lie);
    assert!(matches!(refused, Err(HoldingsFileError::Forged)));
    assert_eq!(other.holdings().positions().len(), 0, "no log was begun");
    assert!(take(&mut other, &truth).unwrap().progressed);
    assert!(other.holdings().holds(own(), &hash(1)));
}

#[test]
fn an_old_truth_told_again_changes_nothing() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut first = open(here.path(), 1);
    hold(&mut first, 1);
    let old = first.answer(own(), &Wanted::default()).unwrap();
    first
        .push([(Operation::Dropped, hash(1))].into_iter())
        .unwrap();
    let mut other = open(there.path(), 2);
    tell(&first, &mut other);
    let brought = take(&mut other, &old).unwrap();
    assert!(!brought.progressed && brought.moved.is_empty());
    assert!(!other.holdings().holds(own(), &hash(1)));
}

#[test]
fn a_restored_disk_goes_on_behind_what_others_prove_that_it_has_said() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut first = open(folders[0].path(), 1);
    hold(&mut first, 1);
    let backup = std::fs::read(first.path(own())).unwrap();
    hold(&mut first, 2);
    hold(&mut first, 3);
    let mut other = open(folders[1].path(), 2);
    tell(&first, &mut other);
    std::fs::write(first.path(own()), backup).unwrap();
    let mut first = open(folders[0].path(), 1);
    let ahead = tell(&other, &mut first).ahead;
    assert_eq!(ahead, Some(4));
    assert!(
        !first.holdings().holds(own(), &hash(3)),
        "it does not have it"
    );
    assert!(first.leap(4).unwrap() && !first.leap(4).unwrap());
    hold(&mut first, 4);
    drop(first);
    let first = open(folders[0].path(), 1);
    assert_eq!(first.holdings().positions()[&own()], 6);
    while tell(&first, &mut other).progressed {}
    assert_eq!(held_by_first(&other), [hash(1), hash(4)].into());
}

#[test]
fn what_a_disk_said_before_it_was_restored_is_not_mixed_with_what_it_says_since() {
    for (before, since) in [(1000, 2000), (2000, 1000)] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let mut first = open(folders[0].path(), 1);
        hold(&mut first, 1);
        let path = first.path(own());
        let backup = std::fs::read(&path).unwrap();
        let live = |random| HoldingsFiles::open(folders[0].path(), key(1), random).unwrap();
        let mut first = live(before);
        (2..4).for_each(|byte| hold(&mut first, byte));
        let mut other = open(folders[1].path(), 2);
        while tell(&first, &mut other).progressed {}
        std::fs::write(path, backup).unwrap();
        let mut first = live(since);
        (4..9).for_each(|byte| hold(&mut first, byte));
        // each asks the other, as nodes do with whoever is further
        if let Some(heard) = tell(&other, &mut first).ahead {
            assert!(first.leap(heard).unwrap());
        }
        while tell(&first, &mut other).progressed {}
        assert_eq!(held_by_first(&other), held_by_first(&first));
        assert_eq!(held_by_first(&first).len(), 6);
    }
}

#[test]
fn a_torn_file_is_cut_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = open(folder.path(), 1);
    hold(&mut files, 1);
    hold(&mut files, 2);
    let path = files.path(own());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut files = open(folder.path(), 1);
    assert_eq!(
        files.set_own(&[hash(1), hash(2)].into()).unwrap(),
        [hash(2)]
    );
    let files = open(folder.path(), 1);
    assert!(files.holdings().holds(own(), &hash(1)) && files.holdings().holds(own(), &hash(2)));
}

#[test]
fn a_damaged_file_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join(format!("{}.log", own()));
    std::fs::write(&log, b"nonsense").unwrap();
    let mut files = open(folder.path(), 1);
    hold(&mut files, 1);
    assert!(log.with_extension("damaged").exists());
    assert!(open(folder.path(), 1).holdings().holds(own(), &hash(1)));
}

#[test]
fn a_file_stays_small_whatever_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = open(folder.path(), 1);
    for round in 0..20_000_u32 {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&round.to_be_bytes());
        let content = InfoHash::new(bytes);
        let records = [(Operation::Held, content)];
        let frames = files
            .say(|log| {
                log.records(&records.map(|(operation, content)| Record { operation, content }))
            })
            .unwrap();
        files.append(own(), &frames).unwrap();
        let frames = files
            .say(|log| {
                log.records(&[Record {
                    operation: Operation::Dropped,
                    content,
                }])
            })
            .unwrap();
        files.append(own(), &frames).unwrap();
        let frames = files.say(Log::due_checkpoint).unwrap();
        files.append(own(), &frames).unwrap();
    }
    let bytes = files.path(own()).metadata().unwrap().len();
    assert!(bytes < 2 * REWRITE_BYTES_MIN, "{bytes}");
}
