//! One connection after its handshakes: frames in, frames out. What frames mean for the content is decided
//! elsewhere; what is plainly against the protocol ends the connection here.

use super::chunks::Chunks;
use super::layout::{Block, Layout};
use super::limits::{
    BLOCK_BYTES, KEEP_ALIVE, RECEIVE_BYTES, REQUESTS_QUEUED, SEND_TIME, SILENCE_MAX,
};
use super::piece_set::PieceSet;
use super::ports::{StoredContent, Stream};
use super::rate::RateLimit;
use super::scheduler::PeerKey;
use super::uploads::{Server, Uploads};
use super::wire::{
    BlockRequest, ExtendedHandshake, Message, MetadataMessage, OUR_METADATA_ID, decode, encode,
    piece_header,
};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

/// What a peer said, as far as the content has to decide about it.
#[derive(Debug)]
pub(crate) enum Said {
    Choked,
    Unchoked,
    Interested(bool),
    Has(PieceSet),
    HasPiece(u32),
    Block(Block, Bytes),
    Queue(usize),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// Either side has closed it.
    #[error("closed")]
    Closed,
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No whole message for too long.
    #[error("silent")]
    Silent,
    /// It takes no bytes.
    #[error("takes no bytes")]
    Stuck,
    /// The peer broke the protocol.
    #[error("{0}")]
    Violation(String),
    /// Our own disk failed.
    #[error("cannot read what it asked for: {0}")]
    Disk(io::Error),
}

/// What all connections of all contents share.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) up: RateLimit,
    pub(crate) down: RateLimit,
    pub(crate) disk: Arc<Semaphore>,
}

/// Block bytes that one content has moved.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
}

/// What a connection is made of.
pub(crate) struct Connection {
    pub(crate) key: PeerKey,
    pub(crate) content: Arc<dyn StoredContent>,
    pub(crate) layout: Layout,
    /// The bencoded `info`, where it can be served.
    pub(crate) metadata: Option<Bytes>,
    /// The peer takes extension messages.
    pub(crate) extensions: bool,
    pub(crate) said: mpsc::Sender<(PeerKey, Vec<Said>)>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) traffic: Arc<Traffic>,
}

/// Messages that the receiving side sends by itself, at a time: each answers one of the peer's.
const ANSWERS_MAX: usize = 64;

impl Connection {
    /// Runs until the connection ends. `rest`: what was received after the handshake. Ends when `outbox` is
    /// closed.
    pub(crate) async fn run(
        self,
        stream: Box<dyn Stream>,
        rest: BytesMut,
        outbox: mpsc::Receiver<Message>,
    ) -> Ended {
        let (reader, writer) = tokio::io::split(stream);
        let uploads = Uploads::default();
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let receiving = Receiving {
            link: &self,
            uploads: &uploads,
            answers,
            metadata_id: None,
            batch: Vec::new(),
        };
        let sending = Sending {
            link: &self,
            uploads: &uploads,
            outbox,
            answered,
        };
        let result = tokio::select! {
            result = receiving.run(reader, rest) => result,
            result = sending.run(writer) => result,
        };
        match result {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }
}

enum Never {}

struct Receiving<'a> {
    link: &'a Connection,
    uploads: &'a Uploads,
    answers: mpsc::Sender<Message>,
    metadata_id: Option<u8>,
    batch: Vec<Said>,
}

