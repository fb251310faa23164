//! Disks that are put back to a copy of them: the node finds out by what others have seen of it, and goes on as another
//! incarnation. What it did in the meantime, on either side, is not lost.

use crate::disk::{self, Image};
use crate::node::{Identity, Node};
use crate::oracle::Memory;
use crate::world::World;
use delugefs::node::moving;
use delugefs_core::ids::NodeId;
use delugefs_core::sync::{Event, Evidence};
use delugefs_metadata_repo::exchange::{Refusal, Refused};

/// A copy of a disk.
pub(crate) struct Backup {
    image: Image,
    identity: Identity,
    /// What its users know to be on it.
    memory: Memory,
}

impl Node {
    /// Takes an identity that it never had.
    pub(crate) fn begin_anew(&mut self, continues: Option<u8>) {
        self.identities += 1;
        self.identity = Identity {
            serial: self.identities,
            continues,
            is_restored: false,
        };
    }
}

impl World {
    pub(crate) fn back_up(&mut self, number: usize) {
        if !self.nodes[number].root.exists() {
            return;
        }
        let memory = self.versions.memory(number);
        let node = &mut self.nodes[number];
        node.backup = Some(Backup {
            image: disk::copy(&node.root),
            identity: node.identity,
            memory,
        });
    }

    pub(crate) fn restore(&mut self, number: usize) {
        // in folders of their own nothing is in conflict; here, a node is with itself
        if self.is_apart || !self.nodes[number].is_running() {
            return;
        }
        let Some(backup) = self.nodes[number].backup.take() else {
            return;
        };
        self.kill(number);
        self.counts.restores += 1;
        let node = &mut self.nodes[number];
        backup.image.restore(&node.root);
        node.identity = Identity {
            is_restored: true,
            ..backup.identity
        };
        node.is_adrift = true;
        self.versions.disk_is(number, &backup.memory);
        self.note_lost();
    }

    /// Others know a head of this disk that it does not know: only if it was restored. If that is so is found by a pull.
    pub(crate) fn suspect(&mut self, number: usize, peer: NodeId, evidence: Evidence) {
        let Evidence::Head(head) = evidence;
        let node = &self.nodes[number];
        if !node.parts().repository.is_known(head).unwrap() {
            // or history is cut here, and others still have what lies below
            let is_excused = node.identity.is_restored || self.past.is_some();
            assert!(is_excused, "{number} does not know {head}");
            self.ask(number, peer, None);
        }
    }

    /// Others have heard more of what this disk holds than it has said: it says so anew.
    pub(crate) fn leap(&mut self, number: usize, heard: u64) {
        let node = &self.nodes[number];
        assert!(node.identity.is_restored, "{number} has said more: {heard}");
        let replica = &node.parts().replica;
        if replica.leap(heard) {
            let positions = replica.positions();
            self.handle(number, Event::HoldingsChanged(positions));
        }
    }

    /// The node has found out that it was restored: it ends, and goes on as another incarnation.
    pub(crate) fn falls_behind(&mut self, number: usize) {
        self.log(|| format!("{number} finds out that it was restored"));
        self.counts.renewals += 1;
        self.kill(number);
        let node = &mut self.nodes[number];
        let before = node.identity;
        assert!(
            before.is_restored,
            "{number} is behind, but nobody knows why"
        );
        node.begin_anew(Some(before.serial));
    }

    /// Nobody lies here: what is refused is one side of what a restored node did twice.
    pub(crate) fn witness(&mut self, number: usize, refused: Vec<Refused>) {
        for refused in refused {
            let is_double = self.counts.restores > 0;
            if refused.why == Refusal::BesideCut && self.past.is_some() {
                continue;
            }
            let Refusal::Forked { ours, .. } = refused.why else {
                panic!("{number} refuses {refused}");
            };
            let is_double = is_double || self.counts.imports > 0;
            assert!(
                is_double,
                "{number} refuses {refused}, and no disk was restored"
            );
            self.goes_to_work(number);
            if moving::witness(self.nodes[number].parts(), ours).unwrap() {
                self.counts.commits += 1;
                if self.has_crashed(number) {
                    return;
                }
                self.see(number);
                self.handle(number, Event::LocalChanges);
            }
            self.settle(number);
        }
    }
}
