//! Who we are and whom we trust: keys, identity, pins.

use delugefs_core::ids::{IncarnationId, NodeId, VolumeId};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;

/// Context of the pre-shared key of an open volume (BLAKE3 `derive_key`).
const OPEN_VOLUME_CONTEXT: &str = "delugefs 2026 link pre-shared key of an open volume";

/// Context of the key that encrypts nothing but proves a node to its peers.
const STATIC_KEY_CONTEXT: &str = "delugefs 2026 link static key of a node";

/// What all nodes of a volume share: it opens the handshake.
#[derive(Clone)]
pub struct Psk([u8; 32]);

impl Psk {
    /// An open volume's: whoever knows the volume's public id has it, so it keeps nobody out.
    pub fn open_volume(volume: VolumeId) -> Self {
        Self(blake3::derive_key(OPEN_VOLUME_CONTEXT, volume.as_bytes()))
    }

    /// A private volume's secret.
    pub const fn secret(key: [u8; 32]) -> Self {
        Self(key)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// This node, as it proves itself on links.
#[derive(Clone)]
pub struct Identity {
    node: NodeId,
    incarnation: SigningKey,
    static_private: [u8; 32],
    process: [u8; 16],
}

impl Identity {
    /// `node_seed` lasts for the node's life (its peers pin the key made of it),
    /// `incarnation_seed` is the ed25519 secret of one incarnation, and `process` is random and new
    /// for each process: it tells ourselves from a copy of us.
    pub fn new(
        node: NodeId,
        node_seed: &[u8; 32],
        incarnation_seed: &[u8; 32],
        process: [u8; 16],
    ) -> Self {
        Self {
            node,
            incarnation: SigningKey::from_bytes(incarnation_seed),
            static_private: blake3::derive_key(STATIC_KEY_CONTEXT, node_seed),
            process,
        }
    }

    /// The node.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// The incarnation: named by its public key.
    pub fn incarnation(&self) -> IncarnationId {
        IncarnationId::of_key(&self.public_key())
    }

    /// The incarnation's ed25519 public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.incarnation.verifying_key().to_bytes()
    }

    pub(crate) const fn process(&self) -> &[u8; 16] {
        &self.process
    }

    pub(crate) const fn static_private(&self) -> &[u8; 32] {
        &self.static_private
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.incarnation.sign(text).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node)
            .field("incarnation", &self.incarnation())
            .finish_non_exhaustive()
    }
}

/// Strict: no malleable signatures, no keys of small order.
pub(crate) fn verify(public_key: &[u8; 32], text: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(public_key).is_ok_and(|key| {
        key.verify_strict(text, &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// A node came with a key that is not its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node} has another key than before: it is not the node that was known by this id")]
pub struct PinError {
    /// The node it claims to be.
    pub node: NodeId,
}

/// Which static key belongs to which node. The first one seen is kept.
pub trait Pins: Send + Sync {
    /// Remembers the key of a node not yet known; refuses another key of one that is.
    fn check(&self, node: NodeId, static_key: &[u8; 32]) -> Result<(), PinError>;
}
