//! The node's one loop: everything that happens comes here, the sync machine decides, effects are carried out
//! elsewhere and come back as events. Nothing here waits for disk or network.

use super::gossip;
use super::links;
use super::members::Member;
use super::names;
use super::rests;
use super::shared::{Shared, unix_time};
use crate::link::Message as Wire;
use crate::link::message::PeerAddresses;
use crate::sync_ext::lock;
use delugefs_core::holdings::Wanted;
use delugefs_core::ids::{IncarnationId, InfoHash, NodeId};
use delugefs_core::sync::{
    Effect, Event, LinkId, LinkUp, Message, Now, Outcome, PeerAddress, Positions, PullId, Reason,
    Sync,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

/// Inputs that wait for the loop. Beyond this, senders wait: writers slow down rather than events being lost.
pub(super) const INBOX_INPUTS_MAX: usize = 1024;

/// What ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// [`Effect::Commit`]
    Commit,
    /// [`Effect::Rebase`]
    Rebase,
    /// [`Effect::Pull`]
    Pull(PullId),
}

/// What comes to the loop.
pub(super) enum Input {
    /// Something for the sync machine.
    Event(Event),
    /// Work of the repository ended, well or not.
    Ended(Work, bool),
    /// A link is up, and this is who is there.
    Up(LinkUp, Member),
    /// A message of a peer, and its place among those that wait.
    Message(LinkId, Wire, OwnedSemaphorePermit),
    /// Our own holdings have moved.
    Holdings(Positions),
}

/// Runs until the node stops.
pub(super) async fn run(shared: Arc<Shared>, mut sync: Sync, mut inputs: mpsc::Receiver<Input>) {
    let mut first = vec![Event::Wake];
    if shared.filesystem.status().uncommitted > 0 {
        first.push(Event::LocalChanges);
    }
    for event in first {
        handle(&shared, &mut sync, event);
    }
    loop {
        let input = tokio::select! {
            () = shared.stop.cancelled() => return,
            () = wake(&shared, &sync) => Some(Input::Event(Event::Wake)),
            () = shared.pending.notified() => Some(Input::Event(Event::LocalChanges)),
            input = inputs.recv() => input,
        };
        let Some(input) = input else { return };
        if let Some(event) = take(&shared, input) {
            handle(&shared, &mut sync, event);
        }
    }
}

async fn wake(shared: &Shared, sync: &Sync) {
    match sync.wake_at() {
        Some(at) => tokio::time::sleep_until(Instant::from_std(shared.started + at)).await,
        None => std::future::pending().await,
    }
}

fn handle(shared: &Arc<Shared>, sync: &mut Sync, event: Event) {
    let now: Now = shared.started.elapsed();
    for effect in sync.handle(event, now) {
        carry_out(shared, effect);
    }
}

/// Makes an event of an input, if it is one for the sync machine.
fn take(shared: &Arc<Shared>, input: Input) -> Option<Event> {
    match input {
        Input::Event(event) => Some(event),
        Input::Ended(work, well) => Some(ended(shared, work, well)),
        Input::Up(up, member) => {
            lock(&shared.members).met(up.peer, member);
            gossip::introduce(shared, up.link, up.peer);
            Some(Event::LinkUp(up))
        }
        Input::Message(link, Wire::Rests(words), place) => {
            rests::heard(shared, link, words, place);
            Some(Event::Heard { link })
        }
        Input::Message(link, message, _place) => received(shared, link, message),
        Input::Holdings(positions) => Some(Event::HoldingsChanged(positions)),
    }
}

fn ended(shared: &Shared, work: Work, well: bool) -> Event {
    let outcome = match shared.repository.authors() {
        Ok(authors) if well => Outcome::Done(authors),
        Ok(_) => Outcome::Failed,
        Err(error) => {
            tracing::error!("cannot read the names' heads: {error}");
            Outcome::Failed
        }
    };
    match work {
        Work::Commit => Event::CommitFinished(outcome),
        Work::Rebase => Event::RebaseFinished(outcome),
        Work::Pull(pull) => Event::PullFinished { pull, outcome },
    }
}

