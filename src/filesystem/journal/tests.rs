#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn any_bytes_are_refused_or_read_but_never_panic() {
    let whole = frame(&Record {
        boot: Some([7; 16]),
        unstaged: vec![delugefs_core::ids::EntryId::ROOT; 3],
        ..Record::default()
    });
    let whole = [MAGIC.as_slice(), &whole.unwrap()].concat();
    assert_eq!(read_all(&whole).unwrap().0.len(), 1);
    for length in MAGIC.len()..whole.len() {
        assert_eq!(read_all(&whole[..length]).unwrap(), (vec![], MAGIC.len()));
    }
    for at in MAGIC.len()..whole.len() {
        let mut other = whole.clone();
        other[at] ^= 0x41;
        assert_eq!(read_all(&other).unwrap().1, MAGIC.len(), "byte {at}");
        // What a checksum does not catch, the parser has to.
        let _ = Record::decode(&other[MAGIC.len() + FRAME_BYTES..]);
    }
    assert!(read_all(b"delugefs-jrnl-99 and more").is_err());
}

#[test]
fn a_damaged_record_costs_only_itself() {
    let record = |number: u8| Record {
        boot: Some([number; 16]),
        ..Record::default()
    };
    let frames: Vec<_> = (0..3)
        .map(|number| frame(&record(number)).unwrap())
        .collect();
    let mut journal = [MAGIC.as_slice(), &frames.concat()].concat();
    let middle = MAGIC.len() + frames[0].len() + FRAME_BYTES;
    journal[middle] ^= 0x41;
    assert_eq!(
        read_all(&journal).unwrap(),
        (vec![record(0), record(2)], journal.len())
    );
}
