//! Stock `BitTorrent` clients on the other end, both ways: the client seeds our metainfo and we download; we
//! seed and the client downloads. Each test runs itself again in a network namespace of its own, where the
//! only addresses are its own, so that clients find nobody else.
//!
//! Without a tool the test says so and counts as skipped; in CI (`CI=true`) that is a failure.
//! `DELUGEFS_MEGABYTES` (default 64) sets the size, `DELUGEFS_SCRATCH` the folder for it.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod common;

use common::{Node, assert_same, random_file, scratch};
use delugefs_torrent::metainfo::Info;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Stock clients refuse peers on 127.0.0.0/8; this address exists in the namespace only.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

/// Set in the copy of a test that runs in the namespace.
const INSIDE: &str = "DELUGEFS_INTEROP_INSIDE";

fn megabytes() -> u64 {
    std::env::var("DELUGEFS_MEGABYTES").map_or(64, |text| text.parse().unwrap())
}

/// Time for one transfer: even a busy machine moves 2 MB/s.
fn patience() -> Duration {
    Duration::from_secs(60 + megabytes() / 2)
}

/// Whether to go on here. Else the test has been run in a namespace, or skipped.
fn inside(test: &str, tools: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    for tool in tools.iter().chain(&["unshare", "ip", "cmp"]) {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {tool}")])
            .output();
        if !found.unwrap().status.success() {
            skip(test, tool);
            return false;
        }
    }
    let possible = Command::new("unshare").args(["--net", "true"]).status();
    if !possible.unwrap().success() {
        skip(test, "a network namespace");
        return false;
    }
    let script = format!("ip link set lo up && ip addr add {HOST}/32 dev lo && exec \"$0\" \"$@\"");
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(
        status.unwrap().success(),
        "{test} failed inside its namespace"
    );
    false
}

fn skip(test: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "{test} needs {missing}");
    eprintln!("SKIPPED: {test} needs {missing}, which is not on this machine");
}

/// A process that ends with the test.
struct Client(Child);

