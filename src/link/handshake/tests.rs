#![allow(clippy::unwrap_used)]
use super::*;
use delugefs_core::ids::VolumeId;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::io::{DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

/// Room of the in-memory connections: small, so that writers have to wait.
const ROOM: usize = 4096;

#[derive(Default)]
pub(crate) struct FirstSeen(Mutex<BTreeMap<NodeId, [u8; 32]>>);

impl Pins for FirstSeen {
    fn check(&self, node: NodeId, static_key: &[u8; 32]) -> Result<(), crate::link::PinError> {
        let mut known = self.0.lock().unwrap();
        if known.entry(node).or_insert(*static_key) == static_key {
            Ok(())
        } else {
            Err(crate::link::PinError { node })
        }
    }
}

pub(crate) fn credentials(node: u8) -> Credentials {
    Credentials {
        identity: Identity::new(
            NodeId::new([node; 16]),
            &[node; 32],
            &[node ^ 0x80; 32],
            [node; 16],
        ),
        psk: Psk::open_volume(VolumeId::new([7; 16])),
    }
}

type Met<S> = (
    Result<Established<S>, LinkError>,
    Result<Established<S>, LinkError>,
);

async fn meet(dialler: &Credentials, answerer: &Credentials) -> Met<DuplexStream> {
    let (near, far) = duplex(ROOM);
    let (dialler_pins, answerer_pins) = (FirstSeen::default(), FirstSeen::default());
    tokio::join!(
        dial(near, Purpose::Git, dialler, &dialler_pins),
        accept(far, answerer, &answerer_pins)
    )
}

/// Both ends of a link in memory.
pub(crate) async fn pair() -> (SecureStream<DuplexStream>, SecureStream<DuplexStream>) {
    let (near, far) = meet(&credentials(1), &credentials(2)).await;
    (near.unwrap().stream, far.unwrap().stream)
}

/// Both ends of a link over loopback TCP.
pub(crate) async fn tcp_pair() -> (SecureStream<TcpStream>, SecureStream<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, two) = (credentials(1), credentials(2));
    let pins = FirstSeen::default();
    let dialling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        dial(stream, Purpose::Control, &one, &pins).await.unwrap()
    };
    let answering = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept(stream, &two, &pins).await.unwrap()
    };
    let (near, far) = tokio::join!(dialling, answering);
    (near.stream, far.stream)
}

#[tokio::test]
async fn each_learns_who_the_other_is_and_what_for() {
    let (one, two) = (credentials(1), credentials(2));
    let (near, far) = meet(&one, &two).await;
    let (near, far) = (near.unwrap(), far.unwrap());
    assert_eq!(near.remote.node, two.identity.node());
    assert_eq!(near.remote.incarnation, two.identity.incarnation());
    assert_eq!(far.remote.node, one.identity.node());
    assert_eq!(far.remote.public_key, one.identity.public_key());
    assert_ne!(far.remote.static_key, near.remote.static_key);
    assert_eq!((near.purpose, far.purpose), (Purpose::Git, Purpose::Git));
}

#[tokio::test]
async fn another_volume_is_named_on_both_sides() {
    let other = Credentials {
        psk: Psk::open_volume(VolumeId::new([8; 16])),
        ..credentials(2)
    };
    let (near, far) = meet(&credentials(1), &other).await;
    assert!(matches!(near, Err(LinkError::WrongKey)), "{near:?}");
    assert!(matches!(far, Err(LinkError::WrongKey)), "{far:?}");
    assert_eq!(
        LinkError::WrongKey.to_string(),
        "another volume or wrong key"
    );
}

#[tokio::test]
async fn ourselves_and_doubles_are_recognised_by_both() {
    let (near, far) = meet(&credentials(1), &credentials(1)).await;
    assert!(matches!(near, Err(LinkError::Itself)), "{near:?}");
    assert!(matches!(far, Err(LinkError::Itself)), "{far:?}");
    let double = Credentials {
        identity: Identity::new(NodeId::new([1; 16]), &[1; 32], &[0x81; 32], [99; 16]),
        ..credentials(1)
    };
    let (near, far) = meet(&credentials(1), &double).await;
    let yields = |met: Result<_, LinkError>| match met {
        Err(LinkError::Duplicate { yields, .. }) => yields,
        other => panic!("{other:?}"),
    };
    assert_ne!(
        yields(near),
        yields(far),
        "one of them, and both know which"
    );
}

