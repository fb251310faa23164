#![allow(clippy::unwrap_used)]
use super::*;
use delugefs_core::ids::{CommitId, EntryId, VolumeId};
use delugefs_core::past::Boundary;
use delugefs_core::settings::Settings;
use proptest::prelude::*;

fn name(bytes: &[u8]) -> Name {
    Name::parse(bytes).unwrap()
}

fn sample(kind: Kind) -> Entry {
    Entry {
        id: EntryId::new(*b"0123456789abcdef"),
        kind,
        attributes: Attributes {
            mode: 0o644,
            uid: 1000,
            gid: 100,
            accessed: Timestamp {
                seconds: -5,
                nanoseconds: 1,
            },
            modified: Timestamp {
                seconds: 1_700_000_000,
                nanoseconds: 999_999_999,
            },
            changed: Timestamp::from_seconds(1_700_000_001),
            xattrs: BTreeMap::from([(b"user.a".to_vec(), b"b".to_vec())]),
            links: BTreeSet::new(),
        },
        written: Written {
            edits: 3,
            at: Timestamp::from_seconds(1_700_000_000),
            by: "host:disk1".to_owned(),
        },
    }
}

const INFO: &[u8] = b"d6:lengthi5e4:name3:xyze";

fn swarm_file() -> Entry {
    let content = Content::Swarm(content_of_info(INFO).unwrap());
    sample(Kind::File(File {
        content,
        previous: vec![InfoHash::new(*b"ABCDEFGHIJKLMNOPQRST")],
    }))
}

const COMMON: &str = "8:accessedli-5ei1ee";
const REST: &str = "8:modifiedli1700000000ei999999999ee";
const END: &str =
    "3:uidi1000e7:writtend2:atli1700000000ei0ee2:by10:host:disk15:editsi3ee6:xattrsd6:user.a1:bee";

#[test]
fn golden_file_in_the_swarm() {
    let expected = format!(
        "d8:delugefsd{COMMON}7:changedli1700000001ei0ee6:formati1e3:gidi100e2:id16:0123456789abcdef\
         4:kind4:file4:modei420e{REST}8:previousl20:ABCDEFGHIJKLMNOPQRSTe{END}4:info{}e",
        String::from_utf8_lossy(INFO)
    );
    let found = encode(&swarm_file(), &name(b"a"), Some(INFO));
    assert_eq!(String::from_utf8_lossy(&found), expected);
    let decoded = decode(&found).unwrap();
    assert_eq!(
        (decoded.entry, decoded.name, decoded.info),
        (swarm_file(), None, Some(INFO.to_vec()))
    );
}

#[test]
fn golden_inline_file_directory_and_nodes() {
    let file = |bytes: &[u8]| {
        Kind::File(File {
            content: Content::Inline(bytes.to_vec()),
            previous: Vec::new(),
        })
    };
    let head = |before: &str, after: &str| {
        format!("d8:delugefsd{COMMON}{before}7:changedli1700000001ei0ee{after}")
    };
    let tail = |kind: &str, after: &str| format!("{kind}4:modei420e{REST}{after}{END}e");
    let middle = "6:formati1e3:gidi100e2:id16:0123456789abcdef4:kind";
    for (kind, before, device, word, after) in [
        (file(b""), "5:bytes0:", "", "4:file", ""),
        (file(b"hello"), "5:bytes5:hello", "", "4:file", ""),
        (Kind::Directory, "", "", "9:directory", ""),
        (
            Kind::Symlink(b"../x".to_vec()),
            "",
            "",
            "7:symlink",
            "6:target4:../x",
        ),
        (Kind::Fifo, "", "", "4:fifo", ""),
        (Kind::Socket, "", "", "6:socket", ""),
        (
            Kind::CharacterDevice(259),
            "",
            "6:devicei259e",
            "16:character device",
            "",
        ),
        (
            Kind::BlockDevice(u64::MAX),
            "",
            "6:devicei18446744073709551615e",
            "12:block device",
            "",
        ),
        (
            Kind::Link(EntryId::new(*b"fedcba9876543210")),
            "",
            "",
            "4:link",
            "6:target16:fedcba9876543210",
        ),
    ] {
        let expected = head(before, device) + middle + &tail(word, after);
        let found = encode(&sample(kind.clone()), &name(b"a"), None);
        assert_eq!(String::from_utf8_lossy(&found), expected);
        assert_eq!(decode(&found).unwrap().entry, sample(kind));
    }
}

