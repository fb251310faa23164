//! Who shall hold a content: a pure function of facts that all nodes share sooner or later.
//!
//! No node commands another. Each runs [`Cluster::decide`] over the same facts and so comes to the same takers; a node
//! whose facts are older is asked by a holder. Takers are chosen by weighted rendezvous hashing: each node's
//! draw depends on content and node alone, scaled by its free space, so a node that comes or goes moves only
//! the contents that concern it, and space fills in proportion.
//!
//! A node that is away counts as a holder for the volume's grace, and no longer; content is never dropped to
//! make that so. Copies beyond the number asked for (a holder came back, two nodes took at once) are left where
//! they are: dropping them safely needs agreement on who drops, which this module does not attempt.

use crate::entry::ContentRef;
use crate::ids::{IncarnationId, InfoHash, NodeId};
use crate::settings::Settings;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Bytes of free space that weigh as one: differences below this are noise.
pub const WEIGHT_UNIT_BYTES: u64 = 1 << 26;

/// Whether a node can be reached from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// There is a link to it, or it is this node.
    Connected,
    /// No link, for so long.
    Away(Duration),
}

/// What is known of one node. Storage nodes and nodes with a mount count alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Whose holdings log speaks for the node now; logs of its earlier incarnations say nothing.
    pub incarnation: IncarnationId,
    /// Where it stands (`--site`); nodes with equal text share a fate. Empty is a site like any other.
    pub site: String,
    /// Whether it can be reached.
    pub presence: Presence,
    /// Bytes it can still take: within its capacity, less its reserve and what it is fetching already.
    pub free: u64,
    /// Most bytes it will hold.
    pub capacity: u64,
    /// Unseen for so long, or told to be so, that it is not expected back.
    pub retired: bool,
}

impl NodeFacts {
    fn is_connected(&self) -> bool {
        !self.retired && self.presence == Presence::Connected
    }

    fn counts(&self, grace: Duration) -> bool {
        let is_near = match self.presence {
            Presence::Connected => true,
            Presence::Away(time) => time <= grace,
        };
        !self.retired && is_near
    }
}

/// What a decision about any content goes by.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// Number of copies, and the grace.
    pub settings: &'a Settings,
    /// Every node ever heard of, this one among them.
    pub nodes: &'a BTreeMap<NodeId, NodeFacts>,
}

/// One content and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its name and length.
    pub content: ContentRef,
    /// The nodes that hold it whole; see [`Cluster::nodes_of`].
    pub holders: &'a BTreeSet<NodeId>,
    /// Nodes that declined it or failed to fetch it, as long as the caller remembers: they are passed over.
    pub declined: &'a BTreeSet<NodeId>,
}

/// How a content stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// Holders that count.
    pub copies: u32,
    /// Copies that are missing.
    pub missing: u32,
    /// Who should take one each, best first. Fewer than `missing` when there is no room; none while no
    /// holder is connected.
    pub takers: Vec<NodeId>,
}

/// What this node shall do about a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Fetch it and keep it.
    Hold,
    /// Nothing.
    Leave,
    /// Ask these to hold it: they should come to that by themselves, but may know less.
    AskOthers(Vec<NodeId>),
}

