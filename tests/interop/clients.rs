//! Stock BitTorrent clients as processes on a lab's host, and the smallest tracker.

use crate::rqbit::{Running, librqbit};
use crate::support::{Lab, Process, has};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the client listens on its host, which has the namespace to itself.
pub(crate) const PORT: u16 = 6881;

/// A stock client; ended when dropped.
#[expect(dead_code, reason = "what is in it matters when it is dropped")]
pub(crate) enum Client {
    Process(Process),
    Thread(Running),
}

/// A kind of client.
pub(crate) struct Stock {
    pub(crate) name: &'static str,
    needs: &'static [&'static str],
    pub(crate) start: fn(&Job) -> Client,
}

pub(crate) const LIBTORRENT: Stock = Stock {
    name: "libtorrent",
    needs: &[PYTHON],
    start: libtorrent,
};
pub(crate) const ARIA2: Stock = Stock {
    name: "aria2",
    needs: &["aria2c"],
    start: aria2,
};
pub(crate) const TRANSMISSION: Stock = Stock {
    name: "transmission",
    needs: &["transmission-cli"],
    start: transmission,
};
pub(crate) const LIBRQBIT: Stock = Stock {
    name: "librqbit",
    needs: &[],
    start: librqbit,
};

const PYTHON: &str = "/usr/bin/python3";

impl Stock {
    /// Whether it can be tested here; said loudly when it can't.
    pub(crate) fn is_here(&self) -> bool {
        has(self.needs) && (self.needs != LIBTORRENT.needs || has_libtorrent())
    }
}

fn has_libtorrent() -> bool {
    let mut import = Command::new(PYTHON);
    let found = import.args(["-c", "import libtorrent"]).output().unwrap();
    if !found.status.success() {
        let in_ci = std::env::var_os("CI").is_some();
        assert!(!in_ci, "CI must have python3-libtorrent");
        eprintln!("SKIPPED: this test needs python3-libtorrent");
    }
    found.status.success()
}

fn start(command: &mut Command) -> Client {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
    Client::Process(Process(quiet.stderr(Stdio::null()).spawn().unwrap()))
}

/// What a client is started with.
pub(crate) struct Job<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) host: u32,
    /// As it is in a clone of the volume.
    pub(crate) torrent: &'a Path,
    /// Has the content, or gets it.
    pub(crate) folder: &'a Path,
    /// Our node, `IP:PORT`.
    pub(crate) node: &'a str,
}

impl Job<'_> {
    /// The content's file, by the name that the metainfo gives.
    pub(crate) fn file(&self) -> PathBuf {
        let text = std::fs::read(self.torrent).unwrap();
        let key = b"4:name40:";
        let at = text.windows(key.len()).position(|window| window == key);
        let from = at.unwrap() + key.len();
        let name = String::from_utf8(text[from..from + 40].to_vec()).unwrap();
        self.folder.join(name)
    }

    /// Starts a tracker on the client's host that tells of our node; answers its address.
    fn tracker(&self) -> String {
        let namespace = self.lab.namespace_file(self.host);
        let (ip, port) = self.node.split_once(':').unwrap();
        let mut peer: Vec<u8> = ip.split('.').map(|part| part.parse().unwrap()).collect();
        peer.extend(port.parse::<u16>().unwrap().to_be_bytes());
        let (told, address) = std::sync::mpsc::channel();
        // a thread that has entered the host's namespace makes its sockets there; it ends with the test's process
        std::thread::spawn(move || {
            enter(&namespace);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let mut body = b"d8:intervali60e5:peers6:".to_vec();
                body.extend(&peer);
                body.push(b'e');
                let length = body.len();
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        });
        format!("http://{}/announce", address.recv().unwrap())
    }

    /// The metainfo with a tracker, for a client that takes none otherwise.
    fn with_tracker(&self) -> PathBuf {
        let announce = self.tracker();
        let text = std::fs::read(self.torrent).unwrap();
        let mut new = format!("d8:announce{}:{announce}", announce.len()).into_bytes();
        new.extend(&text[1..]);
        let path = self.folder.with_extension("torrent");
        std::fs::write(&path, new).unwrap();
        path
    }
}

/// Moves this thread to a network namespace.
pub(crate) fn enter(namespace: &Path) {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let file = std::fs::File::open(namespace).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn libtorrent(job: &Job) -> Client {
    const SCRIPT: &str = "
import sys, time, libtorrent as lt
torrent, folder, port, peer = sys.argv[1:]
host, _, number = peer.partition(':')
# it would try uTP, which is UDP, for half a minute first
session = lt.session({'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'listen_interfaces': '0.0.0.0:' + port, 'enable_dht': False, 'enable_lsd': False,
                      'enable_upnp': False, 'enable_natpmp': False, 'allow_multiple_connections_per_ip': True})
handle = session.add_torrent({'ti': lt.torrent_info(torrent), 'save_path': folder})
while True:
    if handle.status().num_peers == 0:
        handle.connect_peer((host, int(number)))
    time.sleep(0.5)
";
    let mut command = job.lab.command(job.host, PYTHON);
    command
        .args(["-c", SCRIPT])
        .arg(job.torrent)
        .arg(job.folder);
    start(command.arg(PORT.to_string()).arg(job.node))
}

fn aria2(job: &Job) -> Client {
    let mut command = job.lab.command(job.host, "aria2c");
    let quiet = [
        "--no-conf",
        "--enable-dht=false",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--enable-peer-exchange=false",
        "--seed-ratio=0.0",
        "--check-integrity=true",
        "--allow-overwrite=true",
        "--file-allocation=none",
    ];
    command.args(quiet);
    command.arg(format!("--listen-port={PORT}"));
    command.arg(format!("--bt-tracker={}", job.tracker()));
    start(command.arg("-d").arg(job.folder).arg(job.torrent))
}

fn transmission(job: &Job) -> Client {
    let config = job.folder.with_extension("transmission");
    std::fs::create_dir_all(&config).unwrap();
    let settings = r#"{"dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "port-forwarding-enabled": false}"#;
    std::fs::write(config.join("settings.json"), settings).unwrap();
    let mut command = job.lab.command(job.host, "transmission-cli");
    let port = PORT.to_string();
    command.args(["--verify", "--no-portmap", "-p", &port, "-w"]);
    command.arg(job.folder).arg("-g").arg(config);
    start(command.arg(job.with_tracker()))
}
