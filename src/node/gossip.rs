//! What nodes tell each other of third ones, so that a disk in a drawer is known by its label also to nodes that
//! have never met it, and counts as away only when nobody has a link to it.
//!
//! A new link is told of everyone; news (a new node, another incarnation, label or site) go on to all; times are
//! refreshed now and then. Only news go on, and only what was seen later is believed, so it comes to an end.

use super::members::Member;
use super::shared::{Shared, unix_time};
use crate::link::Message;
use crate::link::codec::MEMBERS_MAX;
use crate::link::message::MemberFacts;
use crate::sync_ext::lock;
use delugefs_core::ids::NodeId;
use delugefs_core::sync::LinkId;

/// Tells a new peer of all others, and all others of it.
pub(super) fn introduce(shared: &Shared, link: LinkId, peer: NodeId) {
    let (mut others, now) = (facts(shared), unix_time());
    others.retain(|member| member.node != peer);
    for part in others.chunks(MEMBERS_MAX) {
        shared.links.send(link, &Message::Members(part.to_vec()));
    }
    let new = lock(&shared.members)
        .get(peer)
        .map(|member| tell(peer, member, now));
    shared
        .links
        .broadcast(&Message::Members(new.into_iter().collect()));
    shared.members_changed.notify_one();
}

/// Tells all peers of all members.
pub(super) fn tell_all(shared: &Shared) {
    for part in facts(shared).chunks(MEMBERS_MAX) {
        shared.links.broadcast(&Message::Members(part.to_vec()));
    }
}

/// A peer has told of others.
pub(super) fn heard(shared: &Shared, told: Vec<MemberFacts>) {
    let now = unix_time();
    let mut members = lock(&shared.members);
    let is_news = |facts: &MemberFacts| {
        facts.node != shared.node() && members.told(facts.node, take(facts, now))
    };
    let news: Vec<_> = told.into_iter().filter(is_news).collect();
    if !news.is_empty() {
        shared.links.broadcast(&Message::Members(news));
        shared.members_changed.notify_one();
        shared.replica.look_at_all();
    }
}

fn facts(shared: &Shared) -> Vec<MemberFacts> {
    let now = unix_time();
    let members = lock(&shared.members);
    members
        .iter()
        .map(|(node, member)| tell(node, member, now))
        .collect()
}

fn tell(node: NodeId, member: &Member, now: u64) -> MemberFacts {
    MemberFacts {
        node,
        incarnation: member.incarnation,
        label: member.label.clone(),
        site: member.site.clone(),
        capacity: member.capacity,
        free: member.free,
        away: member.away(now).as_secs(),
    }
}

fn take(facts: &MemberFacts, now: u64) -> Member {
    Member {
        incarnation: facts.incarnation,
        label: facts.label.clone(),
        site: facts.site.clone(),
        capacity: facts.capacity,
        free: facts.free,
        seen: now.saturating_sub(facts.away),
        address: None,
        met: false,
    }
}