fn received(shared: &Arc<Shared>, link: LinkId, message: Wire) -> Option<Event> {
    let peer = shared.links.get(link)?.peer;
    let message = match message {
        Wire::Heads(heads) => {
            if heads.is_empty() {
                shared.no_names.cancel();
            }
            Message::Heads(heads)
        }
        Wire::HoldingsHave(positions) => Message::Holdings(of_members(shared, positions)),
        Wire::Peers(peers) => Message::Peers(peers.into_iter().flat_map(addresses).collect()),
        Wire::HoldingsWanted {
            incarnation,
            wanted,
        } => {
            answer_holdings(shared, link, incarnation, &wanted);
            return Some(Event::Heard { link });
        }
        Wire::Holdings { incarnation, bytes } => {
            return Some(take_holdings(shared, link, incarnation, &bytes));
        }
        other => {
            heard(shared, peer, other);
            return Some(Event::Heard { link });
        }
    };
    Some(Event::Received { link, message })
}

/// Logs of incarnations that nobody is are not asked for: a member could make as many of them as it likes.
fn of_members(shared: &Shared, positions: Vec<(IncarnationId, u64)>) -> Positions {
    let members = lock(&shared.members).incarnations();
    let is_known = |incarnation: IncarnationId| {
        members.contains(&incarnation)
            || incarnation == shared.incarnation()
            || shared.replica.has_log(incarnation)
    };
    let known = positions.into_iter().filter(|(log, _)| is_known(*log));
    known.collect()
}

fn addresses(peer: PeerAddresses) -> impl Iterator<Item = PeerAddress> {
    let node = peer.node;
    peer.addresses
        .into_iter()
        .map(move |address| PeerAddress { node, address })
}

/// Messages that ask for no decision of the sync machine.
fn heard(shared: &Arc<Shared>, peer: NodeId, message: Wire) {
    match message {
        Wire::Space { capacity, free } => {
            lock(&shared.members).has_room(peer, capacity, free);
            shared.replica.room_changed();
        }
        Wire::PleaseHold(contents) => asked_to_hold(shared, contents),
        Wire::Members(members) => gossip::heard(shared, members),
        Wire::Goodbye { reason } => tracing::debug!("node {peer} says goodbye: {reason}"),
        Wire::Problem { text } => {
            let sentence = format!("{} reports a problem: {text:?}", label(shared, peer));
            shared.complaints.tell(peer, "problem", &sentence);
        }
        Wire::Damaged { content, piece } => {
            let sentence = format!(
                "{} says that a piece of {content} from this disk is wrong; it is checked",
                label(shared, peer)
            );
            shared.complaints.tell(peer, "damaged", &sentence);
            if lock(&shared.doubts).take(peer, shared.started.elapsed()) {
                shared.replica.scrub.suspect(content, Some(piece));
            }
        }
        Wire::Available(contents) => contents
            .iter()
            .for_each(|content| shared.replica.peers_changed(content)),
        // heartbeats have done their work by arriving
        Wire::Ping(_) | Wire::Pong(_) => {}
        // hints that nothing is made of yet
        Wire::Fetching(_) => {}
        // taken before
        Wire::Hello(_)
        | Wire::Heads(_)
        | Wire::HoldingsHave(_)
        | Wire::HoldingsWanted { .. }
        | Wire::Holdings { .. }
        | Wire::Rests(_)
        | Wire::Peers(_) => {}
    }
}

/// Who asks for more than there is room for knows too little of the room. Contents without a name are nobody's to ask for;
/// once they have one, they are looked at by themselves.
fn asked_to_hold(shared: &Shared, contents: Vec<InfoHash>) {
    if !shared.replica.asked_to_hold(contents) {
        super::upkeep::tell_room(shared);
    }
}

