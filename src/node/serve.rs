//! What comes in at the port: links, Git, BitTorrent, and the question which volume this is.

use super::links;
use super::places::Shares;
use super::rests;
use super::shared::Shared;
use crate::link::{self, LinkError, Purpose, blocking};
use crate::net::{Accepted, Incoming, Listener, Protocol, ask};
use delugefs_core::ids::IncarnationId;
use delugefs_metadata_repo::exchange::{self, ServeOptions};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;

/// Git conversations served at once; more wait. Each takes a thread.
const GIT_MAX: usize = 32;

/// Git conversations served at once to one address; a host may have several nodes, and each has one.
const GIT_PER_ADDRESS: usize = 12;

/// How long a Git client may be silent.
const GIT_SILENCE_MAX: Duration = Duration::from_mins(1);

type Git = Shares<IpAddr>;

/// Takes connections until the node stops.
pub(super) async fn run(shared: Arc<Shared>, mut listener: Listener) {
    let git = Arc::new(Shares::new(GIT_MAX, GIT_PER_ADDRESS));
    loop {
        let incoming = tokio::select! {
            () = shared.stop.cancelled() => return,
            incoming = listener.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            shared.stop_because("the port was lost".to_owned());
            return;
        };
        let (shared, git) = (Arc::clone(&shared), Arc::clone(&git));
        tokio::spawn(async move { serve(shared, git, incoming).await });
    }
}

async fn serve(shared: Arc<Shared>, git: Arc<Git>, incoming: Incoming) {
    let Incoming {
        protocol,
        source,
        stream,
    } = incoming;
    match protocol {
        Protocol::Link => match link::accept(stream, &shared.credentials, &shared.pins).await {
            Ok(established) => match established.purpose {
                Purpose::Control => links::accepted(&shared, established, source).await,
                Purpose::Git => {
                    if may_be_given_history(&shared, established.remote.incarnation).await {
                        serve_git(&shared, &git, established.stream, source).await;
                    }
                }
                Purpose::Swarm => join_swarm(&shared, established.stream),
            },
            Err(LinkError::Duplicate { yields, .. }) => links::doubled(&shared, yields, source),
            Err(error) => tracing::debug!("no link with {source}: {error}"),
        },
        Protocol::Git => serve_git(&shared, &git, stream, source).await,
        Protocol::BitTorrent => join_swarm(&shared, stream),
        Protocol::Question => answer(&shared, stream).await,
    }
}

/// Whoever is given history is written down first: what it makes of it may go on from there.
async fn may_be_given_history(shared: &Arc<Shared>, to: IncarnationId) -> bool {
    let worker = Arc::clone(shared);
    let meet = move || worker.rests.meet(to, rests::seen_now(&worker.repository));
    let met = tokio::task::spawn_blocking(meet).await;
    match met.map_err(std::io::Error::other).flatten() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!("{to} is given no names, since that cannot be written down: {error}");
            false
        }
    }
}

fn join_swarm<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(shared: &Shared, stream: S) {
    if let Some(swarm) = shared.replica.swarm() {
        swarm.accept(stream, bytes::Bytes::new());
    }
}

async fn serve_git<S: AsyncRead + AsyncWrite + Send + 'static>(
    shared: &Arc<Shared>,
    git: &Git,
    stream: S,
    source: SocketAddr,
) {
    let Some(_place) = git.take(source.ip()).await else {
        return;
    };
    let (read, write) = blocking::split(stream, Handle::current(), GIT_SILENCE_MAX);
    let options = ServeOptions {
        name: shared.volume().name.clone(),
        ..ServeOptions::default()
    };
    let repository = shared.repository.clone();
    let served =
        tokio::task::spawn_blocking(move || exchange::serve(&repository, read, write, &options));
    match served.await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!("a Git conversation ended early: {error}"),
        Err(panic) => tracing::error!("a Git conversation broke: {panic}"),
    }
}

async fn answer(shared: &Shared, stream: Accepted) {
    if let Err(error) = ask::answer(stream, shared.volume()).await {
        tracing::debug!("a question for the volume ended early: {error}");
    }
}
