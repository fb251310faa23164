//! The nodes of the volume that this one has ever met, kept across restarts: for the plan's facts, for messages,
//! and so that a disk in a drawer is still known by its label.
//!
//! Owns the file `holdings/nodes.json`. What is lost of it in a crash is learned again at the next meeting.

use delugefs_core::ids::{IncarnationId, NodeId};
use delugefs_core::plan::{NodeFacts, Presence};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Version of the file.
const FORMAT: u32 = 2;

/// Nodes remembered; beyond it, new ones are used while connected and then forgotten.
const MEMBERS_MAX: usize = delugefs_core::limits::INCARNATIONS_MAX;

/// Nodes remembered because others told of them: a peer can invent them, and there must be room for those that come.
const TOLD_MAX: usize = MEMBERS_MAX / 4;

/// For so long after its start, a node misses nobody: those that are up find each other in less, and what it has
/// missed while it was off says nothing about others.
const SETTLE: Duration = Duration::from_secs(30);

/// A node of the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its present incarnation.
    pub incarnation: IncarnationId,
    /// Its label.
    pub label: String,
    /// Its site.
    pub site: String,
    /// Most bytes it will hold.
    pub capacity: u64,
    /// Bytes it can still take.
    pub free: u64,
    /// When it was last connected, in seconds since 1970.
    pub seen: u64,
    /// Where it takes connections, while connected.
    pub address: Option<SocketAddr>,
    /// It has proved to be there, to this node.
    pub met: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    node: String,
    incarnation: String,
    label: String,
    site: String,
    capacity: u64,
    free: u64,
    seen: u64,
    met: bool,
}

#[derive(Serialize, Deserialize)]
struct StoredFile {
    format: u32,
    nodes: Vec<Stored>,
}

fn parse(text: &[u8]) -> Result<Vec<Stored>, String> {
    let file: StoredFile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    match file.format {
        FORMAT => Ok(file.nodes),
        other => Err(format!("it has format {other}, and not {FORMAT}")),
    }
}

/// All of them, without this node itself.
#[derive(Debug)]
pub struct Members {
    path: PathBuf,
    members: BTreeMap<NodeId, Member>,
}

impl Members {
    /// Reads the file in a root's `holdings`; a damaged one is as good as none.
    pub fn open(holdings: &std::path::Path) -> io::Result<Self> {
        let path = holdings.join("nodes.json");
        let stored = match std::fs::read(&path) {
            Ok(text) => parse(&text).unwrap_or_else(|why| {
                let path = path.display();
                tracing::warn!("{path} is damaged ({why}); nodes will be met anew");
                Vec::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let members = stored.into_iter().filter_map(Stored::into_member).collect();
        Ok(Self { path, members })
    }

    /// Writes the file, at a time in seconds since 1970: who is connected was seen at that time.
    pub fn store(&self, now: u64) -> io::Result<()> {
        let all = self.members.iter().take(MEMBERS_MAX);
        let nodes = all.map(|(node, member)| Stored::new(node, member, now));
        let stored = StoredFile {
            format: FORMAT,
            nodes: nodes.collect(),
        };
        crate::durable::replace(&self.path, &serde_json::to_vec_pretty(&stored)?)
    }

    /// A node has introduced itself. Where there are too many, one that was only told of makes room.
    pub fn met(&mut self, node: NodeId, member: Member) {
        let member = member.plain();
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&node) {
            let told = self.members.iter().find(|(_, member)| !member.met);
            if let Some(told) = told.map(|(node, _)| *node) {
                self.members.remove(&told);
            }
        }
        self.members.insert(node, member);
    }

    /// Another node has told of this one. It is believed where it was connected later than this node was, so never
    /// about who is connected here. Answers whether that is worth telling others.
    pub fn told(&mut self, node: NodeId, member: Member) -> bool {
        let member = member.plain();
        match self.members.get_mut(&node) {
            Some(known) if known.address.is_some() || known.seen >= member.seen => false,
            Some(known) => {
                let is_news = (known.incarnation, &known.label, &known.site)
                    != (member.incarnation, &member.label, &member.site);
                let met = known.met;
                *known = Member { met, ..member };
                is_news
            }
            None => {
                let has_room = !self.is_full_of_told();
                if has_room {
                    self.members.insert(node, member);
                }
                has_room
            }
        }
    }

    fn is_full_of_told(&self) -> bool {
        let told = self.members.values().filter(|member| !member.met);
        self.members.len() >= MEMBERS_MAX || told.count() >= TOLD_MAX
    }

    /// A node has told how much room it has.
    pub fn has_room(&mut self, node: NodeId, capacity: u64, free: u64) {
        if let Some(member) = self.members.get_mut(&node) {
            (member.capacity, member.free) = (capacity, free);
        }
    }

    /// A node is no longer connected.
    pub fn lost(&mut self, node: NodeId, now: u64) {
        if self.members.len() > MEMBERS_MAX {
            self.members.remove(&node);
        }
        if let Some(member) = self.members.get_mut(&node) {
            member.seen = now;
            member.address = None;
        }
    }

    /// A node.
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// The node behind an incarnation.
    pub fn by_incarnation(&self, incarnation: IncarnationId) -> Option<(NodeId, &Member)> {
        let mut all = self.iter();
        all.find(|(_, member)| member.incarnation == incarnation)
    }

    /// The present incarnations.
    pub fn incarnations(&self) -> BTreeSet<IncarnationId> {
        self.iter().map(|(_, member)| member.incarnation).collect()
    }

    /// The present incarnations of those who are expected back.
    pub fn expected(&self, now: u64, retire: Duration) -> BTreeSet<IncarnationId> {
        let expected = self.iter();
        let expected = expected.filter(|(_, member)| !member.is_retired(now, retire));
        expected.map(|(_, member)| member.incarnation).collect()
    }

    /// All, in id order.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(node, member)| (*node, member))
    }

    /// What the plan goes by, at a time in seconds since 1970, this node having run for `up`; who has been away for
    /// longer than `retire` is not expected back.
    pub fn facts(&self, now: u64, up: Duration, retire: Duration) -> BTreeMap<NodeId, NodeFacts> {
        self.iter()
            .map(|(node, member)| (node, member.facts(now, up, retire)))
            .collect()
    }
}

impl Member {
    /// Without what would write lines of its own into a log, or play with a terminal.
    fn plain(mut self) -> Self {
        for text in [&mut self.label, &mut self.site] {
            *text = text.replace(char::is_control, "-");
        }
        self
    }