impl Receiving<'_> {
    async fn run(
        mut self,
        mut reader: ReadHalf<Box<dyn Stream>>,
        rest: BytesMut,
    ) -> Result<Never, Ended> {
        let mut buffer = rest;
        let mut room = BLOCK_BYTES as usize;
        let mut last_message = Instant::now();
        loop {
            if self.take_all(&mut buffer)? {
                last_message = Instant::now();
            }
            self.hand_over().await?;
            buffer.reserve(room);
            let reading = reader.read_buf(&mut buffer);
            let count = timeout_at(last_message + SILENCE_MAX, reading)
                .await
                .map_err(|_| Ended::Silent)??;
            if count == 0 {
                return Err(Ended::Closed);
            }
            // An idle connection holds one block's room, a busy one a large buffer.
            room = if count >= room {
                RECEIVE_BYTES
            } else {
                room.min(RECEIVE_BYTES)
            };
            self.link.resources.down.pay(count).await;
        }
    }

    /// Whether there was a whole message.
    fn take_all(&mut self, buffer: &mut BytesMut) -> Result<bool, Ended> {
        let mut any = false;
        let pieces = self.link.layout.pieces();
        loop {
            match decode(buffer, pieces) {
                Ok(Some(message)) => self.take(message)?,
                Ok(None) => return Ok(any),
                Err(error) => return Err(Ended::Violation(error.to_string())),
            }
            any = true;
        }
    }

    async fn hand_over(&mut self) -> Result<(), Ended> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let handed = self.link.said.send((self.link.key, batch)).await;
        handed.map_err(|_| Ended::Closed)
    }

    fn take(&mut self, message: Message) -> Result<(), Ended> {
        let said = match message {
            Message::KeepAlive | Message::Unknown(_) => return Ok(()),
            Message::Choke => Said::Choked,
            Message::Unchoke => Said::Unchoked,
            Message::Interested => Said::Interested(true),
            Message::NotInterested => Said::Interested(false),
            Message::Have(piece) => self.have(piece)?,
            Message::Bitfield(bits) => self.bitfield(&bits)?,
            Message::Piece { piece, begin, data } => self.piece(piece, begin, data)?,
            Message::Request(request) => return self.request(request),
            Message::Cancel(request) => {
                self.uploads.cancel(request);
                return Ok(());
            }
            Message::Extended(id, payload) => return self.extended(id, &payload),
        };
        self.batch.push(said);
        Ok(())
    }

    fn have(&self, piece: u32) -> Result<Said, Ended> {
        let pieces = self.link.layout.pieces();
        if piece >= pieces {
            return violation(format!("says it has piece {piece} of {pieces}"));
        }
        Ok(Said::HasPiece(piece))
    }

    fn bitfield(&self, bits: &[u8]) -> Result<Said, Ended> {
        let pieces = self.link.layout.pieces();
        match PieceSet::from_wire(bits, pieces) {
            Some(set) => Ok(Said::Has(set)),
            None => violation(format!("sent a bitfield that is none of {pieces} pieces")),
        }
    }

    fn piece(&self, piece: u32, begin: u32, data: Bytes) -> Result<Said, Ended> {
        let bytes = data.len();
        let Some(block) = self.link.layout.block_at(piece, begin, bytes) else {
            return violation(format!("sent {bytes} bytes at {begin} of piece {piece}"));
        };
        self.link
            .traffic
            .down
            .fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(Said::Block(block, data))
    }

    fn request(&self, request: BlockRequest) -> Result<(), Ended> {
        let BlockRequest {
            piece,
            begin,
            length,
        } = request;
        let layout = &self.link.layout;
        let inside = piece < layout.pieces()
            && (1..=BLOCK_BYTES).contains(&length)
            && u64::from(begin) + u64::from(length) <= layout.piece_size(piece).into();
        if !inside || !self.link.content.has(piece) {
            return violation(format!(
                "asked for {length} bytes at {begin} of piece {piece}"
            ));
        }
        match self.uploads.push(request) {
            Some(()) => Ok(()),
            None => violation("has asked for too much at a time".into()),
        }
    }

    fn extended(&mut self, id: u8, payload: &[u8]) -> Result<(), Ended> {
        match id {
            0 => self.extended_handshake(payload),
            OUR_METADATA_ID => self.metadata(payload),
            // Extensions that we did not name: skipped.
            _ => Ok(()),
        }
    }

    fn extended_handshake(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let Some(handshake) = ExtendedHandshake::decode(payload) else {
            return violation("sent a malformed extended handshake".into());
        };
        self.metadata_id = handshake.metadata_id.filter(|id| *id != 0);
        if let Some(requests) = handshake.request_queue {
            self.batch.push(Said::Queue(requests as usize));
        }
        Ok(())
    }

    fn metadata(&mut self, payload: &[u8]) -> Result<(), Ended> {
        let part = match MetadataMessage::decode(payload) {
            Some(MetadataMessage::Request { part }) => part,
            Some(MetadataMessage::Other) => return Ok(()),
            None => return violation("sent a malformed metadata message".into()),
        };
        if let Some(id) = self.metadata_id {
            let answer = MetadataMessage::answer(part, self.link.metadata.as_deref());
            // Who asks faster than it takes answers gets fewer of them.
            let _ = self.answers.try_send(Message::Extended(id, answer));
        }
        Ok(())
    }
}

