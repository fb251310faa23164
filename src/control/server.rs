//! The node's side of the control socket.

use super::{LINE_BYTES_MAX, Reply, Request};
use serde_json::Value;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Commands answered at once; more wait.
const COMMANDS_MAX: usize = 16;

/// How long a client may take to say what it wants.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// The reply to a request, when it is ready: a report, or a sentence about what is wrong.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>>;

/// Answers requests.
pub trait Handle: Send + Sync {
    /// Answers one request.
    fn handle(&self, request: Request) -> Answer<'_>;
}

/// A listening control socket; gone when dropped.
pub struct ControlServer {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ControlServer {
    /// Listens at a path, replacing what a killed process left there. Only the owner can connect.
    pub fn start(path: &Path, handler: Arc<dyn Handle>) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let task = tokio::spawn(accept(listener, handler));
        Ok(Self {
            path: path.to_owned(),
            task,
        })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        // nobody is helped by an error here: a stale socket is replaced at the next start
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, handler: Arc<dyn Handle>) {
    let permits = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            if let Err(error) = serve(stream, handler.as_ref()).await {
                tracing::debug!("a control command ended early: {error}");
            }
            drop(permit);
        });
    }
}

async fn serve(stream: UnixStream, handler: &dyn Handle) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(read.take(LINE_BYTES_MAX as u64));
    tokio::time::timeout(REQUEST_WAIT, limited.read_until(b'\n', &mut line)).await??;
    let request = serde_json::from_slice::<Request>(&line);
    let is_stop = matches!(request, Ok(Request::Stop));
    let reply = match request {
        Ok(request) => match handler.handle(request).await {
            Ok(report) => Reply::Done(report),
            Err(sentence) => Reply::Failed(sentence),
        },
        Err(error) => Reply::Failed(format!(
            "this node does not understand that request: {error}"
        )),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    write.write_all(&text).await?;
    if is_stop {
        // left open: the kernel closes it when the process has ended, and then the root can be used again
        std::mem::forget(write);
        return Ok(());
    }
    write.shutdown().await
}
