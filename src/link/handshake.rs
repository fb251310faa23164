//! How two nodes meet: preamble, Noise handshake, identities.
//!
//! 1. The dialler sends [`MAGIC`], version and suite; they are the Noise prologue. The other side
//!    answers with its own, so that a mismatch can be named.
//! 2. `XXpsk0`: three messages, each behind a `u16` length. With the wrong key the first one already
//!    fails; the answer is then an empty frame.
//! 3. Each side sends, encrypted, who it is, with a signature by its incarnation over the handshake
//!    hash; the dialler says what the stream is for.

use super::keys::{Identity, PinError, Pins, Psk, verify};
use super::{LinkError, SecureStream};
use delugefs_core::ids::{IncarnationId, NodeId};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{Builder, HandshakeState};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The first bytes of every peer link.
pub const MAGIC: [u8; 8] = *b"DELUGEFS";

/// Version of preamble, handshake and identity.
pub const VERSION: u8 = 1;

/// `Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s`.
pub const SUITE_CHACHA: u8 = 1;

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";

/// From the first byte to the identities: a few round trips on a bad link.
pub const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(5);

/// Largest handshake message and identity, in bytes: ours have at most 200; newer ones may add.
const HANDSHAKE_BYTES_MAX: usize = 1024;

const PREAMBLE_BYTES: usize = MAGIC.len() + 2;
const PREAMBLE: [u8; PREAMBLE_BYTES] = *b"DELUGEFS\x01\x01";

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Messages.
    Control,
    /// Git's protocol, version 2.
    Git,
    /// `BitTorrent` between nodes of a private volume.
    Swarm,
}

impl Purpose {
    const fn byte(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Git => 2,
            Self::Swarm => 3,
        }
    }

    const fn parse(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Control),
            2 => Some(Self::Git),
            3 => Some(Self::Swarm),
            _ => None,
        }
    }
}

/// The other side, proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remote {
    /// The node; its static key passed the pins.
    pub node: NodeId,
    /// Its incarnation; the handshake is signed with its key.
    pub incarnation: IncarnationId,
    /// The incarnation's ed25519 public key.
    pub public_key: [u8; 32],
    /// The node's Noise static key.
    pub static_key: [u8; 32],
}

/// A stream whose other end is known.
#[derive(Debug)]
pub struct Established<S> {
    /// The stream.
    pub stream: SecureStream<S>,
    /// Who is there.
    pub remote: Remote,
    /// What the dialler wants.
    pub purpose: Purpose,
}

/// Who we are on this volume, for all links of a node.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// This node.
    pub identity: Identity,
    /// The volume's key.
    pub psk: Psk,
}

/// Opens a link over a fresh connection.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    purpose: Purpose,
    credentials: &Credentials,
    pins: &dyn Pins,
) -> Result<Established<S>, LinkError> {
    let meeting = dial_unlimited(stream, purpose, credentials, pins);
    timeout(HANDSHAKE_WAIT_MAX, meeting)
        .await
        .unwrap_or(Err(LinkError::TimedOut))
}

/// Answers a link; the stream starts with the preamble's first byte.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    credentials: &Credentials,
    pins: &dyn Pins,
) -> Result<Established<S>, LinkError> {
    let meeting = accept_unlimited(stream, credentials, pins);
    timeout(HANDSHAKE_WAIT_MAX, meeting)
        .await
        .unwrap_or(Err(LinkError::TimedOut))
}

async fn dial_unlimited<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    purpose: Purpose,
    credentials: &Credentials,
    pins: &dyn Pins,
) -> Result<Established<S>, LinkError> {
    let mut noise = builder(credentials)?.build_initiator().map_err(broken)?;
    let first = handshake_frame(&mut noise)?;
    stream.write_all(&[&PREAMBLE[..], &first].concat()).await?;
    stream.flush().await?;
    read_preamble(&mut stream).await?;
    let second = read_frame(&mut stream).await?;
    if second.is_empty() {
        return Err(LinkError::WrongKey);
    }
    absorb(&mut noise, &second).map_err(|_| LinkError::WrongKey)?;
    let third = handshake_frame(&mut noise)?;
    stream.write_all(&third).await?;
    let side = Side::new(&noise, true)?;
    let mut stream = SecureStream::new(stream, noise.into_transport_mode().map_err(broken)?);
    send_identity(&mut stream, &side, purpose, &credentials.identity).await?;
    let (remote, echoed) = receive_identity(&mut stream, &side, &credentials.identity).await?;
    if echoed != purpose {
        return Err(LinkError::protocol("the purpose was not echoed"));
    }
    pins.check(remote.node, &remote.static_key)?;
    Ok(Established {
        stream,
        remote,
        purpose,
    })
}

