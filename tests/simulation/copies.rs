//! Copies of contents: the real plan and the real stores; only the swarm between them is a single step.

use crate::node::{Node, node_id};
use crate::world::World;
use delugefs_core::entry::ContentRef;
use delugefs_core::ids::{InfoHash, NodeId};
use delugefs_core::plan::{Cluster, Decision, NodeFacts, Presence, Subject};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a node that is not connected counts as away: within the volume's grace.
const AWAY: Duration = Duration::from_secs(3600);

const ROOM: u64 = 1 << 40;

impl World {
    /// Each content of the view is on as many disks as it should be, if it was not lost with one.
    pub(crate) fn check_copies(&self) {
        let parts = self.nodes[0].parts();
        let copies = parts.settings().copies as usize;
        for content in parts.replica.contents() {
            let is_there = |node: &&Node| node.parts().is_complete(&content.info_hash);
            let count = self.nodes.iter().filter(is_there).count();
            // who had it has overwritten it and waited for `keep`; elsewhere it had become a conflict copy meanwhile
            let is_over = || {
                let bytes = self.archive.get(&content.info_hash);
                bytes.is_some_and(|bytes| self.versions.is_over(&bytes))
            };
            let is_lost = count == 0 && (self.lost.contains(&content.info_hash) || is_over());
            assert!(
                is_lost || count >= copies.min(self.nodes.len()),
                "{} is on {count} disks",
                content.info_hash
            );
        }
    }

    /// Fetches what the plan says this node should hold.
    pub(crate) fn copy_contents(&mut self, number: usize) {
        if self.is_full(number) {
            return;
        }
        let replica = &self.nodes[number].parts().replica;
        let subjects = replica.take_subjects();
        let contents: Vec<ContentRef> = if subjects.all {
            replica.contents()
        } else {
            let all = replica.contents().into_iter();
            all.filter(|content| subjects.some.contains(&content.info_hash))
                .collect()
        };
        if contents.is_empty() {
            return;
        }
        let facts = self.facts(number);
        let settings = self.nodes[number].parts().settings();
        let cluster = Cluster {
            settings: &settings,
            nodes: &facts,
        };
        let mut sorted = contents;
        sorted.sort_unstable_by_key(|content| content.info_hash);
        for content in sorted {
            let holders = self.holders(number, &cluster, &content.info_hash);
            let subject = Subject {
                content,
                holders: &holders,
                declined: &BTreeSet::new(),
            };
            match cluster.decide(node_id(number), &subject) {
                Decision::Hold => self.fetch(number, &content.info_hash),
                Decision::AskOthers(nodes) => self.ask_others(&nodes, content.info_hash),
                Decision::Leave => {}
            }
        }
    }

    fn ask_others(&self, nodes: &[NodeId], content: InfoHash) {
        for node in &self.nodes {
            if nodes.contains(&node_id(node.number)) && node.is_running() {
                node.parts().replica.asked_to_hold(vec![content]);
            }
        }
    }

    fn holders(
        &self,
        number: usize,
        cluster: &Cluster<'_>,
        content: &InfoHash,
    ) -> BTreeSet<NodeId> {
        let parts = self.nodes[number].parts();
        let mut holders = cluster.nodes_of(parts.replica.holders(content).into_iter());
        if parts.is_complete(content) {
            holders.insert(node_id(number));
        }
        holders
    }

    fn facts(&self, number: usize) -> BTreeMap<NodeId, NodeFacts> {
        let running = self.nodes[number].running.as_ref();
        let connected: BTreeSet<_> = running
            .map(|running| running.sync.connected().collect())
            .unwrap_or_default();
        let facts = |number: usize, is_here: bool| {
            let node = node_id(number);
            let is_near = is_here || connected.contains(&node);
            let facts = NodeFacts {
                incarnation: self.nodes[number].incarnation(),
                site: String::new(),
                presence: match is_near {
                    true => Presence::Connected,
                    false => Presence::Away(AWAY),
                },
                free: ROOM,
                capacity: ROOM,
                retired: false,
            };
            (node, facts)
        };
        (0..self.nodes.len())
            .map(|other| facts(other, other == number))
            .collect()
    }

    /// Whoever is connected to this node, and has all of a content.
    pub(crate) fn source(&self, number: usize, content: &InfoHash) -> Option<usize> {
        (0..self.nodes.len()).find(|other| {
            self.reaches(number, *other) && self.nodes[*other].parts().is_complete(content)
        })
    }

    fn fetch(&mut self, number: usize, content: &InfoHash) {
        let Some(source) = self.source(number, content) else {
            self.nodes[number]
                .parts()
                .replica
                .look_at([*content].into_iter());
            return;
        };
        let path = self.nodes[source].parts().replica.store.path(content);
        let bytes = std::fs::read(path).unwrap();
        let replica = &self.nodes[number].parts().replica;
        let Some(info) = replica.info(content).unwrap() else {
            return;
        };
        let partial = replica.store.begin(&info).unwrap();
        for piece in 0..info.piece_count() {
            let range = info.piece_range(piece).expect("a piece of it");
            let piece_bytes = &bytes[range.start as usize..range.end as usize];
            partial.write_piece(piece, piece_bytes).unwrap();
        }
        partial.finish().unwrap();
        replica.completed(*content, self.nodes[number].source.seconds());
        self.counts.copies += 1;
        self.log(|| format!("{number} has copied {content} from {source}"));
    }
}
