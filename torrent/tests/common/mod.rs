//! A node of our own: a store in a temporary folder and an engine that listens.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use bytes::Bytes;
use delugefs_core::ids::InfoHash;
use delugefs_torrent::metainfo::Info;
use delugefs_torrent::store::ContentStore;
use delugefs_torrent::swarm::{PeerSource, Swarm, SwarmConfig, TcpConnector};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::TcpListener;

#[derive(Default)]
pub struct Source(Mutex<Vec<SocketAddr>>);

impl PeerSource for Source {
    fn peers(&self, _info_hash: &InfoHash) -> Vec<SocketAddr> {
        self.0.lock().unwrap().clone()
    }
}

pub struct Node {
    pub swarm: Swarm,
    pub store: Arc<ContentStore>,
    pub address: SocketAddr,
    source: Arc<Source>,
    folder: TempDir,
    listener: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Listens on a port of the system's choice.
    pub async fn start(ip: IpAddr) -> Self {
        // Shown when a test fails.
        let log = tracing_subscriber::fmt().with_test_writer();
        let _ = log.with_max_level(tracing::Level::DEBUG).try_init();
        Self::in_folder(ip, TempDir::new_in(scratch()).unwrap()).await
    }

    /// Goes on with the folder of a node that has stopped.
    pub async fn in_folder(ip: IpAddr, folder: TempDir) -> Self {
        let store = Arc::new(ContentStore::open(folder.path()).unwrap());
        let source = Arc::new(Source::default());
        let config = SwarmConfig::new(rand::random());
        let runtime = tokio::runtime::Handle::current();
        let connector = Arc::new(TcpConnector);
        let swarm = Swarm::new(store.clone(), source.clone(), connector, config, runtime);
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = swarm.clone();
        let listener = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                accepting.accept(stream, Bytes::new());
            }
        });
        Self {
            swarm,
            store,
            address,
            source,
            folder,
            listener,
        }
    }

    pub fn knows(&self, others: &[SocketAddr]) {
        *self.source.0.lock().unwrap() = others.to_vec();
    }

    /// Puts a file's bytes into the store.
    pub fn seal(&self, file: &Path) -> Info {
        let staged = self.folder.path().join("staged");
        std::fs::copy(file, &staged).unwrap();
        self.store.seal(&staged).unwrap()
    }

    /// Ends all activity; what is left is the folder.
    pub async fn stop(self) -> TempDir {
        self.swarm.shutdown().await;
        self.listener.abort();
        let _ = self.listener.await;
        drop(self.swarm);
        // Tasks that are just ending hold the store a little longer.
        while Arc::strong_count(&self.store) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.folder
    }

    pub fn path(&self, info: &Info) -> PathBuf {
        self.store.path(&info.info_hash())
    }
}

/// Where tests put what is large: `DELUGEFS_SCRATCH`, or the system's temporary folder.
pub fn scratch() -> PathBuf {
    std::env::var_os("DELUGEFS_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A file of bytes that are different everywhere.
pub fn random_file(path: &Path, megabytes: u64, seed: u64) {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut block = vec![0; 1 << 20];
    for _ in 0..megabytes {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
    file.flush().unwrap();
}

/// The two files have the same bytes.
pub fn assert_same(left: &Path, right: &Path) {
    let status = std::process::Command::new("cmp")
        .arg(left)
        .arg(right)
        .status();
    assert!(
        status.unwrap().success(),
        "{} and {} differ",
        left.display(),
        right.display()
    );
}
