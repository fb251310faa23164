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
