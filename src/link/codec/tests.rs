#![allow(clippy::unwrap_used)]
use super::*;
use crate::link::message::PROTOCOL;
use proptest::prelude::*;

fn framed(message: &Message) -> Bytes {
    let mut bytes = BytesMut::from(encode(message).unwrap());
    let frame = split_frame(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    frame
}

fn text(limit: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..limit / 4)
        .prop_map(|chars| chars.into_iter().collect())
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16, u32)>()
            .prop_map(|(ip, port, scope)| { SocketAddrV6::new(ip.into(), port, 0, scope).into() }),
    ]
}

fn addresses() -> impl Strategy<Value = Vec<SocketAddr>> {
    proptest::collection::vec(address(), 0..=ADDRESSES_MAX)
}

fn heads() -> impl Strategy<Value = Heads> {
    let head = any::<([u8; 16], [u8; 20])>();
    let head = head.prop_map(|(i, c)| (IncarnationId::new(i), CommitId::new(c)));
    proptest::collection::vec(head, 0..20).prop_map(|heads| heads.into_iter().collect())
}

fn hashes() -> impl Strategy<Value = Vec<InfoHash>> {
    proptest::collection::vec(any::<[u8; 20]>().prop_map(InfoHash::new), 0..20)
}

fn hello() -> impl Strategy<Value = Hello> {
    let names = (text(64), text(64), text(64));
    let ids = any::<([u8; 16], [u8; 16], [u8; 16])>();
    let rest = any::<(u16, u16, u16, u64, u64, bool)>();
    (names, ids, rest, addresses()).prop_map(|(names, ids, rest, addresses)| Hello {
        protocol: Protocol {
            major: rest.0,
            minor: rest.1,
        },
        volume: VolumeId::new(ids.0),
        volume_name: names.0,
        node: NodeId::new(ids.1),
        incarnation: IncarnationId::new(ids.2),
        label: names.1,
        site: names.2,
        listen_port: rest.2,
        addresses,
        capacity: rest.3,
        free: rest.4,
        mounted: rest.5,
    })
}

fn incarnation() -> impl Strategy<Value = IncarnationId> {
    any::<[u8; 16]>().prop_map(IncarnationId::new)
}

fn member() -> impl Strategy<Value = MemberFacts> {
    let ids = any::<([u8; 16], [u8; 16], u64, u64, u64)>();
    (ids, text(64), text(64)).prop_map(|(ids, label, site)| MemberFacts {
        node: NodeId::new(ids.0),
        incarnation: IncarnationId::new(ids.1),
        label,
        site,
        capacity: ids.2,
        free: ids.3,
        away: ids.4,
    })
}