#[tokio::test]
async fn who_only_knows_our_id_is_no_double() {
    let liar = Credentials {
        identity: Identity::new(NodeId::new([1; 16]), &[66; 32], &[0x81; 32], [99; 16]),
        ..credentials(1)
    };
    let (near, far) = meet(&credentials(1), &liar).await;
    for met in [near, far] {
        assert!(
            !matches!(met, Ok(_) | Err(LinkError::Duplicate { .. })),
            "{met:?}"
        );
    }
}

#[tokio::test]
async fn a_changed_static_key_is_refused_a_new_incarnation_is_not() {
    let pins = FirstSeen::default();
    let identity = |seed: u8, incarnation: u8| Credentials {
        identity: Identity::new(
            NodeId::new([2; 16]),
            &[seed; 32],
            &[incarnation; 32],
            [2; 16],
        ),
        ..credentials(2)
    };
    for (seed, incarnation, fits) in [(5, 5, true), (5, 6, true), (6, 5, false)] {
        let (near, far) = duplex(ROOM);
        let (own, other) = (credentials(1), identity(seed, incarnation));
        let other_pins = FirstSeen::default();
        let (near, _) = tokio::join!(
            dial(near, Purpose::Control, &own, &pins),
            accept(far, &other, &other_pins)
        );
        match near {
            Ok(_) => assert!(fits),
            Err(LinkError::Pin(_)) => assert!(!fits),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn another_version_or_protocol_is_named() {
    for (bytes, expected) in [
        (&b"DELUGEFS\x02\x01"[..], "another link version"),
        (b"DELUGEFS\x01\x07", "another link version"),
        (b"GET / HTTP/1.1\r\n", "not a peer link"),
    ] {
        let (mut near, far) = duplex(ROOM);
        near.write_all(bytes).await.unwrap();
        let own = credentials(1);
        let error = accept(far, &own, &FirstSeen::default()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let (near, mut far) = duplex(ROOM);
        far.write_all(bytes).await.unwrap();
        let dialled = dial(near, Purpose::Git, &own, &FirstSeen::default()).await;
        let error = dialled.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn half_and_oversized_handshakes_are_errors() {
    for rest in [&b""[..], &[0], &[0, 48, 1, 2, 3], &[0xff, 0xff], &[4, 1]] {
        let (mut near, far) = duplex(ROOM);
        near.write_all(&PREAMBLE).await.unwrap();
        near.write_all(rest).await.unwrap();
        near.shutdown().await.unwrap();
        let own = credentials(1);
        let answered = accept(far, &own, &FirstSeen::default()).await;
        let error = answered.unwrap_err();
        assert!(
            matches!(error, LinkError::Io(_) | LinkError::Protocol(_)),
            "{error}"
        );
    }
}

/// Carries a handshake through a middle that changes one byte on its way to the answerer.
async fn meet_through(flip: usize) -> Met<DuplexStream> {
    let (near, mut middle_near) = duplex(ROOM);
    let (mut middle_far, far) = duplex(ROOM);
    let (one, two) = (credentials(1), credentials(2));
    let (pins_one, pins_two) = (FirstSeen::default(), FirstSeen::default());
    // Owns the middle, so that the end of one side reaches the other.
    let meddling = async move {
        let (mut from_near, mut to_near) = tokio::io::split(&mut middle_near);
        let (mut from_far, mut to_far) = tokio::io::split(&mut middle_far);
        let forth = async {
            let mut at = 0;
            let mut buffer = [0; 512];
            while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
                if (at..at + count).contains(&flip) {
                    buffer[flip - at] ^= 0x40;
                }
                at += count;
                if to_far.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
            }
        };
        let back = tokio::io::copy(&mut from_far, &mut to_near);
        tokio::select! { () = forth => (), _ = back => () }
    };
    let meeting = async {
        tokio::join!(
            dial(near, Purpose::Git, &one, &pins_one),
            accept(far, &two, &pins_two)
        )
    };
    tokio::pin!(meeting);
    tokio::select! {
        met = &mut meeting => met,
        () = meddling => meeting.await,
    }
}

#[tokio::test]
async fn no_byte_of_a_handshake_can_be_changed() {
    let (near, far) = meet_through(usize::MAX).await;
    near.unwrap();
    far.unwrap();
    // Each field's edges: magic, version, suite, length, ephemeral key, tag, static key, identity.
    for flip in [
        0, 7, 8, 9, 12, 43, 44, 59, 62, 93, 94, 109, 125, 130, 200, 280,
    ] {
        let (_, far) = meet_through(flip).await;
        assert!(far.is_err(), "byte {flip} was changed unnoticed");
    }
}

#[tokio::test]
async fn a_replayed_handshake_is_refused() {
    let (near, mut tap) = duplex(ROOM);
    let one = credentials(1);
    let pins = FirstSeen::default();
    let recording = async {
        let mut first = vec![0; PREAMBLE_BYTES + 2 + 48];
        tap.read_exact(&mut first).await.unwrap();
        drop(tap);
        first
    };
    let (_, first) = tokio::join!(dial(near, Purpose::Git, &one, &pins), recording);
    let (mut near, far) = duplex(ROOM);
    near.write_all(&first).await.unwrap();
    // The old dialler's later messages answer another ephemeral key: random bytes do as well.
    near.write_all(&[&[0, 64][..], &[7; 64]].concat())
        .await
        .unwrap();
    let error = accept(far, &credentials(2), &FirstSeen::default()).await;
    assert!(matches!(error, Err(LinkError::Protocol(_))), "{error:?}");
}

#[tokio::test]
async fn an_identity_of_another_role_or_handshake_is_refused() {
    let own = credentials(1).identity;
    let side = |hash: u8, dialler| Side {
        hash: vec![hash; 32],
        remote_static: [0; 32],
        dialler,
    };
    for (hash, dialler, fits) in [(1, false, true), (2, false, false), (1, true, false)] {
        let (mut near, mut far) = pair().await;
        let sender = side(hash, dialler);
        send_identity(&mut near, &sender, Purpose::Git, &own)
            .await
            .unwrap();
        let own = credentials(2).identity;
        let received = receive_identity(&mut far, &side(1, true), &own).await;
        assert_eq!(received.is_ok(), fits, "{hash} {dialler}");
    }
}

fn hex(bytes: &[u8]) -> String {
    let add = |text: String, byte: &u8| format!("{text}{byte:02x}");
    bytes.iter().fold(String::new(), add)
}

/// The bytes are from docs/FORMATS.md by way of another implementation of ed25519.
#[test]
fn golden_identity() {
    let own = Identity::new(NodeId::new([1; 16]), &[2; 32], &[3; 32], [4; 16]);
    let side = Side {
        hash: vec![5; 32],
        remote_static: [6; 32],
        dialler: true,
    };
    let frame = identity_frame(&side, Purpose::Git, &own);
    let expected = [
        "0091",
        "02",
        "01010101010101010101010101010101",
        "9c380d6efec2ec39321d87d0424fea83",
        "04040404040404040404040404040404",
        "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1",
        "e96d3d6d3a50d729ec7181b680e264356989eee8402e33652724b75ad980e671d6f36b3beb8c406eb305c194bc4e790281713db1897531add01568863924090c",
    ];
    assert_eq!(hex(&frame), expected.concat());
}

#[test]
fn golden_keys() {
    let own = credentials(1).identity;
    assert_eq!(
        hex(own.static_private()),
        "6f0cb0ea1d63ffbd25bf0ab9bdcae4b73af918f15835b238bb06539ea6264f3e"
    );
    let psk = Psk::open_volume(VolumeId::new([7; 16]));
    assert_eq!(
        hex(psk.as_bytes()),
        "81c22d7ff0a5de3e05b90817da68edf97d11ba02b345a1f7b63e320c595ee536"
    );
}