impl Cluster<'_> {
    /// The nodes behind some incarnations; those that are no node's current one are left out.
    pub fn nodes_of(&self, holders: impl Iterator<Item = IncarnationId>) -> BTreeSet<NodeId> {
        let holders: BTreeSet<_> = holders.collect();
        let nodes = self.nodes.iter();
        nodes
            .filter(|(_, facts)| holders.contains(&facts.incarnation))
            .map(|(node, _)| *node)
            .collect()
    }

    /// When the answers change by the passing of time alone: the next node's grace runs out.
    pub fn next_change(&self) -> Option<Duration> {
        let grace = self.settings.grace;
        let rest = |facts: &NodeFacts| match facts.presence {
            Presence::Away(time) if !facts.retired => grace.checked_sub(time),
            _ => None,
        };
        self.nodes.values().filter_map(rest).min()
    }

    /// How a content stands and who should take it.
    pub fn assess(&self, subject: &Subject<'_>) -> Assessment {
        let grace = self.settings.grace;
        let facts = subject.holders.iter().filter_map(|id| self.nodes.get(id));
        let counting: Vec<_> = facts.filter(|facts| facts.counts(grace)).collect();
        let copies = u32::try_from(counting.len()).unwrap_or(u32::MAX);
        let missing = self.settings.copies.saturating_sub(copies);
        let takers = if missing > 0 && counting.iter().any(|facts| facts.is_connected()) {
            let sites = counting.iter().map(|facts| facts.site.as_str()).collect();
            self.takers(subject, missing, sites)
        } else {
            Vec::new()
        };
        Assessment {
            copies,
            missing,
            takers,
        }
    }

    /// What `me` shall do about a content.
    pub fn decide(&self, me: NodeId, subject: &Subject<'_>) -> Decision {
        let takers = self.assess(subject).takers;
        if takers.contains(&me) {
            return Decision::Hold;
        }
        let is_connected =
            |node: &&NodeId| self.nodes.get(node).is_some_and(NodeFacts::is_connected);
        // One voice is enough, and every node agrees whose.
        if takers.is_empty() || subject.holders.iter().find(is_connected) != Some(&me) {
            return Decision::Leave;
        }
        Decision::AskOthers(takers)
    }

    fn takers<'b>(
        &'b self,
        subject: &Subject<'_>,
        missing: u32,
        mut sites: BTreeSet<&'b str>,
    ) -> Vec<NodeId> {
        let mut candidates: Vec<(Draw, NodeId, &str)> = self
            .nodes
            .iter()
            .filter(|(node, facts)| {
                facts.is_connected()
                    && facts.free >= subject.content.length
                    && !subject.holders.contains(node)
                    && !subject.declined.contains(node)
            })
            .map(|(node, facts)| {
                let draw = draw(&subject.content.info_hash, node, facts.free);
                (draw, *node, facts.site.as_str())
            })
            .collect();
        candidates.sort_unstable();
        let mut takers = Vec::new();
        while takers.len() < missing as usize && !candidates.is_empty() {
            let elsewhere = candidates.iter().position(|c| !sites.contains(c.2));
            let (_, node, site) = candidates.remove(elsewhere.unwrap_or(0));
            sites.insert(site);
            takers.push(node);
        }
        takers
    }
}

/// A node's draw for a content; the smallest wins.
type Draw = u128;

/// Exponentially distributed with the weight as rate, so that the chance to win is in proportion to it. All in
/// integers: floating point logarithms differ between machines.
fn draw(content: &InfoHash, node: &NodeId, free: u64) -> Draw {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content.as_bytes());
    hasher.update(node.as_bytes());
    let mut chance = [0; 8];
    chance.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let distance = minus_log2(u64::from_le_bytes(chance));
    (u128::from(distance) << 64) / u128::from(weight(free))
}

/// Free space, coarsely: nodes hear of each other's space at different times, and should agree nevertheless.
/// Three significant bits, so less than a fifth is cut off.
fn weight(free: u64) -> u64 {
    let units = (free / WEIGHT_UNIT_BYTES).max(1);
    let shift = units.ilog2().saturating_sub(2);
    units >> shift << shift
}

/// -log2 of `chance` / 2^64, with 32 bits behind the point.
fn minus_log2(chance: u64) -> u64 {
    let chance = chance | 1;
    let whole = chance.ilog2();
    let mut mantissa = chance << (63 - whole);
    let mut log = u64::from(whole) << 32;
    for bit in (0..32).rev() {
        // mantissa is in [1, 2) with 63 bits behind the point; its square tells the next bit.
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        if square >> 64 == 0 {
            mantissa = square as u64;
        } else {
            mantissa = (square >> 1) as u64;
            log |= 1 << bit;
        }
    }
    (64 << 32) - log
}

/// Contents in the order in which a node should take them: the rarest first, then by name, so that a node that
/// is cut off early has done what mattered most.
pub fn by_need(mut short: Vec<(ContentRef, Assessment)>) -> Vec<ContentRef> {
    short.sort_by_key(|(content, state)| (state.copies, Reverse(state.missing), content.info_hash));
    short.into_iter().map(|(content, _)| content).collect()
}

#[cfg(test)]
mod tests;