    /// For how long nobody has had a link to it, as far as this node has heard.
    pub fn away(&self, now: u64) -> Duration {
        match self.address {
            Some(_) => Duration::ZERO,
            None => Duration::from_secs(now.saturating_sub(self.seen)),
        }
    }

    fn is_retired(&self, now: u64, retire: Duration) -> bool {
        self.away(now) > retire
    }

    fn facts(&self, now: u64, up: Duration, retire: Duration) -> NodeFacts {
        let mut away = self.away(now);
        if up < SETTLE {
            away = away.min(up);
        }
        NodeFacts {
            incarnation: self.incarnation,
            site: self.site.clone(),
            presence: match self.address {
                Some(_) => Presence::Connected,
                None => Presence::Away(away),
            },
            free: self.free,
            capacity: self.capacity,
            retired: self.is_retired(now, retire),
        }
    }
}

impl Stored {
    fn new(node: &NodeId, member: &Member, now: u64) -> Self {
        Self {
            node: node.to_string(),
            incarnation: member.incarnation.to_string(),
            label: member.label.clone(),
            site: member.site.clone(),
            capacity: member.capacity,
            free: member.free,
            seen: match member.address {
                Some(_) => now,
                None => member.seen,
            },
            met: member.met,
        }
    }

    fn into_member(self) -> Option<(NodeId, Member)> {
        let member = Member {
            incarnation: self.incarnation.parse().ok()?,
            label: self.label,
            site: self.site,
            capacity: self.capacity,
            free: self.free,
            seen: self.seen,
            address: None,
            met: self.met,
        };
        Some((self.node.parse().ok()?, member))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);
    const RETIRE: Duration = Duration::from_hours(180 * 24);

    fn member(seen: u64) -> Member {
        Member {
            incarnation: IncarnationId::new([4; 16]),
            label: "server2:/disk".to_owned(),
            site: "attic".to_owned(),
            capacity: 1000,
            free: 10,
            seen,
            address: None,
            met: false,
        }
    }

    fn connected() -> Member {
        Member {
            address: Some("127.0.0.1:7".parse().unwrap()),
            met: true,
            ..member(5000)
        }
    }

    const NODE: NodeId = NodeId::new([3; 16]);

