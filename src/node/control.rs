//! Answers to `delugefs status`, `where`, `set`, `scrub` and `stop`.

use super::names;
use super::shared::{Shared, unix_time};
use crate::bytes::ports::{holder_nodes, is_here};
use crate::cli::apply_setting;
use crate::cli::units::{show_size, show_time};
use crate::control::{
    Answer, ContentReport, DamageReport, FetchReport, Handle, HolderReport, NodeReport, PeerReport,
    RepairReport, Request, ScrubReport, SettingsReport, SignerReport, SignersReport, SpaceReport,
    StatusReport, VolumeReport, WhereReport,
};
use crate::sync_ext::lock;
use delugefs_core::entry::{Content, ContentRef, Kind};
use delugefs_core::ids::{IncarnationId, InfoHash};
use delugefs_core::name::Name;
use delugefs_core::scrub::{Damage, Repair};
use delugefs_core::settings::Settings;
use serde_json::Value;
use std::sync::Arc;

/// Damaged files named one by one.
const DAMAGED_SHOWN_MAX: usize = 1000;

/// Answers the control socket.
pub(super) struct Control(pub(super) Arc<Shared>);

impl Handle for Control {
    fn handle(&self, request: Request) -> Answer<'_> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            if request == Request::Stop {
                shared.told_to_stop.cancel();
                shared.ended.cancelled().await;
                return Ok(Value::Null);
            }
            let answered = tokio::task::spawn_blocking(move || answer(&shared, request)).await;
            answered.map_err(|panic| format!("this node could not answer: {panic}"))?
        })
    }
}

fn answer(shared: &Shared, request: Request) -> Result<Value, String> {
    let report = match request {
        Request::Status => serde_json::to_value(status(shared)),
        Request::Where { path } => serde_json::to_value(whereabouts(shared, &path)?),
        Request::Signers => serde_json::to_value(signers(shared)?),
        Request::Settings => serde_json::to_value(settings(&shared.settings())),
        Request::Set { key, value } => serde_json::to_value(set(shared, &key, &value)?),
        Request::Scrub => {
            let scrub = &shared.replica.scrub;
            scrub.with(|scrub| scrub.ask(unix_time()));
            scrub.store();
            scrub.ring();
            serde_json::to_value(scrub_report(shared))
        }
        Request::ScrubProgress => serde_json::to_value(scrub_report(shared)),
        Request::Stop => Ok(Value::Null),
    };
    report.map_err(|error| error.to_string())
}

fn status(shared: &Shared) -> StatusReport {
    let space = shared.replica.space();
    let file = &shared.file;
    StatusReport {
        node: NodeReport {
            id: shared.node().to_string(),
            incarnation: shared.incarnation().to_string(),
            label: file.label.clone(),
            site: file.site.clone(),
            listen: shared.listen.to_string(),
            mount: shared
                .options
                .mount
                .as_ref()
                .map(|path| path.display().to_string()),
            pid: std::process::id(),
        },
        volume: VolumeReport {
            name: shared.volume().name.clone(),
            id: shared.volume().id.to_string(),
            head: shared
                .repository
                .view()
                .commit
                .map(|commit| commit.to_string()),
        },
        peers: peers(shared),
        space: SpaceReport {
            capacity: space.total,
            free: space.free,
        },
        contents: contents(shared),
        read_only: shared.publishing.stopped(),
        scrub: scrub_report(shared),
    }
}

fn scrub_report(shared: &Shared) -> ScrubReport {
    let held_bytes = shared.replica.store.space().map_or(0, |space| space.used);
    let held = shared.replica.held() as u64;
    shared.replica.scrub.with(|scrub| {
        let pass = scrub.pass();
        let damaged = scrub.damaged().iter().take(DAMAGED_SHOWN_MAX);
        ScrubReport {
            pass: pass.number,
            running: scrub.is_running(),
            asked: pass.asked,
            started: pass.started,
            finished: pass.finished,
            contents: pass.contents,
            bytes: pass.bytes,
            held,
            held_bytes,
            unchecked: pass.unchecked,
            found: pass.found,
            repaired: pass.repaired,
            damaged_contents: scrub.damaged().len() as u64,
            damaged: damaged
                .map(|(content, damage)| damage_report(shared, content, damage))
                .collect(),
        }
    })
}

fn damage_report(shared: &Shared, content: &InfoHash, damage: &Damage) -> DamageReport {
    DamageReport {
        info_hash: content.to_string(),
        path: lock(&shared.damaged_names).get(content).cloned(),
        pieces: damage.pieces,
        found: damage.found,
        repair: match damage.repair {
            Repair::Due => RepairReport::Due,
            Repair::UnderWay => RepairReport::UnderWay,
            Repair::Waiting => RepairReport::Waiting,
        },
    }
}