fn answer_holdings(shared: &Shared, link: LinkId, incarnation: IncarnationId, wanted: &Wanted) {
    if let Some(bytes) = shared.replica.holdings_answer(incarnation, wanted) {
        let bytes = bytes.into();
        shared
            .links
            .send(link, &Wire::Holdings { incarnation, bytes });
    }
}

fn take_holdings(shared: &Shared, link: LinkId, incarnation: IncarnationId, bytes: &[u8]) -> Event {
    if !shared.replica.has_log(incarnation) {
        let members = lock(&shared.members).incarnations();
        if !members.contains(&incarnation) {
            // not asked for, or no member any more
            return Event::Heard { link };
        }
        shared.replica.make_room_for_logs(&members);
    }
    let (position, brought, ended) = shared.replica.take_holdings(incarnation, bytes);
    if let (Err(error), Some(up)) = (ended, shared.links.get(link)) {
        let teller = label(shared, up.peer);
        let sentence =
            format!("{teller} sends holdings of {incarnation} that cannot be taken: {error}");
        shared.complaints.tell(up.peer, "holdings", &sentence);
    }
    if let Some(heard) = brought.ahead {
        shared.heard.send_if_modified(|known| {
            let is_news = *known < heard;
            *known = heard.max(*known);
            is_news
        });
    }
    Event::BatchApplied {
        link,
        incarnation,
        position,
        progressed: brought.progressed,
    }
}

fn carry_out(shared: &Arc<Shared>, effect: Effect) {
    match effect {
        Effect::Commit => names::spawn(shared, Work::Commit, names::commit),
        Effect::Rebase => names::spawn(shared, Work::Rebase, names::rebase),
        Effect::Pull { pull, link, .. } => names::pull(shared, pull, link),
        Effect::Send { link, message } => send(shared, link, message),
        Effect::AskHoldings { link, incarnation } => {
            let question = Wire::HoldingsWanted {
                incarnation,
                wanted: shared.replica.holdings_wanted(incarnation),
            };
            shared.links.send(link, &question);
        }
        Effect::Dial { address } => links::dial(shared, address),
        Effect::Disconnect { link, reason } => disconnect(shared, link, reason),
        Effect::Connected { peer } => {
            tracing::info!("found {}", label(shared, peer));
            shared.replica.cluster_changed();
        }
        Effect::Lost { peer } => {
            tracing::info!("lost {}", label(shared, peer));
            lock(&shared.members).lost(peer, unix_time());
            shared.members_changed.notify_one();
            shared.replica.cluster_changed();
        }
        Effect::SuspectIdentity { peer, evidence } => names::suspect(shared, peer, evidence),
    }
}

fn send(shared: &Shared, link: LinkId, message: Message) {
    let message = match message {
        Message::Heads(heads) => Wire::Heads(heads),
        Message::Holdings(positions) => Wire::HoldingsHave(positions.into_iter().collect()),
        Message::Peers(peers) => {
            let alone = |peer: PeerAddress| PeerAddresses {
                node: peer.node,
                addresses: vec![peer.address],
            };
            Wire::Peers(peers.into_iter().map(alone).collect())
        }
        Message::Ping => Wire::Ping(0),
        Message::Pong => Wire::Pong(0),
    };
    shared.links.send(link, &message);
}

fn disconnect(shared: &Shared, link: LinkId, reason: Reason) {
    if let (Reason::Silent, Some(up)) = (reason, shared.links.get(link)) {
        tracing::info!("{} does not answer any more", label(shared, up.peer));
    }
    shared.links.close(link);
}

/// How people call a node.
pub(super) fn label(shared: &Shared, node: NodeId) -> String {
    let known = lock(&shared.members)
        .get(node)
        .map(|member| member.label.clone());
    known.unwrap_or_else(|| node.to_string())
}
