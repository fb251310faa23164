//! Peers that lie, stall, flood or talk nonsense; and disks that fail.

use super::download::until;
use super::support::{Node, bytes, config, info_of};
use crate::metainfo::Info;
use crate::swarm::wire::{BlockRequest, HANDSHAKE_BYTES, Handshake, Message, PeerId, encode};
use crate::swarm::{ReadError, StoredContent, TcpConnector};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

fn handshake(info: &Info, name: u8) -> [u8; HANDSHAKE_BYTES] {
    let handshake = Handshake {
        info_hash: info.info_hash(),
        peer_id: PeerId([name; 20]),
        extensions: false,
    };
    handshake.encode()
}

/// A connection to a node after both handshakes.
async fn connect(node: &Node, info: &Info, name: u8) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(&handshake(info, name)).await.unwrap();
    let mut answer = [0; HANDSHAKE_BYTES];
    stream.read_exact(&mut answer).await.unwrap();
    stream
}

/// The other side closes, after whatever it still sends.
async fn closes(stream: &mut TcpStream) -> bool {
    let mut sink = vec![0; 1 << 16];
    let closing = async {
        loop {
            match stream.read(&mut sink).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(SOON, closing).await.is_ok()
}

fn frames(messages: &[Message]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for message in messages {
        encode(message, &mut bytes);
    }
    bytes
}

fn request(piece: u32, begin: u32, length: u32) -> Message {
    Message::Request(BlockRequest {
        piece,
        begin,
        length,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_ends_its_connection_and_disturbs_nobody() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(2_000_000, 1);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    seed.swarm.set_limits(Some(4_000_000), None);
    let mut fetch = leech.swarm.fetch(&info);
    let pieces = info.piece_count();
    let flood: Vec<Message> = (0..3000)
        .map(|at| request(at % (pieces - 1), 0, 16_384))
        .collect();
    let nonsense: Vec<(&str, Vec<u8>)> = vec![
        ("too long", vec![0, 1, 0, 0, 7]),
        ("far too long", vec![0xff; 64]),
        (
            "short bitfield",
            frames(&[Message::Bitfield(Bytes::from_static(&[0xff]))]).to_vec(),
        ),
        (
            "spare bits",
            frames(&[Message::Bitfield(vec![0xff; 4].into())]).to_vec(),
        ),
        ("piece beyond", frames(&[Message::Have(pieces)]).to_vec()),
        (
            "request beyond",
            frames(&[request(pieces, 0, 16_384)]).to_vec(),
        ),
        (
            "request over the end",
            frames(&[request(0, 65_000, 16_384)]).to_vec(),
        ),
        ("large request", frames(&[request(0, 0, 65_536)]).to_vec()),
        ("empty request", frames(&[request(0, 0, 0)]).to_vec()),
        ("wrong length", vec![0, 0, 0, 2, 0, 0]),
        (
            "odd block",
            frames(&[Message::Piece {
                piece: 0,
                begin: 5,
                data: vec![1; 100].into(),
            }])
            .to_vec(),
        ),
        (
            "bad extension",
            frames(&[Message::Extended(0, Bytes::from_static(b"d1:"))]).to_vec(),
        ),
        ("flood", frames(&flood).to_vec()),
    ];
    for (name, (what, bytes)) in (10..).zip(nonsense) {
        let mut stream = connect(&seed, &info, name).await;
        let _ = stream.write_all(&bytes).await;
        assert!(closes(&mut stream).await, "{what}");
    }
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_half_handshakes_are_closed() {
    let node = Node::start(1).await;
    let info = node.seed(&bytes(100_000, 1));
    let unknown = info_of(&bytes(100_000, 2));
    let whole = handshake(&unknown, 7);
    for bytes in [&whole[..], &[b'x'; 100], &handshake(&info, 7)[..40]] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        assert!(closes(&mut stream).await);
    }
    assert!(node.swarm.status().contents.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_frames_never_harm() {
    use rand::{Rng, SeedableRng};
    let node = Node::start(1).await;
    let info = node.give(&bytes(1_000_000, 1), 0..8);
    let mut random = rand::rngs::StdRng::seed_from_u64(42);
    for round in 0..60u8 {
        let mut stream = connect(&node, &info, round + 10).await;
        let mut bytes = BytesMut::new();
        for _ in 0..20 {
            let length = random.random_range(0..40u32);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend((0..length).map(|at| match at {
                0 => random.random_range(0..22),
                _ => random.random_range(0..4) * random.random_range(0..64),
            }));
        }
        let _ = stream.write_all(&bytes).await;
        drop(stream);
    }
    let leech = Node::start(2).await;
    leech.knows(&[&node]);
    let got = leech.swarm.reader(&info).read(0, 500_000).await.unwrap();
    assert_eq!(got, bytes(1_000_000, 1)[..500_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_peer_is_banned_and_spoils_nothing() {
    let (liar, honest, leech) = (
        Node::start(1).await,
        Node::start(2).await,
        Node::start(3).await,
    );
    let data = bytes(6_000_000, 3);
    let info = liar.seed(&data);
    liar.lie(&info);
    leech.knows(&[&liar]);
    let mut fetch = leech.swarm.fetch(&info);
    let reader = leech.swarm.reader(&info);
    let read = tokio::spawn(async move { reader.read(3_000_000, 100_000).await });
    until(&liar.swarm, |swarm| {
        swarm.status().contents.iter().any(|content| content.up > 0)
    })
    .await;
    until(&leech.swarm, |swarm| {
        swarm
            .status()
            .contents
            .iter()
            .all(|content| content.peers == 0)
    })
    .await;
    assert_eq!(leech.storage.content(&info).count(), 0);
    honest.seed(&data);
    leech.knows(&[&liar, &honest]);
    leech.swarm.peers_changed(&info.info_hash());
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
    assert_eq!(read.await.unwrap().unwrap(), data[3_000_000..3_100_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_a_damaged_disk_is_named_and_may_come_back_when_there_is_news_of_it() {
    let (damaged, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(1_000_000, 5);
    let info = damaged.seed(&data);
    damaged.lie(&info);
    leech.knows(&[&damaged]);
    let mut fetch = leech.swarm.fetch(&info);
    let source = leech.source.clone();
    until(&leech.swarm, |_| !source.accused.lock().unwrap().is_empty()).await;
    let (piece, address) = source.accused.lock().unwrap()[0];
    assert!(piece < info.piece_count());
    assert_eq!(address, damaged.address);
    damaged.be_honest(&info);
    let early = timeout(Duration::from_secs(1), fetch.done()).await;
    assert!(early.is_err(), "it is not asked again by itself");
    // what the engine there has open is let go, as a repair does
    damaged.swarm.let_go(&info.info_hash()).await;
    assert!(damaged.swarm.status().contents.is_empty());
    leech.swarm.peers_changed(&info.info_hash());
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_beside_an_honest_peer_spoils_nothing() {
    let (liar, honest, leech) = (
        Node::start(1).await,
        Node::start(2).await,
        Node::start(3).await,
    );
    let data = bytes(6_000_000, 4);
    let info = liar.seed(&data);
    honest.seed(&data);
    liar.lie(&info);
    leech.knows(&[&liar, &honest]);
    let mut fetch = leech.swarm.fetch(&info);
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
}

/// Says it has everything and lets ask, and never sends a block.
async fn silent_peer(info: &Info) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let all = crate::swarm::piece_set::PieceSet::from_fn(info.piece_count(), |_| true);
    let hello = frames(&[Message::Bitfield(all.to_wire().into()), Message::Unchoke]);
    let shake = handshake(info, 77);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(&shake).await;
            let _ = stream.write_all(&hello).await;
            tokio::spawn(
                async move { while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} },
            );
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_and_a_slow_peer_stall_nothing() {
    let (slow, fast, leech) = (
        Node::start(1).await,
        Node::start(2).await,
        Node::start(3).await,
    );
    let data = bytes(3_000_000, 5);
    let info = slow.seed(&data);
    slow.swarm.set_limits(Some(20_000), None);
    fast.seed(&data);
    let silent = silent_peer(&info).await;
    *leech.source.peers.lock().unwrap() = vec![silent, slow.address];
    let reader = leech.swarm.reader(&info);
    let mut fetch = leech.swarm.fetch(&info);
    until(&leech.swarm, |swarm| {
        swarm
            .status()
            .contents
            .iter()
            .all(|content| content.peers == 2)
    })
    .await;
    leech.source.peers.lock().unwrap().push(fast.address);
    leech.swarm.peers_changed(&info.info_hash());
    let begun = Instant::now();
    let got = timeout(SOON, reader.read(1_000_000, 100_000))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, data[1_000_000..1_100_000]);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
}

/// Between two who talk: passes bytes on, or holds them up without a word, as a stopped process does.
struct Between {
    address: std::net::SocketAddr,
    held_up: Arc<tokio::sync::watch::Sender<bool>>,
}

impl Between {
    async fn start(to: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let held_up = Arc::new(tokio::sync::watch::Sender::new(false));
        let state = held_up.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (read, write) = near.into_split();
                let (from, into) = TcpStream::connect(to).await.unwrap().into_split();
                tokio::spawn(pass_on(read, into, state.subscribe()));
                tokio::spawn(pass_on(from, write, state.subscribe()));
            }
        });
        Self { address, held_up }
    }
}

async fn pass_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut into: tokio::net::tcp::OwnedWriteHalf,
    mut held_up: tokio::sync::watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if held_up.wait_for(|held_up| !held_up).await.is_err()
            || into.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_a_holder_that_froze_halfway_wait_once() {
    let mut impatient = config(2);
    impatient.wait = Duration::from_millis(700);
    let seed = Node::start(1).await;
    let leech = Node::with(impatient, Arc::new(TcpConnector)).await;
    let data = bytes(6_000_000, 12);
    let info = seed.seed(&data);
    seed.swarm.set_limits(Some(2_000_000), None);
    let between = Between::start(seed.address).await;
    *leech.source.peers.lock().unwrap() = vec![between.address];
    let reader = leech.swarm.reader(&info);
    let mut fetch = leech.swarm.fetch(&info);
    until(&leech.swarm, |_| leech.storage.content(&info).count() > 3).await;

    between.held_up.send_replace(true);
    // what was on its way still arrives
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stored = leech.storage.content(&info);
    let missing = (0..info.piece_count()).filter(|piece| !stored.has(*piece));
    let missing: Vec<u64> = missing
        .map(|piece| info.piece_range(piece).unwrap().start)
        .collect();
    let failed = timeout(SOON, reader.read(missing[0], 10)).await.unwrap();
    assert_eq!(failed, Err(ReadError::TimedOut));
    let begun = Instant::now();
    for at in &missing {
        assert_eq!(reader.read(*at, 10).await, Err(ReadError::Unavailable));
    }
    // other news change nothing
    leech.swarm.peers_changed(&info.info_hash());
    let failed = reader.read(missing[0], 10).await;
    assert_eq!(failed, Err(ReadError::Unavailable));
    assert!(begun.elapsed() < Duration::from_millis(600));

    between.held_up.send_replace(false);
    let whole = async {
        while reader.read(missing[0], 10).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, whole).await.unwrap();
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
    assert_eq!(leech.bytes(&info), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_only_itself_does_not_talk_to_itself() {
    let (node, seed) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(1_000_000, 6);
    let info = seed.seed(&data);
    node.knows(&[&node]);
    let mut fetch = node.swarm.fetch(&info);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.swarm.status().contents[0].peers, 0);
    node.knows(&[&node, &seed]);
    node.swarm.peers_changed(&info.info_hash());
    timeout(SOON, fetch.done()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_dial_each_other_keep_one_connection() {
    let (left, right) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(1_000_000, 7);
    let info = left.give(&data, 0..5);
    right.give(&data, 5..10);
    left.knows(&[&right]);
    right.knows(&[&left]);
    let fetches = (left.swarm.fetch(&info), right.swarm.fetch(&info));
    // The rest is nobody's: both go on wanting it.
    for node in [&left, &right] {
        until(&node.swarm, |_| node.storage.content(&info).count() == 10).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for node in [&left, &right] {
        assert_eq!(node.swarm.status().contents[0].peers, 1);
    }
    drop(fetches);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_waiting_readers_hold_up_nobody_else() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(400_000, 8);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    let lost = info_of(&bytes(9_000_000, 9));
    let waiting: Vec<_> = (0..100u64)
        .map(|at| {
            let reader = leech.swarm.reader(&lost);
            tokio::spawn(async move { reader.read(at * 80_000, 70_000).await })
        })
        .collect();
    until(&leech.swarm, |swarm| {
        swarm
            .status()
            .contents
            .iter()
            .any(|c| c.waiting_reads == 100)
    })
    .await;
    let begun = Instant::now();
    let got = leech.swarm.reader(&info).read(0, 400_000).await.unwrap();
    assert_eq!(got, data);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_reads_and_fetches_and_can_recover() {
    let (seed, leech) = (Node::start(1).await, Node::start(2).await);
    let data = bytes(2_000_000, 10);
    let info = seed.seed(&data);
    leech.knows(&[&seed]);
    leech.storage.full_disk.store(true, Ordering::SeqCst);
    let reader = leech.swarm.reader(&info);
    let failed = timeout(SOON, reader.read(0, 10)).await.unwrap();
    assert!(
        matches!(failed, Err(ReadError::Io(io::ErrorKind::StorageFull, _))),
        "{failed:?}"
    );
    let failed = timeout(SOON, leech.swarm.fetch(&info).done())
        .await
        .unwrap();
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    leech.storage.full_disk.store(false, Ordering::SeqCst);
    // A write that was under way may still fail the first attempt.
    let retried = async { while leech.swarm.fetch(&info).done().await.is_err() {} };
    timeout(SOON, retried).await.unwrap();
    assert_eq!(leech.bytes(&info), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_comes_back_is_found_without_being_told_of() {
    let mut patient = config(2);
    patient.wait = Duration::from_secs(25);
    let leech = Node::with(patient, Arc::new(TcpConnector)).await;
    let data = bytes(300_000, 11);
    let info = info_of(&data);
    // An address where nobody listens yet.
    let placeholder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = placeholder.local_addr().unwrap();
    drop(placeholder);
    *leech.source.peers.lock().unwrap() = vec![address];
    let reader = leech.swarm.reader(&info);
    let read = tokio::spawn(async move { reader.read(0, 300_000).await });
    until(&leech.swarm, |swarm| {
        swarm.status().contents.iter().any(|c| c.waiting_reads == 1)
    })
    .await;
    let seed = Node::start(1).await;
    seed.seed(&data);
    let listener = TcpListener::bind(address).await.unwrap();
    let swarm = seed.swarm.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            swarm.accept(stream, Bytes::new());
        }
    });
    assert_eq!(timeout(SOON, read).await.unwrap().unwrap().unwrap(), data);
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// On one thread, whose log it reads.
#[tokio::test]
async fn the_owner_is_told_once_of_a_peer_that_lies_about_many_contents() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (liar, leech) = (Node::start(1).await, Node::start(2).await);
    let infos = [11, 12, 13].map(|seed| {
        let info = liar.seed(&bytes(200_000, seed));
        liar.lie(&info);
        info
    });
    leech.knows(&[&liar]);
    let _fetches = infos.each_ref().map(|info| leech.swarm.fetch(info));
    until(&leech.swarm, |swarm| {
        let contents = swarm.status().contents;
        let accused = leech.source.accused.lock().unwrap().len();
        accused >= infos.len() && contents.iter().all(|content| content.peers == 0)
    })
    .await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("peer banned").count(), 1, "{log}");
}