async fn accept_unlimited<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    credentials: &Credentials,
    pins: &dyn Pins,
) -> Result<Established<S>, LinkError> {
    let mut noise = builder(credentials)?.build_responder().map_err(broken)?;
    let preamble = read_preamble(&mut stream).await;
    if matches!(preamble, Ok(()) | Err(LinkError::Version(_))) {
        stream.write_all(&PREAMBLE).await?;
    }
    preamble?;
    let first = read_frame(&mut stream).await?;
    if absorb(&mut noise, &first).is_err() {
        stream.write_all(&0_u16.to_be_bytes()).await?;
        stream.shutdown().await?;
        return Err(LinkError::WrongKey);
    }
    let second = handshake_frame(&mut noise)?;
    stream.write_all(&second).await?;
    stream.flush().await?;
    let third = read_frame(&mut stream).await?;
    absorb(&mut noise, &third)?;
    let side = Side::new(&noise, false)?;
    let mut stream = SecureStream::new(stream, noise.into_transport_mode().map_err(broken)?);
    let identified = receive_identity(&mut stream, &side, &credentials.identity).await;
    if matches!(
        identified,
        Ok(_) | Err(LinkError::Itself | LinkError::Duplicate { .. })
    ) {
        // So that a double on the other side learns of it, too.
        let purpose = identified
            .as_ref()
            .map_or(Purpose::Control, |known| known.1);
        send_identity(&mut stream, &side, purpose, &credentials.identity).await?;
    }
    let (remote, purpose) = identified?;
    pins.check(remote.node, &remote.static_key)?;
    Ok(Established {
        stream,
        remote,
        purpose,
    })
}

fn builder(credentials: &Credentials) -> Result<Builder<'_>, LinkError> {
    let pattern = PATTERN.parse().map_err(broken)?;
    Builder::new(pattern)
        .prologue(&PREAMBLE)
        .and_then(|builder| builder.psk(0, credentials.psk.as_bytes()))
        .and_then(|builder| builder.local_private_key(credentials.identity.static_private()))
        .map_err(broken)
}

/// Our own use of the Noise library failed.
fn broken(error: impl std::error::Error + Send + Sync + 'static) -> LinkError {
    LinkError::Io(io::Error::other(error))
}

fn absorb(noise: &mut HandshakeState, message: &[u8]) -> Result<(), LinkError> {
    let mut payload = [0; HANDSHAKE_BYTES_MAX];
    noise
        .read_message(message, &mut payload)
        .map(|_| ())
        .map_err(|_| LinkError::protocol("a handshake message was not authentic"))
}

fn handshake_frame(noise: &mut HandshakeState) -> Result<Vec<u8>, LinkError> {
    let mut frame = vec![0; 2 + HANDSHAKE_BYTES_MAX];
    let length = noise.write_message(&[], &mut frame[2..]).map_err(broken)?;
    frame[..2].copy_from_slice(&(length as u16).to_be_bytes());
    frame.truncate(2 + length);
    Ok(frame)
}

async fn read_preamble<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), LinkError> {
    let mut preamble = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut preamble).await?;
    if preamble[..MAGIC.len()] != MAGIC {
        return Err(LinkError::protocol("not a peer link"));
    }
    if preamble != PREAMBLE {
        let [.., version, suite] = preamble;
        let text = format!("version {version} suite {suite}, here {VERSION} and {SUITE_CHACHA}");
        return Err(LinkError::Version(text));
    }
    Ok(())
}

