//! From `--id` to a volume: made anew, or found on the network, on this host or at a named peer.

use super::error::NodeError;
use crate::cli::{Options, background};
use crate::net::{self, Gate, ask};
use crate::root::{VolumeName, random};
use delugefs_core::ids::VolumeId;
use delugefs_discovery::{Discovery, Event, Responder, Sources};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout_at};

/// How long `--create` listens for a volume of that name: answers to a question by mDNS come within tens of
/// milliseconds.
const CREATE_LISTENS: Duration = Duration::from_millis(800);

/// After the first volume of the right name, others of the same name have this long to be heard of.
const OTHERS_WAIT: Duration = Duration::from_millis(400);

/// How often named peers are asked which volume they have.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How often a node that waits says so.
const REMIND_EVERY: Duration = Duration::from_secs(30);

/// Where nodes are looked for.
pub(super) fn sources(options: &Options) -> Sources {
    let registry = match std::env::var_os("DELUGEFS_REGISTRY") {
        Some(folder) => vec![folder.into()],
        None => delugefs_discovery::registry::standard_directories(),
    };
    Sources {
        mdns: options.mdns.then(Responder::default),
        registry,
    }
}

/// Refuses to make a volume if there is another one of that name around. `own` is the one that is being made.
pub(super) async fn refuse_a_second(
    options: &Options,
    own: Option<VolumeId>,
) -> Result<(), NodeError> {
    let (discovery, mut events) = Discovery::browse(&sources(options))?;
    let until = Instant::now() + CREATE_LISTENS;
    let mut found = gather(&mut events, &options.volume, None, until).await;
    tokio::task::spawn_blocking(move || discovery.stop());
    found.retain(|volume, _| Some(*volume) != own);
    if found.is_empty() {
        return Ok(());
    }
    Err(NodeError::VolumeExists {
        name: options.volume.clone(),
        found: list(&found),
    })
}

/// Mints a new volume, unless there is one of that name around.
pub(super) async fn create(options: &Options) -> Result<VolumeName, NodeError> {
    refuse_a_second(options, None).await?;
    let bytes: [u8; 16] = random().map_err(NodeError::io("cannot mint a volume id"))?;
    let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Ok(VolumeName {
        id: VolumeId::new(*uuid.as_bytes()),
        name: options.volume.clone(),
    })
}

/// Finds the volume to join; waits for it as long as it takes, saying so.
pub(super) async fn find(
    options: &Options,
    gate: &Gate,
    peers: &[SocketAddr],
) -> Result<VolumeName, NodeError> {
    let (discovery, mut events) = Discovery::browse(&sources(options))?;
    let found = tokio::select! {
        found = discovered(&mut events, options) => found,
        found = asked(options, gate, peers) => found,
        () = remind(options) => BTreeMap::new(),
    };
    tokio::task::spawn_blocking(move || discovery.stop());
    let mut volumes = found.iter();
    match (volumes.next(), volumes.next()) {
        (Some((id, _)), None) => Ok(VolumeName {
            id: *id,
            name: options.volume.clone(),
        }),
        _ => Err(NodeError::SeveralVolumes {
            name: options.volume.clone(),
            found: list(&found),
        }),
    }
}

/// Volumes of one name, each with an address of one of its nodes.
type Found = BTreeMap<VolumeId, SocketAddr>;

async fn discovered(events: &mut Receiver<Event>, options: &Options) -> Found {
    let prefix = options.volume_prefix.as_deref();
    let far = Instant::now() + Duration::from_hours(24 * 365);
    let mut found = first(events, &options.volume, prefix, far).await;
    let until = Instant::now() + OTHERS_WAIT;
    found.extend(gather(events, &options.volume, prefix, until).await);
    found
}

async fn first(
    events: &mut Receiver<Event>,
    name: &str,
    prefix: Option<&str>,
    until: Instant,
) -> Found {
    loop {
        match next(events, until).await {
            Some(Event::Found(peer)) if matches(&peer, name, prefix) => {
                return peer
                    .addresses
                    .first()
                    .map(|address| (peer.volume, *address))
                    .into_iter()
                    .collect();
            }
            Some(Event::Warning(text)) => tracing::warn!("{text}"),
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

async fn gather(
    events: &mut Receiver<Event>,
    name: &str,
    prefix: Option<&str>,
    until: Instant,
) -> Found {
    let mut found = Found::new();
    while let Some(event) = next(events, until).await {
        if let Event::Found(peer) = event
            && matches(&peer, name, prefix)
            && let Some(address) = peer.addresses.first()
        {
            found.insert(peer.volume, *address);
        }
    }
    found
}

async fn next(events: &mut Receiver<Event>, until: Instant) -> Option<Event> {
    timeout_at(until, events.recv()).await.ok().flatten()
}

fn matches(peer: &delugefs_discovery::Peer, name: &str, prefix: Option<&str>) -> bool {
    peer.volume_name == name
        && prefix.is_none_or(|prefix| peer.volume.to_string().starts_with(prefix))
}

/// Asks the named peers, again and again.
async fn asked(options: &Options, gate: &Gate, peers: &[SocketAddr]) -> Found {
    if peers.is_empty() {
        return std::future::pending().await;
    }
    loop {
        for address in peers {
            match ask_one(*address, gate).await {
                Ok(volume) if volume.name == options.volume => {
                    return [(volume.id, *address)].into();
                }
                Ok(volume) => tracing::warn!(
                    "{address} is a node of volume {}, not of {}",
                    volume.name,
                    options.volume
                ),
                Err(error) => {
                    tracing::debug!("{address} does not say which volume it has: {error}");
                }
            }
        }
        sleep(ASK_EVERY).await;
    }
}

async fn ask_one(address: SocketAddr, gate: &Gate) -> std::io::Result<VolumeName> {
    let stream = net::connect(address, gate).await?;
    ask::ask(stream).await
}

async fn remind(options: &Options) {
    loop {
        let sentence = format!(
            "looking for volume {}: waiting for one of its nodes (a new volume is made with --create)",
            options.volume
        );
        tracing::info!("{sentence}");
        background::note(&sentence);
        sleep(REMIND_EVERY).await;
    }
}

fn list(found: &Found) -> String {
    let show = |(id, address): (&VolumeId, &SocketAddr)| format!("{id} at {address}");
    found.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// The addresses behind `HOST:PORT`.
pub(super) async fn resolve(peers: &[String]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for peer in peers {
        match tokio::net::lookup_host(peer).await {
            Ok(found) => addresses.extend(found),
            Err(error) => tracing::warn!("--peer {peer}: {error}"),
        }
    }
    addresses
}
