//! Engines over loopback, with contents in memory.

use crate::metainfo::Info;
use crate::swarm::{
    Connector, PeerSource, PieceWritten, Standing, Storage, StoredContent, Swarm, SwarmConfig,
    TcpConnector,
};
use bytes::Bytes;
use delugefs_core::ids::InfoHash;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// Reproducible bytes that are different everywhere.
pub(crate) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = vec![0; length.next_multiple_of(8)];
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) fn info_of(bytes: &[u8]) -> Info {
    let size = crate::metainfo::piece_length(bytes.len() as u64) as usize;
    let pieces = bytes
        .chunks(size)
        .map(|piece| Sha1::digest(piece).into())
        .collect();
    Info::new(bytes.len() as u64, pieces, [7; 32]).unwrap()
}

/// A content in memory.
pub(crate) struct MemoryContent {
    info: Info,
    bytes: Mutex<Vec<u8>>,
    have: Mutex<Vec<bool>>,
    complete: AtomicBool,
    /// Serves other bytes than it should.
    lies: AtomicBool,
    full_disk: Arc<AtomicBool>,
    pub(crate) reads: AtomicU32,
}

impl MemoryContent {
    pub(crate) fn give(&self, bytes: &[u8], pieces: impl IntoIterator<Item = u32>) {
        for piece in pieces {
            let range = self.info.piece_range(piece).unwrap();
            let range = range.start as usize..range.end as usize;
            assert_eq!(
                self.write(piece, &bytes[range]).unwrap(),
                PieceWritten::Stored
            );
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.have
            .lock()
            .unwrap()
            .iter()
            .filter(|have| **have)
            .count()
    }
}

impl StoredContent for MemoryContent {
    fn length(&self) -> u64 {
        self.info.length()
    }

    fn piece_length(&self) -> u32 {
        self.info.piece_length()
    }

    fn has(&self, piece: u32) -> bool {
        self.have.lock().unwrap()[piece as usize]
    }

    fn standing(&self) -> Standing {
        if self.complete.load(Ordering::SeqCst) {
            Standing::Complete
        } else {
            Standing::Partial
        }
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, piece: u32, bytes: &[u8]) -> io::Result<PieceWritten> {
        if self.full_disk.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !self.info.piece_matches(piece, bytes) {
            return Ok(PieceWritten::Wrong);
        }
        let start = self.info.piece_range(piece).unwrap().start as usize;
        self.bytes.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
        self.have.lock().unwrap()[piece as usize] = true;
        Ok(PieceWritten::Stored)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let start = offset as usize;
        let mut bytes = self.bytes.lock().unwrap()[start..start + length].to_vec();
        if self.lies.load(Ordering::SeqCst) {
            for byte in &mut bytes {
                *byte ^= 0x55;
            }
        }
        Ok(bytes.into())
    }

    fn finish(&self) -> io::Result<()> {
        assert!(self.have.lock().unwrap().iter().all(|have| *have));
        self.complete.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn info(&self) -> Option<Vec<u8>> {
        Some(self.info.encode())
    }
}

#[derive(Default)]
pub(crate) struct MemoryStorage {
    contents: Mutex<BTreeMap<InfoHash, Arc<MemoryContent>>>,
    pub(crate) full_disk: Arc<AtomicBool>,
}

impl MemoryStorage {
    pub(crate) fn content(&self, info: &Info) -> Arc<MemoryContent> {
        let mut contents = self.contents.lock().unwrap();
        let content = contents.entry(info.info_hash()).or_insert_with(|| {
            Arc::new(MemoryContent {
                info: info.clone(),
                bytes: Mutex::new(vec![0; info.length() as usize]),
                have: Mutex::new(vec![false; info.piece_count() as usize]),
                complete: AtomicBool::new(false),
                lies: AtomicBool::new(false),
                full_disk: self.full_disk.clone(),
                reads: AtomicU32::new(0),
            })
        });
        content.clone()
    }
}

impl Storage for MemoryStorage {
    fn find(&self, info_hash: &InfoHash) -> io::Result<Option<Arc<dyn StoredContent>>> {
        let contents = self.contents.lock().unwrap();
        let content = contents.get(info_hash).cloned();
        Ok(content.map(|content| content as Arc<dyn StoredContent>))
    }

    fn begin(&self, info: &Info) -> io::Result<Arc<dyn StoredContent>> {
        Ok(self.content(info))
    }
}

/// Addresses that tests set.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) peers: Mutex<Vec<SocketAddr>>,
    /// Who has sent wrong pieces, and which.
    pub(crate) accused: Mutex<Vec<(u32, SocketAddr)>>,
}

impl PeerSource for Source {
    fn peers(&self, _info_hash: &InfoHash) -> Vec<SocketAddr> {
        self.peers.lock().unwrap().clone()
    }

    fn sent_wrong(&self, _info_hash: &InfoHash, piece: u32, address: SocketAddr) {
        self.accused.lock().unwrap().push((piece, address));
    }
}

/// An engine that listens on loopback.
pub(crate) struct Node {
    pub(crate) swarm: Swarm,
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) source: Arc<Source>,
    pub(crate) address: SocketAddr,
    listener: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

pub(crate) fn config(name: u8) -> SwarmConfig {
    SwarmConfig {
        wait: Duration::from_secs(20),
        ..SwarmConfig::new([name; 12])
    }
}

impl Node {
    pub(crate) async fn start(name: u8) -> Self {
        Self::with(config(name), Arc::new(TcpConnector)).await
    }

    pub(crate) async fn with(config: SwarmConfig, connector: Arc<dyn Connector>) -> Self {
        let storage = Arc::new(MemoryStorage::default());
        let source = Arc::new(Source::default());
        let runtime = tokio::runtime::Handle::current();
        let swarm = Swarm::new(storage.clone(), source.clone(), connector, config, runtime);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
            storage,
            source,
            address,
            listener,
        }
    }

    /// Has the whole content.
    pub(crate) fn seed(&self, bytes: &[u8]) -> Info {
        let info = info_of(bytes);
        let content = self.storage.content(&info);
        content.give(bytes, 0..info.piece_count());
        content.finish().unwrap();
        info
    }

    /// Has some pieces, and can go on.
    pub(crate) fn give(&self, bytes: &[u8], pieces: impl IntoIterator<Item = u32>) -> Info {
        let info = info_of(bytes);
        self.storage.content(&info).give(bytes, pieces);
        info
    }

    pub(crate) fn knows(&self, others: &[&Node]) {
        *self.source.peers.lock().unwrap() = others.iter().map(|node| node.address).collect();
    }

    pub(crate) fn be_honest(&self, info: &Info) {
        let content = self.storage.content(info);
        content.lies.store(false, Ordering::SeqCst);
    }

    pub(crate) fn lie(&self, info: &Info) {
        self.storage
            .content(info)
            .lies
            .store(true, Ordering::SeqCst);
    }

    pub(crate) fn bytes(&self, info: &Info) -> Vec<u8> {
        self.storage.content(info).bytes.lock().unwrap().clone()
    }
}