fn message() -> impl Strategy<Value = Message> {
    let peer = (any::<[u8; 16]>(), addresses()).prop_map(|(node, addresses)| PeerAddresses {
        node: NodeId::new(node),
        addresses,
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        hello().prop_map(Message::Hello),
        proptest::collection::vec(member(), 0..20).prop_map(Message::Members),
        heads().prop_map(Message::Heads),
        proptest::collection::vec(bytes.clone().prop_map(Bytes::from), 0..5)
            .prop_map(Message::Rests),
        proptest::collection::vec((incarnation(), any::<u64>()), 0..20)
            .prop_map(Message::HoldingsHave),
        (incarnation(), any::<u64>(), any::<Option<(u64, u32)>>()).prop_map(
            |(incarnation, from, page)| Message::HoldingsWanted {
                incarnation,
                wanted: Wanted { from, page },
            }
        ),
        (incarnation(), bytes).prop_map(|(incarnation, bytes)| Message::Holdings {
            incarnation,
            bytes: bytes.into(),
        }),
        proptest::collection::vec(peer, 0..10).prop_map(Message::Peers),
        hashes().prop_map(Message::PleaseHold),
        hashes().prop_map(Message::Fetching),
        hashes().prop_map(Message::Available),
        any::<(u64, u64)>().prop_map(|(capacity, free)| Message::Space { capacity, free }),
        any::<u64>().prop_map(Message::Ping),
        any::<u64>().prop_map(Message::Pong),
        text(TEXT_BYTES_MAX).prop_map(|reason| Message::Goodbye { reason }),
        text(TEXT_BYTES_MAX).prop_map(|text| Message::Problem { text }),
        any::<([u8; 20], u32)>().prop_map(|(content, piece)| Message::Damaged {
            content: InfoHash::new(content),
            piece,
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_is_what_arrives(message in message()) {
        prop_assert_eq!(decode(framed(&message)).unwrap(), Some(message));
    }

    #[test]
    fn fields_of_newer_versions_are_skipped(
        message in message(), more in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let frame = [&framed(&message)[..], &more].concat();
        prop_assert_eq!(decode(frame.into()).unwrap(), Some(message));
    }

    #[test]
    fn a_cut_message_is_malformed(message in message(), at in any::<usize>()) {
        let frame = framed(&message);
        let cut = at % frame.len();
        prop_assert!(decode(frame.slice(..cut)).is_err());
    }

    #[test]
    fn mutations_are_survived_and_what_is_understood_can_be_sent(
        message in message(), at in any::<usize>(), byte in any::<u8>(),
    ) {
        let mut frame = framed(&message).to_vec();
        let at = at % frame.len();
        frame[at] = byte;
        if let Ok(Some(understood)) = decode(frame.into()) {
            prop_assert_eq!(decode(framed(&understood)).unwrap(), Some(understood));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let _ = decode(bytes.clone().into());
        let mut incoming = BytesMut::from(&bytes[..]);
        while let Ok(Some(frame)) = split_frame(&mut incoming) {
            let _ = decode(frame);
        }
    }
}

/// The draft format, byte for byte: a change here is a change of the format.
#[test]
fn golden_bytes() {
    let heads = [(IncarnationId::new([1; 16]), CommitId::new([2; 20]))].into();
    let bytes = encode(&Message::Heads(heads)).unwrap();
    let expected = [&[0, 0, 0, 39, 2, 0, 1][..], &[1; 16], &[2; 20]].concat();
    assert_eq!(bytes, expected);
    let bytes = encode(&Message::Ping(258)).unwrap();
    assert_eq!(&bytes[..], [0, 0, 0, 9, 12, 0, 0, 0, 0, 0, 0, 1, 2]);
    let damaged = Message::Damaged {
        content: InfoHash::new([3; 20]),
        piece: 258,
    };
    let expected = [&[0, 0, 0, 25, 17][..], &[3; 20], &[0, 0, 1, 2]].concat();
    assert_eq!(encode(&damaged).unwrap(), expected);
    let words = Message::Rests(vec![vec![7, 8].into(), vec![9].into()]);
    let expected = [0, 0, 0, 14, 3, 0, 2, 0, 0, 0, 2, 7, 8, 0, 0, 0, 1, 9];
    assert_eq!(&encode(&words).unwrap()[..], expected);
    assert_eq!((PROTOCOL.major, PROTOCOL.minor), (2, 0));
}

#[test]
fn limits_hold_on_both_sides() {
    let hashes = vec![InfoHash::new([0; 20]); HASHES_MAX + 1];
    assert!(encode(&Message::PleaseHold(hashes[1..].to_vec())).is_ok());
    assert!(encode(&Message::PleaseHold(hashes)).is_err());
    let holdings = |length| Message::Holdings {
        incarnation: IncarnationId::new([0; 16]),
        bytes: vec![0; length].into(),
    };
    assert!(encode(&holdings(HOLDINGS_BYTES_MAX)).is_ok());
    assert!(encode(&holdings(HOLDINGS_BYTES_MAX + 1)).is_err());
    let word = |length| Message::Rests(vec![vec![0; length].into()]);
    assert!(encode(&word(WORD_BYTES_MAX)).is_ok());
    assert!(encode(&word(WORD_BYTES_MAX + 1)).is_err());
    let most: Heads = (0..HEADS_MAX as u32)
        .map(|n| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            (IncarnationId::new(id), CommitId::new([0; 20]))
        })
        .collect();
    assert_eq!(
        decode(framed(&Message::Heads(most.clone()))).unwrap(),
        Some(Message::Heads(most))
    );
    for length in [0, FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
        assert!(split_frame(&mut bytes).is_err(), "{length}");
    }
    // A count over the limit is refused even where the bytes are there.
    let mut over = vec![8];
    over.extend((HASHES_MAX as u16 + 1).to_be_bytes());
    over.resize(3 + 20 * (HASHES_MAX + 1), 0);
    assert!(decode(over.into()).is_err());
}

#[test]
fn unknown_types_are_skipped_and_double_heads_refused() {
    assert_eq!(decode(Bytes::from_static(&[200, 1, 2, 3])).unwrap(), None);
    let twice = [&[2, 0, 2][..], &[1; 36], &[1; 36]].concat();
    assert!(decode(twice.into()).is_err());
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "é".repeat(TEXT_BYTES_MAX);
    let Some(Message::Goodbye { reason }) = decode(framed(&Message::Goodbye { reason })).unwrap()
    else {
        panic!("not a goodbye")
    };
    assert_eq!(reason.len(), TEXT_BYTES_MAX);
}
