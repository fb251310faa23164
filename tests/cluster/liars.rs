//! A node of the volume that lies, inside the encrypted link: the others believe nothing wrong and go on.

use crate::support::{Lab, Node, can_run, eventually, noise, signal};
use bytes::{BufMut, BytesMut};
use delugefs::link::message::{Hello, PROTOCOL, PeerAddresses};
use delugefs::link::{
    Credentials, Established, Identity, LinkError, Message, Pins, Psk, Purpose, codec, keys,
};
use delugefs_core::holdings::{
    Batch, Operation, Record, Signature, Signed, Statement, codec as holdings,
};
use delugefs_core::ids::{CommitId, IncarnationId, InfoHash, NodeId, PublicKey, VolumeId};
use ed25519_dalek::{Signer as _, SigningKey};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// How long the liar keeps a link after each lie: time to answer what is asked because of it.
const LINGER: Duration = Duration::from_millis(700);

/// The secret of the liar's incarnation.
const LIAR: [u8; 32] = [2; 32];

/// More than any honest frame, message or batch has.
const TOO_MANY: u32 = u32::MAX;

struct AnyKey;

impl Pins for AnyKey {
    fn check(&self, _: NodeId, _: &[u8; 32]) -> Result<(), keys::PinError> {
        Ok(())
    }
}

/// What a liar is, and how often each kind of lie was listened to.
struct Liar {
    credentials: Credentials,
    volume: VolumeId,
    listen: SocketAddr,
    /// Says to hold it.
    content: InfoHash,
    /// An honest node, of whose own work it lies.
    victim: IncarnationId,
    victims_key: PublicKey,
    /// A repository with a head of the liar's that no honest node would make.
    forged: PathBuf,
    head: CommitId,
    rounds: AtomicUsize,
    pulls: AtomicUsize,
    pieces: AtomicUsize,
    holdings: AtomicUsize,
}

impl Liar {
    fn incarnation(&self) -> IncarnationId {
        self.credentials.identity.incarnation()
    }

    fn hello(&self) -> Message {
        Message::Hello(Hello {
            protocol: PROTOCOL,
            volume: self.volume,
            volume_name: "lab".to_owned(),
            node: self.credentials.identity.node(),
            incarnation: self.incarnation(),
            label: "liar".to_owned(),
            site: String::new(),
            listen_port: self.listen.port(),
            addresses: Vec::new(),
            capacity: u64::MAX,
            free: u64::MAX,
            mounted: true,
        })
    }

