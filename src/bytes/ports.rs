//! The bytes as the filesystem and the swarm want to see them.

use super::catalogue::Known;
use super::replica::Replica;
use crate::filesystem::{BoxFuture, ContentReader, Contents, FsError, Sealed, Space};
use crate::net::{self, Gate};
use crate::node::members::Members;
use crate::node::unix_time;
use crate::sync_ext::lock;
use bytes::Bytes;
use delugefs_core::entry::ContentRef;
use delugefs_core::ids::{InfoHash, NodeId};
use delugefs_torrent::metainfo::{Info, piece_length};
use delugefs_torrent::store::{State, StoreError};
use delugefs_torrent::swarm::{
    self, Connector, PeerSource, PieceWritten, ReadError, Reader, Standing, Storage, StoredContent,
    Stream,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

/// The filesystem's view of the bytes.
pub struct Bytewise(pub Arc<Replica>);

impl Contents for Bytewise {
    fn local(&self, content: &ContentRef) -> Result<Option<File>, FsError> {
        let replica = &self.0;
        match replica.store.open_content(&content.info_hash) {
            Ok(file) if file.metadata()?.len() == content.length => Ok(Some(file)),
            Ok(_) => {
                replica.scrub.suspect(content.info_hash, None);
                Ok(None)
            }
            Err(StoreError::NotComplete(_)) => Ok(None),
            Err(error) => Err(fs_error(&error)),
        }
    }

    fn reread(&self, content: ContentRef, bytes: Range<u64>) -> BoxFuture<'static, ()> {
        let replica = Arc::clone(&self.0);
        let piece = u64::from(piece_length(content.length));
        let pieces = (bytes.start / piece) as u32..bytes.end.div_ceil(piece) as u32;
        let check = move || replica.recheck(&content.info_hash, Some(pieces), &mut |_, _| true);
        Box::pin(async move {
            // what it has come to shows in the read that follows
            let _ = tokio::task::spawn_blocking(check).await;
        })
    }

    fn reader(&self, content: ContentRef) -> Result<Arc<dyn ContentReader>, FsError> {
        let replica = Arc::clone(&self.0);
        let known = replica.known(&content.info_hash).ok_or(FsError::Stale)?;
        let reader = Arc::new(OnceLock::new());
        Ok(Arc::new(Arriving {
            replica,
            content,
            known,
            reader,
        }))
    }

    fn seal(&self, staged: &Path) -> Result<Sealed, FsError> {
        let info = self
            .0
            .store
            .seal(staged)
            .map_err(|error| fs_error(&error))?;
        if !self.0.keep(&info.info_hash()) {
            // the reaper was just removing the same bytes: they are sealed again from the staging file
            return Err(FsError::Unavailable);
        }
        self.0.wants_sync.notify_one();
        Ok(Sealed {
            content: info.content(),
            info: info.encode(),
        })
    }

    fn sync(&self) -> Result<(), FsError> {
        let synced = self.0.sync();
        self.0.became_durable(synced.durable);
        match synced.failed.first() {
            None => Ok(()),
            Some((_, error)) => Err(fs_error(error)),
        }
    }

    fn is_durable(&self, content: &InfoHash) -> bool {
        let store = &self.0.store;
        store.state(content) != State::Complete || store.is_durable(content)
    }

    fn space(&self) -> Space {
        self.0.space()
    }

    fn take_room(&self, bytes: u64) -> bool {
        self.0.take_room(bytes)
    }
}

fn fs_error(error: &StoreError) -> FsError {
    // times set on a closed file, mostly: no reader or owner has to know
    if error.kind() == io::ErrorKind::ResourceBusy {
        return FsError::Busy;
    }
    // whoever gets it tells it, or tries again
    tracing::debug!("{error}");
    io::Error::new(error.kind(), error.to_string()).into()
}

/// A content that is not wholly here; its `info` is read when it is first needed.
struct Arriving {
    replica: Arc<Replica>,
    content: ContentRef,
    /// From when it was opened: its names may be gone when it is read.
    known: Known,
    reader: Arc<OnceLock<Reader>>,
}

impl ContentReader for Arriving {
    fn read(&self, offset: u64, length: usize) -> BoxFuture<'static, Result<Bytes, FsError>> {
        let (replica, content, known) = (Arc::clone(&self.replica), self.content, self.known);
        let cell = Arc::clone(&self.reader);
        Box::pin(async move {
            if cell.get().is_none() {
                let found = reader(Arc::clone(&replica), content.info_hash, known).await?;
                // whoever was first: both read the same
                let _ = cell.set(found);
            }
            let reader = cell.get().ok_or(FsError::Unavailable)?;
            match reader.read(offset, length).await {
                Err(ReadError::Io(kind, text)) => {
                    tracing::warn!("reading {} has failed: {kind}: {text}", content.info_hash);
                    let bytes = offset..content.length.min(offset + length as u64);
                    Bytewise(replica).reread(content, bytes).await;
                    reader.read(offset, length).await.map_err(read_error)
                }
                read => read.map_err(read_error),
            }
        })
    }
}