fn violation<T>(what: String) -> Result<T, Ended> {
    Err(Ended::Violation(what))
}

struct Sending<'a> {
    link: &'a Connection,
    uploads: &'a Uploads,
    outbox: mpsc::Receiver<Message>,
    answered: mpsc::Receiver<Message>,
}

impl Sending<'_> {
    async fn run(mut self, mut writer: WriteHalf<Box<dyn Stream>>) -> Result<Never, Ended> {
        let link = self.link;
        let mut server = Server::new(
            link.content.clone(),
            link.layout,
            link.resources.disk.clone(),
        );
        let mut control = BytesMut::new();
        if link.extensions {
            let size = link.metadata.as_ref().map(Bytes::len);
            let handshake = ExtendedHandshake::encode(REQUESTS_QUEUED, size);
            encode(&Message::Extended(0, handshake), &mut control);
        }
        loop {
            if control.is_empty() && self.uploads.is_empty() {
                self.wait(&mut control).await?;
            }
            self.drain(&mut control)?;
            let mut chunks = Chunks::default();
            chunks.push(control.split().freeze());
            if link.resources.up.is_limited() {
                // What blocks have to wait for need not hold up our own requests.
                send_all(&mut writer, &mut chunks).await?;
            }
            let bytes = self.serve(&mut server, &mut chunks).await?;
            send_all(&mut writer, &mut chunks).await?;
            link.traffic.up.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    async fn wait(&mut self, control: &mut BytesMut) -> Result<(), Ended> {
        let message = tokio::select! {
            message = self.outbox.recv() => message.ok_or(Ended::Closed)?,
            Some(message) = self.answered.recv() => message,
            () = self.uploads.changed() => return Ok(()),
            () = tokio::time::sleep(KEEP_ALIVE) => Message::KeepAlive,
        };
        self.put(&message, control);
        Ok(())
    }

    fn drain(&mut self, control: &mut BytesMut) -> Result<(), Ended> {
        loop {
            match self.outbox.try_recv() {
                Ok(message) => self.put(&message, control),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(Ended::Closed),
            }
        }
        while let Ok(message) = self.answered.try_recv() {
            self.put(&message, control);
        }
        Ok(())
    }

    fn put(&self, message: &Message, control: &mut BytesMut) {
        match message {
            Message::Choke => self.uploads.set_unchoked(false),
            Message::Unchoke => self.uploads.set_unchoked(true),
            _ => {}
        }
        encode(message, control);
    }

    /// Adds answers to requests; how many bytes of blocks.
    async fn serve(&self, server: &mut Server, chunks: &mut Chunks) -> Result<usize, Ended> {
        let answers = server.next(self.uploads).await.map_err(Ended::Disk)?;
        let mut bytes = 0;
        for (request, data) in answers {
            bytes += data.len();
            let header = piece_header(request.piece, request.begin, data.len());
            chunks.push(Bytes::copy_from_slice(&header));
            chunks.push(data);
        }
        if bytes > 0 {
            self.link.resources.up.pay(bytes).await;
        }
        Ok(bytes)
    }
}

async fn send_all(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    chunks: &mut Chunks,
) -> Result<(), Ended> {
    if !chunks.has_remaining() {
        return Ok(());
    }
    let sending = async {
        writer.write_all_buf(chunks).await?;
        writer.flush().await
    };
    let sent = timeout(SEND_TIME, sending).await;
    Ok(sent.map_err(|_| Ended::Stuck)??)
}