    #[test]
    fn who_was_met_is_known_after_a_restart_and_away_since_then() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        members.met(NODE, connected());
        assert_eq!(
            members.facts(9000, LONG, RETIRE)[&NODE].presence,
            Presence::Connected
        );
        members.lost(NODE, 6000);
        members.store(6001).unwrap();
        let members = Members::open(folder.path()).unwrap();
        let facts = &members.facts(6060, LONG, RETIRE)[&NODE];
        assert_eq!(facts.presence, Presence::Away(Duration::from_mins(1)));
        assert!(!facts.retired);
        assert!(members.facts(6000 + 181 * 86_400, LONG, RETIRE)[&NODE].retired);
    }

    /// The bytes of an older version may be the last that anyone gets, where only such a disk holds the newer ones.
    #[test]
    fn who_is_retired_is_not_counted_on_to_hold_anything() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        members.met(NODE, connected());
        let expected = BTreeSet::from([connected().incarnation]);
        let later = 6001 + RETIRE.as_secs();
        assert_eq!(members.expected(later, RETIRE), expected, "it is here");
        members.lost(NODE, 6000);
        assert_eq!(members.expected(later - 1, RETIRE), expected);
        assert_eq!(members.expected(later, RETIRE), BTreeSet::new());
        assert_eq!(members.incarnations(), expected, "it is one all the same");
    }

    #[test]
    fn golden() {
        let text = r#"{
  "format": 2,
  "nodes": [
    {
      "node": "03030303030303030303030303030303",
      "incarnation": "04040404040404040404040404040404",
      "label": "server2:/disk",
      "site": "attic",
      "capacity": 1000,
      "free": 10,
      "seen": 5000,
      "met": false
    }
  ]
}"#;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nodes.json");
        std::fs::write(&path, text).unwrap();
        let members = Members::open(folder.path()).unwrap();
        assert_eq!(members.get(NODE).unwrap(), &member(5000));
        members.store(9000).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::write(&path, text.replace(": 2,", ": 3,")).unwrap();
        let members = Members::open(folder.path()).unwrap();
        assert!(
            members.get(NODE).is_none(),
            "another format is not guessed at"
        );
    }

    #[test]
    fn a_crash_does_not_make_others_look_long_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        members.met(NODE, connected());
        members.store(500_000).unwrap();
        let members = Members::open(folder.path()).unwrap();
        let facts = &members.facts(500_010, LONG, RETIRE)[&NODE];
        assert_eq!(facts.presence, Presence::Away(Duration::from_secs(10)));
    }

    #[test]
    fn who_has_just_started_misses_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        members.met(NODE, member(5000));
        let up = Duration::from_secs(2);
        assert_eq!(
            members.facts(1_000_000, up, RETIRE)[&NODE].presence,
            Presence::Away(up)
        );
    }

    #[test]
    fn others_are_believed_about_whom_they_saw_later() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        assert!(members.told(NODE, member(100)), "a new one is news");
        assert!(!members.told(NODE, member(200)), "only its time is new");
        let renamed = |seen| Member {
            label: "other".to_owned(),
            ..member(seen)
        };
        assert!(!members.told(NODE, renamed(150)), "older than what we know");
        assert!(members.told(NODE, renamed(300)));
        assert_eq!(members.get(NODE).unwrap().label, "other");
        members.met(NODE, connected());
        assert!(!members.told(NODE, renamed(9000)), "it is connected here");
        assert_eq!(members.get(NODE).unwrap(), &connected());
    }

    #[test]
    fn labels_write_no_lines_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        let odd = Member {
            label: "disk\n ERROR\u{1b}[2J".to_owned(),
            ..member(100)
        };
        assert!(members.told(NODE, odd.clone()));
        assert!(!members.told(NODE, Member { seen: 200, ..odd }), "the same");
        assert_eq!(members.get(NODE).unwrap().label, "disk- ERROR-[2J");
    }

    #[test]
    fn whoever_is_invented_leaves_room_for_who_comes() {
        let folder = tempfile::tempdir().unwrap();
        let mut members = Members::open(folder.path()).unwrap();
        let node = |number: u32| {
            let mut bytes = [1; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            NodeId::new(bytes)
        };
        let told = (0..10_000).filter(|number| members.told(node(*number), member(100)));
        assert_eq!(told.count(), TOLD_MAX);
        for number in 20_000..20_000 + MEMBERS_MAX as u32 {
            members.met(node(number), connected());
        }
        assert_eq!(
            members.iter().count(),
            MEMBERS_MAX,
            "the invented have made room"
        );
        members.met(NODE, connected());
        assert!(members.get(NODE).is_some(), "it is there, after all");
        members.lost(NODE, 6000);
        assert!(members.get(NODE).is_none());
        members.lost(node(20_000), 6000);
        assert!(members.get(node(20_000)).is_some());
    }
}