async fn reader(
    replica: Arc<Replica>,
    info_hash: InfoHash,
    known: Known,
) -> Result<Reader, FsError> {
    let source = Arc::clone(&replica);
    let look = move || {
        let is_here = source.store.state(&info_hash) == State::Complete;
        if !is_here && source.claims(&info_hash) {
            source.scrub.suspect(info_hash, None);
        }
        source.info_of(&info_hash, known)
    };
    let read = tokio::task::spawn_blocking(look).await;
    let info = read
        .map_err(|_| FsError::Unavailable)?
        .map_err(|error| FsError::Damaged(error.to_string()))?;
    let swarm = replica.swarm().ok_or(FsError::Unavailable)?;
    Ok(swarm.reader(&info))
}

fn read_error(error: ReadError) -> FsError {
    match error {
        ReadError::Unavailable => FsError::Unavailable,
        ReadError::TimedOut => FsError::TimedOut,
        ReadError::Io(kind, text) => io::Error::new(kind, text).into(),
    }
}

/// Where the swarm finds those who have a content: the nodes that say they hold it; as long as none of them is
/// connected, every connected node, for a fresh content's name arrives before the word that it is held.
pub struct Holders {
    /// The bytes here.
    pub replica: Arc<Replica>,
    /// The nodes.
    pub members: Arc<Mutex<Members>>,
}

impl PeerSource for Holders {
    fn peers(&self, info_hash: &InfoHash) -> Vec<SocketAddr> {
        let known = self.holders(info_hash);
        if !known.is_empty() {
            return known;
        }
        let members = lock(&self.members);
        members.iter().filter_map(|(_, m)| m.address).collect()
    }

    /// The nodes that are connected and say that they have the bytes.
    fn holders(&self, info_hash: &InfoHash) -> Vec<SocketAddr> {
        let holders: BTreeSet<_> = self.replica.holders(info_hash).into_iter().collect();
        let members = lock(&self.members);
        let held = members.iter().map(|(_, member)| member);
        held.filter(|member| holders.contains(&member.incarnation))
            .filter_map(|member| member.address)
            .collect()
    }

    fn waited_in_vain(&self, info_hash: &InfoHash) {
        self.replica.waited_in_vain(*info_hash);
    }

    fn read_failed(&self, info_hash: &InfoHash) {
        self.replica.scrub.suspect(*info_hash, None);
    }

    fn sent_wrong(&self, info_hash: &InfoHash, piece: u32, address: SocketAddr) {
        let members = lock(&self.members);
        let sender = members
            .iter()
            .find(|(_, member)| member.address == Some(address));
        if let Some((node, _)) = sender {
            self.replica.scrub.complain((node, *info_hash, piece));
        }
    }

    fn info(&self, info_hash: &InfoHash) -> Option<Info> {
        self.replica.info(info_hash).ok().flatten()
    }
}

/// The nodes behind a content's holders, with their labels, connected or not.
pub fn holder_nodes(replica: &Replica, members: &Members, info_hash: &InfoHash) -> Vec<NodeId> {
    let holders = replica.holders(info_hash).into_iter();
    holders
        .filter_map(|holder| members.by_incarnation(holder).map(|(node, _)| node))
        .collect()
}

/// Whether all of a content is on this disk.
pub fn is_here(replica: &Replica, info_hash: &InfoHash) -> bool {
    replica.store.state(info_hash) == State::Complete
}

/// The store as the swarm sees it; tells the replica what has become complete.
pub struct Noticing(pub Arc<Replica>);

impl Noticing {
    fn noticing(
        &self,
        info_hash: InfoHash,
        content: Arc<dyn StoredContent>,
    ) -> Arc<dyn StoredContent> {
        let replica = Arc::clone(&self.0);
        Arc::new(NoticingContent {
            replica,
            info_hash,
            content,
        })
    }
}

impl Storage for Noticing {
    fn find(&self, info_hash: &InfoHash) -> io::Result<Option<Arc<dyn StoredContent>>> {
        let found = Storage::find(&self.0.store, info_hash)?;
        Ok(found.map(|content| self.noticing(*info_hash, content)))
    }

    fn begin(&self, info: &Info) -> io::Result<Arc<dyn StoredContent>> {
        let content = Storage::begin(&self.0.store, info)?;
        Ok(self.noticing(info.info_hash(), content))
    }
}

struct NoticingContent {
    replica: Arc<Replica>,
    info_hash: InfoHash,
    content: Arc<dyn StoredContent>,
}

impl StoredContent for NoticingContent {
    fn length(&self) -> u64 {
        self.content.length()
    }

    fn piece_length(&self) -> u32 {
        self.content.piece_length()
    }

    fn has(&self, piece: u32) -> bool {
        self.content.has(piece)
    }

    fn standing(&self) -> Standing {
        self.content.standing()
    }

    fn flush(&self) -> io::Result<()> {
        self.content.flush()
    }

    fn write(&self, piece: u32, bytes: &[u8]) -> io::Result<PieceWritten> {
        self.content.write(piece, bytes)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        self.content.read(offset, length)
    }

    fn finish(&self) -> io::Result<()> {
        self.content.finish()?;
        self.replica.completed(self.info_hash, unix_time());
        Ok(())
    }

    fn info(&self) -> Option<Vec<u8>> {
        self.content.info()
    }
}

/// Plain TCP to the local network.
pub struct LocalTcp(pub Arc<Gate>);

impl Connector for LocalTcp {
    fn connect(
        &self,
        address: SocketAddr,
    ) -> swarm::BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let gate = Arc::clone(&self.0);
        Box::pin(async move {
            let stream = net::connect(address, &gate).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