    /// Links one after another, each with another lie.
    async fn tell(&self, to: SocketAddr) {
        for round in 0.. {
            if let Ok(stream) = TcpStream::connect(to).await
                && let Ok(established) =
                    delugefs::link::dial(stream, Purpose::Control, &self.credentials, &AnyKey).await
            {
                let _ = timeout(LINGER, self.lie(established, round)).await;
                self.rounds.fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn lie(&self, link: Established<TcpStream>, round: usize) -> Result<(), LinkError> {
        let mut stream = link.stream;
        let frames = self.lies(round);
        stream.write_all(&frames).await?;
        stream.flush().await?;
        let mut incoming = BytesMut::new();
        loop {
            while let Some(frame) = codec::split_frame(&mut incoming)? {
                let message = codec::decode(frame)?;
                if let Some(Message::HoldingsWanted {
                    incarnation,
                    wanted,
                }) = message
                {
                    self.holdings.fetch_add(1, Ordering::SeqCst);
                    let lie = self.holdings(round, incarnation, wanted.from);
                    stream.write_all(&lie).await?;
                    stream.flush().await?;
                }
            }
            if stream.read_buf(&mut incoming).await? == 0 {
                return Ok(());
            }
        }
    }

    fn lies(&self, round: usize) -> BytesMut {
        let own = self.incarnation();
        let heads = |id| Message::Heads([(own, id)].into());
        let of_others = Message::Heads([(self.victim, CommitId::new([8; 20]))].into());
        let messages = match round % 9 {
            0 => vec![self.hello(), heads(self.head)],
            1 => vec![self.hello(), heads(CommitId::new([9; 20])), of_others],
            2 => vec![
                self.hello(),
                Message::HoldingsHave(vec![(own, 1), (self.victim, 1 << 40)]),
            ],
            3 => vec![self.hello(), Message::HoldingsHave(vec![(own, u64::MAX)])],
            4 => vec![
                self.hello(),
                Message::PleaseHold(hashes()),
                Message::Available(hashes()),
                Message::Fetching(hashes()),
            ],
            5 => vec![self.hello(), Message::Peers(strangers())],
            // nothing before a hello, and one in another's name
            6 => vec![heads(self.head), self.hello()],
            _ => vec![self.hello()],
        };
        let mut frames = BytesMut::new();
        for message in &messages {
            frames.extend_from_slice(&codec::encode(message).unwrap());
        }
        match round % 9 {
            7 => frames.put_u32(TOO_MANY),
            // a list of heads with a count, and no heads
            8 => frames.put_slice(&[0, 0, 0, 3, 2, 0xff, 0xff]),
            _ => {}
        }
        frames
    }

    /// The liar's log: the content that it does not have, or nonsense. Or the log of another, in whose name it can say
    /// nothing.
    fn holdings(&self, round: usize, incarnation: IncarnationId, from: u64) -> Vec<u8> {
        let record = Record {
            operation: Operation::Held,
            content: self.content,
        };
        let statement = Statement::Records {
            from,
            records: vec![record],
        };
        let key = SigningKey::from_bytes(&LIAR);
        let signature = key.sign(&holdings::signed_text(&statement));
        let said = Batch::Signed(Signed {
            statement,
            signature: Signature(signature.to_bytes()),
        });
        let author = match incarnation == self.victim {
            true => self.victims_key,
            false => PublicKey::new(key.verifying_key().to_bytes()),
        };
        let mut bytes = holdings::encode_answer(author, &[said]);
        if round % 9 != 2 {
            // as many records as there can be, and none of them
            bytes.truncate(32 + 4 + 2 + 8);
            bytes.put_u32_le(TOO_MANY);
        }
        let bytes = bytes.into();
        let message = Message::Holdings { incarnation, bytes };
        codec::encode(&message).unwrap().to_vec()
    }

    /// Takes what the others ask for because of the lies.
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let liar = Arc::clone(&self);
            tokio::spawn(async move {
                let mut first = [0];
                match stream.peek(&mut first).await {
                    Ok(1) if first[0] == 19 => liar.send_pieces(stream).await,
                    Ok(1) => liar.answer_link(stream).await,
                    _ => Ok(()),
                }
            });
        }
    }

    async fn answer_link(&self, stream: TcpStream) -> std::io::Result<()> {
        let accepted = delugefs::link::accept(stream, &self.credentials, &AnyKey).await;
        let Ok(Established {
            mut stream,
            purpose: Purpose::Git,
            ..
        }) = accepted
        else {
            return Ok(());
        };
        let pull = self.pulls.fetch_add(1, Ordering::SeqCst);
        if pull % 2 == 1 {
            stream.write_all(b"fff0").await?;
            stream.write_all(&noise(1, 3 << 20)).await?;
            return stream.shutdown().await;
        }
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut ours = tokio::net::UnixStream::from_std(ours)?;
        let mut git = self.git_server(theirs.into())?;
        // ends early when the other side has seen enough
        let _ = copy_bidirectional(&mut stream, &mut ours).await;
        drop(ours);
        git.wait().map(drop)
    }

    fn git_server(&self, socket: OwnedFd) -> std::io::Result<std::process::Child> {
        Command::new("git")
            .args(["-c", "safe.directory=*", "upload-pack"])
            .arg(&self.forged)
            .env("GIT_PROTOCOL", "version=2")
            .stdin(Stdio::from(socket.try_clone()?))
            .stdout(Stdio::from(socket))
            .stderr(Stdio::null())
            .spawn()
    }

    /// As a peer that has all pieces, and sends others.
    async fn send_pieces(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut shake = [0; 68];
        stream.read_exact(&mut shake).await?;
        // no extensions: the shortest way to the pieces
        shake[20..28].fill(0);
        shake[48..].fill(b'L');
        stream.write_all(&shake).await?;
        // the whole bitfield of 32 pieces, and unchoke
        stream
            .write_all(&[0, 0, 0, 5, 5, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1])
            .await?;
        loop {
            let length = stream.read_u32().await? as usize;
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await?;
            if message.first() != Some(&6) {
                continue;
            }
            let asked = u32::from_be_bytes(message[9..13].try_into().unwrap());
            let mut block = BytesMut::new();
            block.put_u32(9 + asked);
            block.put_u8(7);
            block.put_slice(&message[1..9]);
            block.put_bytes(0xee, asked as usize);
            self.pieces.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&block).await?;
        }
    }
}

