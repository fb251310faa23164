//! The one question that can be asked of an open volume's node without knowing the volume: which one is it?
//!
//! The asker sends [`QUESTION`]; the node answers with one line, `<volume id in hex> <name>`, and closes.

use crate::root::VolumeName;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The first bytes of an asker.
pub const QUESTION: &[u8; 10] = b"DELUGE-ID\n";

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 256;

/// How long the whole exchange may take.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Asks a node for its volume.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<VolumeName> {
    let exchange = async {
        stream.write_all(QUESTION).await?;
        let mut answer = String::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_string(&mut answer)
            .await?;
        parse(&answer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a node's answer"))
    };
    timeout(WAIT_MAX, exchange).await?
}

/// Answers an asker whose question is still to be read.
pub async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    volume: &VolumeName,
) -> io::Result<()> {
    let exchange = async {
        let mut question = [0; QUESTION.len()];
        stream.read_exact(&mut question).await?;
        let line = format!("{} {}\n", volume.id, volume.name);
        stream.write_all(line.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(WAIT_MAX, exchange).await?
}

/// Reads an answer; any text (a fuzz target's entry).
pub fn parse(answer: &str) -> Option<VolumeName> {
    let (id, name) = answer.strip_suffix('\n')?.split_once(' ')?;
    Some(VolumeName {
        id: id.parse().ok()?,
        name: name.to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use delugefs_core::ids::VolumeId;

    #[tokio::test]
    async fn the_answer_is_what_was_asked_for() {
        let volume = VolumeName {
            id: VolumeId::new([9; 16]),
            name: "bigstore".to_owned(),
        };
        let (asker, node) = tokio::io::duplex(64);
        let (learned, told) = tokio::join!(ask(asker), answer(node, &volume));
        told.unwrap();
        assert_eq!(learned.unwrap(), volume);
    }

    #[tokio::test]
    async fn nonsense_is_no_answer() {
        let (asker, mut node) = tokio::io::duplex(64);
        node.write_all(b"HTTP/1.1 400 Bad Request\r\n")
            .await
            .unwrap();
        node.shutdown().await.unwrap();
        assert!(ask(asker).await.is_err());
    }
}
