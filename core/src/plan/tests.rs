#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

use super::*;
use crate::ids::VolumeId;
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn node(number: usize) -> NodeId {
    NodeId::new([number as u8 + 1; 16])
}

fn content(number: u32, length: u64) -> ContentRef {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    ContentRef {
        info_hash: InfoHash::new(bytes),
        length,
    }
}

fn settings(copies: u32) -> Settings {
    let mut settings = Settings::new(VolumeId::new([1; 16]), "v".into());
    settings.copies = copies;
    settings
}

fn facts(number: usize, free: u64) -> NodeFacts {
    NodeFacts {
        incarnation: IncarnationId::new([number as u8 + 1; 16]),
        site: String::new(),
        presence: Presence::Connected,
        free,
        capacity: free,
        retired: false,
    }
}

fn nodes(free: &[u64]) -> BTreeMap<NodeId, NodeFacts> {
    let all = free.iter().enumerate();
    all.map(|(number, free)| (node(number), facts(number, *free)))
        .collect()
}

fn subject(content: ContentRef, holders: &BTreeSet<NodeId>) -> Subject<'_> {
    static NOBODY: BTreeSet<NodeId> = BTreeSet::new();
    Subject {
        content,
        holders,
        declined: &NOBODY,
    }
}

#[test]
fn a_second_copy_is_taken_by_exactly_one_and_asked_for_by_a_holder() {
    let (settings, nodes) = (settings(2), nodes(&[GIB; 5]));
    let cluster = Cluster {
        settings: &settings,
        nodes: &nodes,
    };
    let holders = BTreeSet::from([node(3)]);
    let subject = subject(content(1, 1000), &holders);
    let takers = cluster.assess(&subject).takers;
    assert_eq!(takers.len(), 1);
    for me in nodes.keys() {
        let expected = if takers.contains(me) {
            Decision::Hold
        } else if *me == node(3) {
            Decision::AskOthers(takers.clone())
        } else {
            Decision::Leave
        };
        assert_eq!(cluster.decide(*me, &subject), expected);
    }
}

#[test]
fn a_holder_that_is_away_counts_for_the_grace_and_no_longer() {
    let (settings, mut nodes) = (settings(2), nodes(&[GIB; 3]));
    let holders = BTreeSet::from([node(0), node(1)]);
    for (away, missing) in [(0, 0), (1, 1)] {
        let time = settings.grace + Duration::from_secs(away);
        nodes.get_mut(&node(1)).unwrap().presence = Presence::Away(time);
        let cluster = Cluster {
            settings: &settings,
            nodes: &nodes,
        };
        let state = cluster.assess(&subject(content(1, 1), &holders));
        assert_eq!(state.missing, missing);
        assert_eq!(state.takers.len(), missing as usize);
    }
    nodes.get_mut(&node(1)).unwrap().presence = Presence::Connected;
    nodes.get_mut(&node(1)).unwrap().retired = true;
    let cluster = Cluster {
        settings: &settings,
        nodes: &nodes,
    };
    assert_eq!(
        cluster.assess(&subject(content(1, 1), &holders)).takers,
        [node(2)]
    );
}

#[test]
fn nobody_takes_what_nobody_can_give() {
    let (settings, mut nodes) = (settings(3), nodes(&[GIB; 3]));
    nodes.get_mut(&node(0)).unwrap().presence = Presence::Away(Duration::ZERO);
    let cluster = Cluster {
        settings: &settings,
        nodes: &nodes,
    };
    let holders = BTreeSet::from([node(0)]);
    let state = cluster.assess(&subject(content(1, 1), &holders));
    assert_eq!((state.copies, state.missing, state.takers), (1, 2, vec![]));
}

#[test]
fn the_full_and_the_failing_are_passed_over() {
    let (settings, mut nodes) = (settings(2), nodes(&[GIB; 4]));
    let holders = BTreeSet::from([node(0)]);
    let mut declined = BTreeSet::new();
    let mut order = Vec::new();
    while order.len() < 3 {
        let cluster = Cluster {
            settings: &settings,
            nodes: &nodes,
        };
        let subject = Subject {
            content: content(9, 4096),
            holders: &holders,
            declined: &declined,
        };
        let [taker] = cluster.assess(&subject).takers[..] else {
            panic!("one taker");
        };
        assert!(!order.contains(&taker));
        order.push(taker);
        if order.len() == 1 {
            declined.insert(taker);
        } else {
            nodes.get_mut(&taker).unwrap().free = 4095;
        }
    }
}

#[test]
fn copies_go_to_other_sites_first() {
    let settings = settings(3);
    let mut nodes = nodes(&[GIB; 6]);
    for (number, site) in ["home", "home", "home", "home", "cellar", "office"]
        .iter()
        .enumerate()
    {
        nodes.get_mut(&node(number)).unwrap().site = (*site).into();
    }
    let cluster = Cluster {
        settings: &settings,
        nodes: &nodes,
    };
    let holders = BTreeSet::from([node(0)]);
    for number in 0..50 {
        let takers = cluster
            .assess(&subject(content(number, 1), &holders))
            .takers;
        assert_eq!(
            BTreeSet::from_iter(takers),
            BTreeSet::from([node(4), node(5)])
        );
    }
}

#[test]
fn space_fills_in_proportion() {
    let (settings, nodes) = (settings(2), nodes(&[GIB, 64 * GIB, 128 * GIB, 256 * GIB]));
    let cluster = Cluster {
        settings: &settings,
        nodes: &nodes,
    };
    let holders = BTreeSet::from([node(0)]);
    let mut counts = BTreeMap::new();
    for number in 0..7000 {
        let takers = cluster
            .assess(&subject(content(number, 1), &holders))
            .takers;
        *counts.entry(takers[0]).or_insert(0_i32) += 1;
    }
    for (number, expected) in [(1, 1000), (2, 2000), (3, 4000)] {
        let count = counts[&node(number)];
        assert!(
            (count - expected).abs() < 200,
            "{number}: {count} for {expected}"
        );
    }
}