fn signers(shared: &Shared) -> Result<SignersReport, String> {
    let keys = shared.repository.signers();
    let members = lock(&shared.members);
    let label = |author| match author == shared.incarnation() {
        true => Some(shared.file.label.clone()),
        false => members
            .iter()
            .find(|(_, member)| member.incarnation == author)
            .map(|(_, member)| member.label.clone()),
    };
    let signer = |(author, key): (IncarnationId, String)| SignerReport {
        incarnation: author.to_string(),
        key,
        label: label(author),
    };
    let keys = keys.map_err(|error| error.to_string())?;
    Ok(SignersReport {
        signers: keys.into_iter().map(signer).collect(),
    })
}

fn peers(shared: &Shared) -> Vec<PeerReport> {
    let members = lock(&shared.members);
    let all = members.iter().map(|(node, member)| PeerReport {
        id: node.to_string(),
        label: member.label.clone(),
        address: member.address.map(|address| address.to_string()),
        connected: member.address.is_some(),
    });
    all.collect()
}

fn contents(shared: &Shared) -> ContentReport {
    let under_way = shared.filesystem.status();
    let replica = &shared.replica;
    let active = replica
        .swarm()
        .map(|swarm| swarm.status().contents)
        .unwrap_or_default();
    let fetching = active
        .into_iter()
        .filter(|content| content.missing_pieces > 0);
    let fetching = fetching.filter_map(|content| {
        let length = replica.known(&content.info_hash)?.length;
        let (pieces, missing) = (
            u128::from(content.pieces.max(1)),
            u128::from(content.missing_pieces),
        );
        let missing = u128::from(length) * missing / pieces;
        Some(FetchReport {
            info_hash: content.info_hash.to_string(),
            have: length.saturating_sub(missing as u64),
            length,
        })
    });
    ContentReport {
        held: replica.held() as u64,
        total: replica.total() as u64,
        unsealed: (under_way.unsealed + under_way.writing) as u64,
        uncommitted: under_way.uncommitted as u64,
        short_of_copies: super::copies::short_of_copies(shared, &shared.settings()) as u64,
        fetching: fetching.collect(),
    }
}

fn whereabouts(shared: &Shared, path: &[u8]) -> Result<WhereReport, String> {
    let shown = String::from_utf8_lossy(path).into_owned();
    let parts = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty());
    let names: Result<Vec<Name>, _> = parts.map(Name::parse).collect();
    let names = names.map_err(|error| format!("{shown}: {error}"))?;
    let (_, placed) = shared
        .filesystem
        .find(&names)
        .map_err(|error| format!("{shown}: {error}"))?;
    let Kind::File(file) = &placed.entry.kind else {
        return Err(format!("{shown} is not a regular file"));
    };
    let content = match &file.content {
        Content::Inline(_) => None,
        Content::Swarm(content) => Some(*content),
    };
    Ok(WhereReport {
        path: shown,
        length: file.content.length(),
        info_hash: content.map(|content| content.info_hash.to_string()),
        here: content.map_or(file.content.length(), |content| here(shared, &content)),
        damage: content.and_then(|content| {
            let content = &content.info_hash;
            let damage = shared
                .replica
                .scrub
                .with(|scrub| scrub.damaged().get(content).copied());
            damage.map(|damage| damage_report(shared, content, &damage))
        }),
        holders: content.map_or_else(Vec::new, |content| holders(shared, &content)),
    })
}

fn here(shared: &Shared, content: &ContentRef) -> u64 {
    if is_here(&shared.replica, &content.info_hash) {
        return content.length;
    }
    let fetching = contents(shared).fetching.into_iter();
    let mut this = fetching.filter(|fetch| fetch.info_hash == content.info_hash.to_string());
    this.next().map_or(0, |fetch| fetch.have)
}

fn holders(shared: &Shared, content: &ContentRef) -> Vec<HolderReport> {
    let members = lock(&shared.members);
    let mut holders: Vec<HolderReport> =
        holder_nodes(&shared.replica, &members, &content.info_hash)
            .into_iter()
            .filter_map(|node| Some((node, members.get(node)?)))
            .map(|(node, member)| HolderReport {
                id: node.to_string(),
                label: member.label.clone(),
                connected: member.address.is_some(),
            })
            .collect();
    if is_here(&shared.replica, &content.info_hash) {
        let own = HolderReport {
            id: shared.node().to_string(),
            label: shared.file.label.clone(),
            connected: true,
        };
        holders.insert(0, own);
    }
    holders
}

fn settings(settings: &Settings) -> SettingsReport {
    let line = |key: &str, value: String| (key.to_owned(), value);
    SettingsReport {
        settings: vec![
            line("copies", settings.copies.to_string()),
            line("grace", show_time(settings.grace)),
            line("keep", show_time(settings.keep)),
            line("wait", show_time(settings.wait)),
            line("inline_max", show_size(u64::from(settings.inline_max))),
            line("history", show_time(settings.history)),
            line("retire", show_time(settings.retire)),
        ],
    }
}

fn set(shared: &Shared, key: &str, value: &str) -> Result<SettingsReport, String> {
    let mut new = shared.settings();
    apply_setting(&mut new, key, value)?;
    if let Some(reason) = shared.publishing.stopped() {
        return Err(format!("this node is read-only: {reason}"));
    }
    names::set(shared, &new).map_err(|error| error.to_string())?;
    Ok(settings(&shared.settings()))
}