#[test]
fn golden_settings() {
    let settings = Settings::new(VolumeId::new(*b"0123456789abcdef"), "bigstore".to_owned());
    let encoded = settings::encode(&settings);
    let expected = "d8:delugefsd6:copiesi2e6:formati1e5:graceli86400ei0ee7:historyli7776000ei0ee10:inline_maxi4096e\
                    4:keepli604800ei0ee5:mergei1e4:name8:bigstore6:retireli15552000ei0ee6:volume16:0123456789abcdef4:waitli300ei0eeee";
    assert_eq!(String::from_utf8_lossy(&encoded), expected);
    assert_eq!(settings::decode(&encoded), Ok(settings.clone()));
    let cut = Settings {
        boundary: Some(Boundary {
            time: 1_700_000_000,
            commit: CommitId::new(*b"commit of 20 bytes.."),
        }),
        ..settings
    };
    let recorded = expected.replace(
        "6:copies",
        "8:boundaryli1700000000e20:commit of 20 bytes..e6:copies",
    );
    assert_eq!(String::from_utf8_lossy(&settings::encode(&cut)), recorded);
    assert_eq!(settings::decode(recorded.as_bytes()), Ok(cut));
    let short = recorded.replace("20:commit of 20 bytes..", "4:comm");
    assert!(settings::decode(short.as_bytes()).is_err());
    let newer = expected.replace("mergei1e", "mergei2e");
    assert_eq!(
        settings::decode(newer.as_bytes()),
        Err(CodecError::Newer { found: 2, known: 1 })
    );
}

#[test]
fn a_long_name_is_whole_in_the_dictionary() {
    let long = name(&[b'n'; 255]);
    let encoded = encode(&swarm_file(), &long, None);
    let decoded = decode(&encoded).unwrap();
    assert_eq!((decoded.name, decoded.info), (Some(long), None));
    let directory = encode_directory(&sample(Kind::Directory), None, 8);
    assert_eq!(decode(&directory).unwrap().fan_out, 8);
}

#[test]
fn refuses_what_it_never_writes() {
    let good = String::from_utf8(encode(&sample(Kind::Directory), &name(b"a"), None)).unwrap();
    for (from, to) in [
        ("formati1e", "formati0e"),
        ("formati1e", "formati-1e"),
        ("modei420e", "modei4096e"),
        ("gidi100e", "gidi-1e"),
        ("gidi100e", "gidi4294967296e"),
        ("999999999e", "1000000000e"),
        ("9:directory", "9:directoru"),
        ("9:directory", "4:file"),
        ("3:gid", "3:gie"),
        ("6:xattrsd6:user.a1:be", ""),
        ("d6:user.a1:be", "de"),
        ("2:id16:0123456789abcdef", "2:id15:0123456789abcde"),
        ("li-5ei1ee", "li-5ee"),
        ("6:formati1e", "6:fanouti0e6:formati1e"),
        ("6:formati1e", "6:fanouti17e6:formati1e"),
        ("8:modified", "7:linki0e8:modified"),
        ("4:modei420e", "4:modei420e1:z0:"),
        ("edits", "editz"),
        ("4:modei420e8:modified", "4:modei420e4:name1:a8:modified"),
    ] {
        let bad = good.replacen(from, to, 1);
        // Dropping the attributes is the one edit that leaves a valid entry.
        let expected_ok = from == "6:xattrsd6:user.a1:be";
        assert_ne!(bad, good, "{from}");
        assert_eq!(decode(bad.as_bytes()).is_ok(), expected_ok, "{bad}");
    }
    let newer = good.replace("formati1e", "formati2e");
    assert_eq!(
        decode(newer.as_bytes()),
        Err(CodecError::Newer { found: 2, known: 1 })
    );
    assert_eq!(
        decode(&vec![b'l'; ENCODED_BYTES_MAX + 1]),
        Err(CodecError::TooLarge)
    );
}