/// As many as a message may have, of nothing that there is.
fn hashes() -> Vec<InfoHash> {
    let hash = |number: u32| {
        let mut bytes = [7; 20];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        InfoHash::new(bytes)
    };
    (0..codec::HASHES_MAX as u32).map(hash).collect()
}

/// Nodes that there are not.
fn strangers() -> Vec<PeerAddresses> {
    let stranger = |number: u16| PeerAddresses {
        node: NodeId::new([number as u8; 16]),
        addresses: vec![SocketAddr::from(([10, 77, 0, 200], 1000 + number))],
    };
    (0..codec::PEERS_MAX as u16).map(stranger).collect()
}

fn hex<const N: usize>(text: &str) -> [u8; N] {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    std::array::from_fn(byte)
}

fn address(node: &Node) -> SocketAddr {
    let status = node.status();
    let listen = status["node"]["listen"].as_str().unwrap();
    let port: u16 = listen.rsplit(':').next().unwrap().parse().unwrap();
    SocketAddr::from(([10, 77, 0, node.host as u8], port))
}

/// A clone of the volume with a commit of the liar's: a file whose descriptor is none.
fn forge(lab: &Lab, node: &Node, incarnation: IncarnationId) -> (PathBuf, CommitId) {
    let forged = lab.folder("forged").join("lab");
    let script = format!(
        "set -e; git clone -q --mirror git://{address}/lab {forged}; cd {forged}
         blob=$(printf 'd4:evil' | git hash-object -w --stdin)
         parent=$(git for-each-ref --format='%(objectname)' refs/authors | head -1)
         tree=$( (git ls-tree $parent; printf '100644 blob %s\\tevil.torrent\\n' $blob) | git mktree)
         export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL={incarnation}@delugefs.invalid
         export GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL={incarnation}@delugefs.invalid
         head=$(printf 'x\\n\\nIncarnation: {incarnation}\\nJournal-Sequence: 1\\nFormat: 1\\n' |
            git commit-tree $tree -p $parent)
         git update-ref refs/authors/{incarnation} $head; echo $head",
        address = address(node),
        forged = forged.display(),
    );
    let output = lab.command(3, "sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let head = String::from_utf8_lossy(&output.stdout);
    (forged, CommitId::new(hex(head.trim())))
}

/// The key of a node's incarnation, which is no secret.
fn key_of(node: &Node, incarnation: IncarnationId) -> PublicKey {
    let log = fs::read(node.root.join(format!("holdings/{incarnation}.log"))).unwrap();
    let key = PublicKey::new(log[8..40].try_into().unwrap());
    assert_eq!(key.incarnation(), incarnation);
    key
}

/// Runs the liar on host 3, beside the test, for as long as `ends` has another end.
fn start(
    lab: &Lab,
    liar: impl FnOnce(SocketAddr) -> Liar + Send + 'static,
    to: [SocketAddr; 2],
    ends: tokio::sync::oneshot::Receiver<()>,
) -> (std::thread::JoinHandle<()>, Arc<Liar>) {
    let namespace = File::open(lab.namespace_file(3)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("10.77.0.3:0").await.unwrap();
            let liar = Arc::new(liar(listener.local_addr().unwrap()));
            tell.send(Arc::clone(&liar)).unwrap();
            tokio::spawn(Arc::clone(&liar).serve(listener));
            tokio::select! {
                () = liar.tell(to[0]) => {}
                () = liar.tell(to[1]) => {}
                _ = ends => {}
            }
        });
    });
    (thread, told.recv().unwrap())
}

/// Kilobytes of memory that a process has.
fn memory(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let words = line.unwrap().split_whitespace().next();
    words.unwrap().parse().unwrap()
}