#[test]
fn logarithm_is_right_to_a_billionth() {
    for chance in [1, 3, 12345, 1 << 40 | 1, u64::MAX / 3, u64::MAX] {
        let exact = 64.0 - (chance as f64).log2();
        let ours = minus_log2(chance) as f64 / (1_u64 << 32) as f64;
        assert!((exact - ours).abs() < 1e-8, "{chance}: {ours} for {exact}");
    }
    assert!(minus_log2(0) <= 64 << 32);
}

#[test]
fn a_little_less_space_changes_no_draw() {
    assert_eq!(weight(1000 * GIB), weight(1000 * GIB - 20 * GIB));
    assert_eq!(weight(0), 1);
    let draws = |free| {
        (0..1000)
            .map(|n| draw(&content(n, 1).info_hash, &node(1), free))
            .collect::<Vec<_>>()
    };
    assert_eq!(draws(1000 * GIB), draws(999 * GIB));
}

#[test]
fn the_rarest_come_first() {
    let state = |copies| Assessment {
        copies,
        missing: 3 - copies,
        takers: vec![],
    };
    let (a, b, c) = (content(1, 1), content(2, 1), content(3, 1));
    assert_eq!(
        by_need(vec![(a, state(2)), (c, state(1)), (b, state(1))]),
        [b, c, a]
    );
}

/// A cluster whose decisions are carried out.
#[derive(Debug, Clone)]
struct Model {
    copies: u32,
    nodes: BTreeMap<NodeId, NodeFacts>,
    contents: Vec<(ContentRef, BTreeSet<NodeId>)>,
}

impl Model {
    /// Carries out every decision that the nodes take over the present facts; returns how many moved.
    fn round(&mut self) -> usize {
        let settings = settings(self.copies);
        let none = BTreeSet::new();
        let mut moved = 0;
        for (content, holders) in &mut self.contents {
            let nodes = self.nodes.clone();
            let cluster = Cluster {
                settings: &settings,
                nodes: &nodes,
            };
            let before = holders.clone();
            let subject = Subject {
                content: *content,
                holders: &before,
                declined: &none,
            };
            for me in nodes.keys().filter(|me| nodes[me].is_connected()) {
                if cluster.decide(*me, &subject) == Decision::Hold {
                    assert!(holders.insert(*me), "takes what it holds");
                    self.nodes.get_mut(me).unwrap().free -= content.length;
                    moved += 1;
                }
            }
        }
        moved
    }
}

fn model() -> impl Strategy<Value = Model> {
    let free = proptest::collection::vec((0..4000_u64, 0..3_u8, 0..8_u8), 1..7);
    let contents = proptest::collection::vec((1..900_u64, 0..7_usize), 1..30);
    (1..4_u32, free, contents).prop_map(|(copies, free, contents)| {
        let mut nodes = nodes(&free.iter().map(|(free, ..)| *free).collect::<Vec<_>>());
        for (facts, (_, site, presence)) in nodes.values_mut().zip(&free) {
            facts.site = site.to_string();
            match presence {
                0 => facts.presence = Presence::Away(Duration::from_secs(1)),
                1 => facts.presence = Presence::Away(Duration::from_secs(1 << 30)),
                2 => facts.retired = true,
                _ => {}
            }
        }
        let place = |(number, (length, holder)): (usize, (u64, usize))| {
            (
                content(number as u32, length),
                BTreeSet::from([node(holder % free.len())]),
            )
        };
        let contents = contents.into_iter().enumerate().map(place).collect();
        Model {
            copies,
            nodes,
            contents,
        }
    })
}

proptest! {
    #[test]
    fn the_planner_settles(mut model in model()) {
        let start = model.clone();
        model.round();
        prop_assert_eq!(model.round(), 0, "one round of equal facts is enough");
        let settings = settings(model.copies);
        let cluster = Cluster { settings: &settings, nodes: &model.nodes };
        for ((content, holders), (_, before)) in model.contents.iter().zip(&start.contents) {
            prop_assert!(before.is_subset(holders), "something was dropped");
            let state = cluster.assess(&subject(*content, holders));
            prop_assert!(state.copies <= model.copies.max(1), "too many copies");
            let has_source = holders.iter().any(|node| model.nodes[node].is_connected());
            let has_room = model.nodes.iter().any(|(node, facts)| {
                facts.is_connected() && facts.free >= content.length && !holders.contains(node)
            });
            prop_assert!(state.missing == 0 || !has_source || !has_room, "room was left");
        }
    }

    #[test]
    fn one_more_node_moves_only_to_itself(free in proptest::collection::vec(1..1000_u64, 2..6), number in any::<u32>()) {
        let bytes: Vec<_> = free.iter().map(|free| free * GIB).collect();
        let settings = settings(2);
        let holders = BTreeSet::from([node(0)]);
        let taker = |nodes: &BTreeMap<_, _>| {
            let cluster = Cluster { settings: &settings, nodes };
            cluster.assess(&subject(content(number, 1), &holders)).takers[0]
        };
        let all = nodes(&bytes);
        let mut fewer = all.clone();
        let last = *fewer.keys().next_back().unwrap();
        if fewer.len() > 2 {
            fewer.remove(&last);
            prop_assert!(taker(&all) == last || taker(&all) == taker(&fewer));
        }
    }
}