impl Client {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(quiet.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The smallest HTTP tracker: tells everyone of the same peer.
async fn tracker(peer: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((HOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let SocketAddr::V4(peer) = peer else { return };
            let mut body = b"d8:intervali60e5:peers6:".to_vec();
            body.extend_from_slice(&peer.ip().octets());
            body.extend_from_slice(&peer.port().to_be_bytes());
            body.push(b'e');
            let head = format!(
                "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
        }
    });
    address
}

/// A metainfo file as a volume has it: with a dictionary of its own beside `info`.
fn torrent(folder: &Path, info: &Info, tracker: SocketAddr) -> PathBuf {
    let announce = format!("http://{tracker}/announce");
    let mut bytes = format!(
        "d8:announce{}:{announce}8:delugefsd6:formati1ee4:info",
        announce.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&info.encode());
    bytes.push(b'e');
    let path = folder.join("content.torrent");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The file name that the metainfo gives.
fn name(info: &Info) -> String {
    use sha1::Digest;
    let hash = sha1::Sha1::digest(info.pieces().as_flattened());
    delugefs_core::ids::InfoHash::new(hash.into()).to_string()
}

async fn free_port() -> u16 {
    TcpListener::bind((HOST, 0))
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts a client on a metainfo file: the folder that has or gets the content, and the port to listen on.
type Start = fn(torrent: &Path, folder: &Path, port: u16) -> Client;

struct Bench {
    folder: TempDir,
    original: PathBuf,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = TempDir::new_in(scratch()).unwrap();
        let original = folder.path().join("original");
        random_file(&original, megabytes(), seed);
        Self { folder, original }
    }

    fn data(&self) -> PathBuf {
        let data = self.folder.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        data
    }
}

fn tell(what: &str, begun: Instant) {
    let rate = megabytes() as f64 * 1.048_576 / begun.elapsed().as_secs_f64();
    println!(
        "{what}: {} MiB, {rate:.0} MB/s with starting up and checking",
        megabytes()
    );
}

/// The client has the content; we download it.
async fn from_client(client: &str, start: Start) {
    let bench = Bench::new(1);
    let (seed, leech) = (Node::start(HOST).await, Node::start(HOST).await);
    let info = seed.seal(&bench.original);
    drop(seed);
    let data = bench.data();
    std::fs::rename(&bench.original, data.join(name(&info))).unwrap();
    let tracker = tracker(leech.address).await;
    let torrent = torrent(bench.folder.path(), &info, tracker);
    let port = free_port().await;
    let begun = Instant::now();
    let _client = start(&torrent, &data, port);
    leech.knows(&[SocketAddr::new(HOST, port)]);
    let mut fetch = leech.swarm.fetch(&info);
    let done = tokio::time::timeout(patience(), fetch.done()).await;
    assert!(done.is_ok(), "{:?}", leech.swarm.status());
    done.unwrap().unwrap();
    tell(&format!("from {client}"), begun);
    assert_same(&leech.path(&info), &data.join(name(&info)));
}

/// We have the content; the client downloads it.
async fn to_client(client: &str, start: Start) {
    let bench = Bench::new(2);
    let seed = Node::start(HOST).await;
    let info = seed.seal(&bench.original);
    let tracker = tracker(seed.address).await;
    let torrent = torrent(bench.folder.path(), &info, tracker);
    let data = bench.data();
    let begun = Instant::now();
    let _client = start(&torrent, &data, free_port().await);
    let file = data.join(name(&info));
    let part = data.join(format!("{}.part", name(&info)));
    while !same(&file, &bench.original, &part) {
        assert!(begun.elapsed() < patience(), "{:?}", seed.swarm.status());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tell(&format!("to {client}"), begun);
}

fn same(file: &Path, original: &Path, part: &Path) -> bool {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    if part.exists() || length(file) != length(original) {
        return false;
    }
    let compared = Command::new("cmp")
        .arg("-s")
        .arg(file)
        .arg(original)
        .status();
    compared.unwrap().success()
}

fn libtorrent(torrent: &Path, folder: &Path, port: u16) -> Client {
    const SCRIPT: &str = "
import sys, time, libtorrent as lt
torrent, folder, port = sys.argv[1:]
session = lt.session({'listen_interfaces': '0.0.0.0:' + port, 'enable_dht': False, 'enable_lsd': False,
                      'enable_upnp': False, 'enable_natpmp': False, 'allow_multiple_connections_per_ip': True})
session.add_torrent({'ti': lt.torrent_info(torrent), 'save_path': folder})
time.sleep(3600)
";
    let mut command = Command::new("/usr/bin/python3");
    Client::start(
        command
            .args(["-c", SCRIPT])
            .arg(torrent)
            .arg(folder)
            .arg(port.to_string()),
    )
}

fn aria2(torrent: &Path, folder: &Path, port: u16) -> Client {
    let mut command = Command::new("aria2c");
    command.args([
        "--no-conf",
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
    ]);
    command.args([
        "--enable-peer-exchange=false",
        "--seed-ratio=0.0",
        "--check-integrity=true",
    ]);
    command.args([
        "--allow-overwrite=true",
        "--file-allocation=none",
        "--summary-interval=0",
    ]);
    command
        .arg(format!("--listen-port={port}"))
        .arg("-d")
        .arg(folder);
    Client::start(command.arg(torrent))
}

fn transmission(torrent: &Path, folder: &Path, port: u16) -> Client {
    let config = torrent.with_file_name("transmission");
    std::fs::create_dir_all(&config).unwrap();
    let settings = r#"{"dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "port-forwarding-enabled": false}"#;
    std::fs::write(config.join("settings.json"), settings).unwrap();
    let mut command = Command::new("transmission-cli");
    command
        .args(["--verify", "--no-portmap", "-p", &port.to_string(), "-w"])
        .arg(folder);
    Client::start(command.arg("-g").arg(config).arg(torrent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn download_from_libtorrent() {
    if inside("download_from_libtorrent", &["/usr/bin/python3"])
        && has_libtorrent("download_from_libtorrent")
    {
        from_client("libtorrent", libtorrent).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libtorrent_downloads() {
    if inside("libtorrent_downloads", &["/usr/bin/python3"])
        && has_libtorrent("libtorrent_downloads")
    {
        to_client("libtorrent", libtorrent).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn download_from_aria2() {
    if inside("download_from_aria2", &["aria2c"]) {
        from_client("aria2", aria2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aria2_downloads() {
    if inside("aria2_downloads", &["aria2c"]) {
        to_client("aria2", aria2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn download_from_transmission() {
    if inside("download_from_transmission", &["transmission-cli"]) {
        from_client("transmission", transmission).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transmission_downloads() {
    if inside("transmission_downloads", &["transmission-cli"]) {
        to_client("transmission", transmission).await;
    }
}

fn has_libtorrent(test: &str) -> bool {
    let found = Command::new("/usr/bin/python3")
        .args(["-c", "import libtorrent"])
        .status();
    let found = found.unwrap().success();
    if !found {
        skip(test, "python3-libtorrent");
    }
    found
}