fn arbitrary_kind() -> impl Strategy<Value = Kind> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let target = prop::collection::vec(1..=255u8, 1..40);
    let previous =
        prop::collection::vec(any::<[u8; 20]>().prop_map(InfoHash::new), 0..=PREVIOUS_MAX);
    let content = prop_oneof![
        bytes().prop_map(Content::Inline),
        (any::<[u8; 20]>(), 1..u64::MAX).prop_map(|(hash, length)| Content::Swarm(ContentRef {
            info_hash: InfoHash::new(hash),
            length
        })),
    ];
    prop_oneof![
        (content, previous).prop_map(|(content, previous)| Kind::File(File { content, previous })),
        Just(Kind::Directory),
        target.prop_map(Kind::Symlink),
        any::<u64>().prop_map(Kind::BlockDevice),
        any::<[u8; 16]>().prop_map(|id| Kind::Link(EntryId::new(id))),
    ]
}

prop_compose! {
    fn arbitrary_time()(seconds in any::<i64>(), nanoseconds in 0..1_000_000_000u32) -> Timestamp {
        Timestamp { seconds, nanoseconds }
    }
}

prop_compose! {
    fn arbitrary_entry()(
        id in any::<[u8; 16]>(), kind in arbitrary_kind(), mode in 0..=0o7777u16, uid in any::<u32>(),
        times in [arbitrary_time(), arbitrary_time(), arbitrary_time(), arbitrary_time()],
        xattrs in prop::collection::btree_map(
            prop::collection::vec(1..=255u8, 1..9), prop::collection::vec(any::<u8>(), 0..9), 0..3),
        links in prop::collection::btree_set(any::<[u8; 16]>(), 0..3),
        by in "\\PC{0,10}", edits in any::<u32>(),
    ) -> Entry {
        let [accessed, modified, changed, at] = times;
        let links = links.into_iter().map(EntryId::new).collect();
        let attributes = Attributes { mode, uid, gid: !uid, accessed, modified, changed, xattrs, links };
        Entry { id: EntryId::new(id), kind, attributes, written: Written { edits, at, by } }
    }
}

/// What the fuzz target does: whatever is accepted is encoded to the same bytes.
fn check_bytes(bytes: &[u8]) {
    if let Ok(decoded) = decode(bytes) {
        let again = encode_parts(
            &decoded.entry,
            decoded.name.as_ref(),
            decoded.info.as_deref(),
            decoded.fan_out,
        );
        assert_eq!(again, bytes);
    }
}

proptest! {
    #[test]
    fn entries_come_back(entry in arbitrary_entry(), long in any::<bool>()) {
        let name = if long { name(&[b'x'; 250]) } else { name(b"short") };
        let encoded = encode(&entry, &name, None);
        check_bytes(&encoded);
        let decoded = decode(&encoded).unwrap();
        prop_assert_eq!(decoded.entry, entry);
        prop_assert_eq!(decoded.name, long.then_some(name));
    }

    #[test]
    fn mutations_never_panic_nor_are_read_loosely(
        entry in arbitrary_entry(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        let mut bytes = encode(&entry, &name(b"a"), None);
        for (place, byte, edit) in edits {
            let place = place.index(bytes.len());
            match edit {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => bytes[place] = bytes[place].wrapping_add(1),
                _ if bytes.len() > 1 => { bytes.remove(place); }
                _ => {}
            }
        }
        check_bytes(&bytes);
    }
}