async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, LinkError> {
    let length = usize::from(stream.read_u16().await?);
    if length > HANDSHAKE_BYTES_MAX {
        return Err(LinkError::protocol("a handshake message is too long"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// What both sides know once the handshake is done.
struct Side {
    hash: Vec<u8>,
    remote_static: [u8; 32],
    dialler: bool,
}

impl Side {
    fn new(noise: &HandshakeState, dialler: bool) -> Result<Self, LinkError> {
        let remote = noise
            .get_remote_static()
            .and_then(|key| key.try_into().ok());
        let missing = || LinkError::protocol("the peer has no static key");
        Ok(Self {
            hash: noise.get_handshake_hash().to_vec(),
            remote_static: remote.ok_or_else(missing)?,
            dialler,
        })
    }
}

/// What an identity says before its signature.
const CLAIM_BYTES: usize = 1 + 16 + 16 + 16 + 32;
const IDENTITY_BYTES: usize = CLAIM_BYTES + 64;

/// Role and purpose are signed, so that an identity cannot be sent back or used otherwise.
fn signed_text(hash: &[u8], by_dialler: bool, claim: &[u8]) -> Vec<u8> {
    let context = b"delugefs link identity v1";
    [&context[..], &[u8::from(by_dialler)], hash, claim].concat()
}

/// Who we are, behind its length.
fn identity_frame(side: &Side, purpose: Purpose, own: &Identity) -> Vec<u8> {
    let claim = [
        &[purpose.byte()][..],
        own.node().as_bytes(),
        own.incarnation().as_bytes(),
        own.process(),
        &own.public_key(),
    ]
    .concat();
    let signature = own.sign(&signed_text(&side.hash, side.dialler, &claim));
    let length = (IDENTITY_BYTES as u16).to_be_bytes();
    [&length[..], &claim, &signature].concat()
}

async fn send_identity<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SecureStream<S>,
    side: &Side,
    purpose: Purpose,
    own: &Identity,
) -> Result<(), LinkError> {
    let frame = identity_frame(side, purpose, own);
    stream.write_all(&frame).await?;
    stream.flush().await?;
    Ok(())
}

async fn receive_identity<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut SecureStream<S>,
    side: &Side,
    own: &Identity,
) -> Result<(Remote, Purpose), LinkError> {
    let frame = read_frame(stream).await?;
    let cut = || LinkError::protocol("an identity is cut short");
    let (claim, rest) = frame.split_at_checked(CLAIM_BYTES).ok_or_else(cut)?;
    let signature: &[u8; 64] = rest.first_chunk().ok_or_else(cut)?;
    let node = NodeId::from_slice(&claim[1..17]).ok_or_else(cut)?;
    let incarnation = IncarnationId::from_slice(&claim[17..33]).ok_or_else(cut)?;
    let public_key: [u8; 32] = claim[49..].try_into().map_err(|_| cut())?;
    let text = signed_text(&side.hash, !side.dialler, claim);
    if IncarnationId::of_key(&public_key) != incarnation || !verify(&public_key, &text, signature) {
        return Err(LinkError::protocol("an identity is not authentic"));
    }
    let process = &claim[33..49];
    if process == own.process() {
        return Err(LinkError::Itself);
    }
    if node == own.node() {
        return Err(same_node(side, own, process));
    }
    let purpose = Purpose::parse(claim[0]);
    let purpose = purpose.ok_or_else(|| LinkError::protocol("an unknown purpose"))?;
    let remote = Remote {
        node,
        incarnation,
        public_key,
        static_key: side.remote_static,
    };
    Ok((remote, purpose))
}

/// Who says that it is this node is a copy of it, or a liar, who must not be able to stop us.
fn same_node(side: &Side, own: &Identity, process: &[u8]) -> LinkError {
    let node = own.node();
    if static_public(own.static_private()) != Some(side.remote_static) {
        return LinkError::Pin(PinError { node });
    }
    LinkError::Duplicate {
        node,
        yields: own.process()[..] < *process,
    }
}

fn static_public(private: &[u8; 32]) -> Option<[u8; 32]> {
    let mut key = DefaultResolver.resolve_dh(&DHChoice::Curve25519)?;
    key.set(private);
    key.pubkey().try_into().ok()
}

#[cfg(test)]
pub(crate) mod tests;