#[test]
fn a_node_that_lies_is_not_believed_and_disturbs_nobody() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    eventually(SOON, "they are connected", || first.connected() == 1);
    first.set("copies", "1");
    let film = noise(1, 2 << 20);
    fs::write(first.path("film"), &film).unwrap();
    eventually(SOON, "its name is there", || second.path("film").exists());
    eventually(SOON, "it is known who has it", || {
        first.status()["contents"]["held"] == 1
    });
    let volume: VolumeId = {
        let status = first.status();
        VolumeId::new(hex(status["volume"]["id"].as_str().unwrap()))
    };
    let authors = first.root.join("metadata.git/refs/authors");
    let author = fs::read_dir(authors).unwrap().next().unwrap().unwrap();
    let victim = IncarnationId::new(hex(author.file_name().to_str().unwrap()));
    let victims_key = key_of(&first, victim);
    let content = InfoHash::new(hex(first.whereabouts("film")["info_hash"]
        .as_str()
        .unwrap()));
    let identity = Identity::new(NodeId::new([9; 16]), &[1; 32], &LIAR, [3; 16]);
    let (forged, head) = forge(&lab, &first, identity.incarnation());
    let make = move |listen| Liar {
        credentials: Credentials {
            identity,
            psk: Psk::open_volume(volume),
        },
        volume,
        listen,
        content,
        victim,
        victims_key,
        forged,
        head,
        rounds: AtomicUsize::new(0),
        pulls: AtomicUsize::new(0),
        pieces: AtomicUsize::new(0),
        holdings: AtomicUsize::new(0),
    };
    let to = [address(&first), address(&second)];
    let (_end, ends) = tokio::sync::oneshot::channel();
    let (_thread, liar) = start(&lab, make, to, ends);
    let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);

    eventually(SOON, "the second is told that the liar has it", || {
        second.whereabouts("film").to_string().contains("liar")
    });
    // the liar alone answers, until it has lied
    signal(first.pid(), Signal::STOP);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| fs::read(second.path("film")));
        eventually(SOON, "wrong pieces are sent", || count(&liar.pieces) > 0);
        signal(first.pid(), Signal::CONT);
        assert!(reading.join().unwrap().unwrap() == film);
    });
    let mut number = 0;
    eventually(4 * SOON, "every lie has been told several times", || {
        number += 1;
        let (from, to) = match number % 2 {
            0 => (&first, &second),
            _ => (&second, &first),
        };
        let (name, bytes) = (format!("file{number}"), noise(number, 20_000));
        fs::write(from.path(&name), &bytes).unwrap();
        eventually(SOON, "others go on", || {
            fs::read(to.path(&name)).is_ok_and(|found| found == bytes)
        });
        count(&liar.rounds) > 40 && count(&liar.pulls) > 4 && count(&liar.holdings) > 4
    });

    for node in [&first, &second] {
        let names = fs::read_dir(node.path("")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        let wrong = |name: &std::ffi::OsString| !name.to_string_lossy().starts_with('f');
        assert_eq!(names.filter(wrong).count(), 0, "nothing of the liar's");
        assert!(fs::read(node.path("film")).unwrap() == film);
        for file in 1..=number {
            let found = fs::read(node.path(&format!("file{file}"))).unwrap();
            assert!(found == noise(file, 20_000), "file{file}");
        }
        let log = node.log();
        assert!(!log.contains("ERROR") && !log.contains("panic"), "{log}");
        assert!(log.contains("cannot pull names from liar"), "{log}");
        assert!(log.contains("breaks the protocol: its link"), "{log}");
        assert!(log.contains("that cannot be taken"), "{log}");
        let is_refused = |line: &str| line.contains("liar has names that are not taken");
        let head = head.to_string();
        let mut lines = log.lines();
        let refused = lines.any(|line| is_refused(line) && line.contains(&head));
        assert!(refused, "{log}");
        assert!(memory(node) < 300 << 10, "{} KiB", memory(node));
    }
    // asked for the proof that the first has said more than it knows of, the liar had none
    assert!(!first.log().contains("it says so anew"));
    let log = second.log();
    assert!(log.contains("peer banned: sent a wrong piece"), "{log}");
    println!("{log}\n{} KiB, {} KiB", memory(&first), memory(&second));
}
