use super::*;

#[test]
fn a_silent_link_is_closed_and_a_quiet_one_pinged() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.tell(1, &[]);
    let effects = rig.pass_with(&[1], SILENCE_MAX * 3);
    assert!(closed(&effects).is_empty());
    let pings = effects.iter().filter(|e| {
        matches!(
            e,
            Effect::Send {
                message: Message::Ping,
                ..
            }
        )
    });
    assert!((13..=16).contains(&pings.count()));
    let effects = rig.pass(SILENCE_MAX);
    assert_eq!(closed(&effects), [(1, Reason::Silent)]);
    assert!(effects.contains(&Effect::Lost { peer: node(1) }));
    assert_eq!(
        rig.on(Event::LinkDown { link: LinkId(1) }),
        [],
        "known already"
    );
}

#[test]
fn a_machine_that_slept_does_not_take_its_peers_for_dead() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.pass(ms(10));
    rig.now += Duration::from_hours(1);
    let effects = rig.on(Event::Wake);
    assert!(closed(&effects).is_empty(), "{effects:?}");
    assert_eq!(closed(&rig.pass(SILENCE_MAX)), [(1, Reason::Silent)]);
}

#[test]
fn crossing_dials_end_with_the_link_that_the_lower_id_dialled() {
    for (peer, keeps_dialled) in [(1, false), (20, true)] {
        for dialled_first in [false, true] {
            let mut rig = Rig::new(&[]);
            let mut ups = [accepted(peer, 100), dialled(peer, 200)];
            if dialled_first {
                ups.reverse();
            }
            let mut effects = Vec::new();
            for up in ups {
                effects.extend(rig.on(Event::LinkUp(up)));
                rig.pass(ms(20));
            }
            let loser = if keeps_dialled { 100 } else { 200 };
            assert_eq!(closed(&effects), [(loser, Reason::Duplicate)]);
            assert_eq!(rig.sync.connected().collect::<Vec<_>>(), [node(peer)]);
            assert!(!effects.contains(&Effect::Lost { peer: node(peer) }));
        }
    }
}

#[test]
fn a_peer_that_comes_again_replaces_its_dead_link() {
    let mut rig = Rig::new(&[(ME, 1)]);
    rig.on(Event::LinkUp(dialled(20, 1)));
    rig.pass(CROSSING);
    let effects = rig.on(Event::LinkUp(accepted(20, 2)));
    assert_eq!(closed(&effects), [(1, Reason::Duplicate)]);
    let told = [(2, heads(&[(ME, 1)]))];
    assert_eq!(announcements(&effects), told, "a new link begins anew");
    assert_eq!(rig.on(Event::LinkDown { link: LinkId(1) }), []);
    assert_eq!(rig.sync.connected().count(), 1);
}

#[test]
fn dials_wait_ever_longer_and_the_owners_address_is_never_forgotten() {
    let mut rig = Rig::new(&[]);
    let found = |origin, port| Event::Found {
        node: None,
        addresses: vec![address(port)],
        origin,
    };
    assert_eq!(dials(&rig.on(found(Origin::Owner, 1))), [address(1)]);
    assert_eq!(dials(&rig.on(found(Origin::Told, 2))), [address(2)]);
    let mut last = [rig.now; 2];
    for _ in 0..2 * (DIALS_FORGET + 5) {
        let mut effects = Vec::new();
        for port in [1, 2] {
            let failure = DialFailure::Unreachable;
            effects.extend(rig.on(Event::DialFailed {
                address: address(port),
                failure,
            }));
        }
        effects.extend(rig.pass(DIAL_RETRY_SELDOM * 2));
        for dial in dials(&effects) {
            last[usize::from(dial.port()) - 1] = rig.now;
        }
    }
    assert_eq!(last[0], rig.now, "the owner's is still tried");
    assert!(last[1] < rig.now, "what a peer told is forgotten");
    let seldom = rig.on(Event::DialFailed {
        address: address(1),
        failure: DialFailure::Unreachable,
    });
    assert_eq!(dials(&seldom), []);
}

#[test]
fn one_node_is_dialled_once_and_oneself_never_again() {
    let mut rig = Rig::new(&[]);
    let addresses = vec![address(1), address(2)];
    let found = Event::Found {
        node: Some(node(20)),
        addresses,
        origin: Origin::Discovered,
    };
    assert_eq!(dials(&rig.on(found.clone())), [address(1)]);
    let failure = DialFailure::Unreachable;
    let effects = rig.on(Event::DialFailed {
        address: address(1),
        failure,
    });
    assert_eq!(dials(&effects), [address(2)]);
    let up = LinkUp {
        listening: None,
        direction: Direction::Dialled(address(2)),
        ..dialled(20, 1)
    };
    rig.on(Event::LinkUp(up));
    rig.on(found);
    assert_eq!(dials(&rig.pass(SILENCE_MAX - ms(1))), []);
    let found = Event::Found {
        node: None,
        addresses: vec![address(9)],
        origin: Origin::Owner,
    };
    assert_eq!(dials(&rig.on(found)), [address(9)]);
    let effects = rig.on(Event::LinkUp(LinkUp {
        direction: Direction::Dialled(address(9)),
        ..dialled(ME, 5)
    }));
    assert_eq!(closed(&effects), [(5, Reason::Oneself)]);
    assert!(!dials(&rig.pass(DIAL_RETRY_SELDOM)).contains(&address(9)));
}

#[test]
fn who_takes_the_place_of_its_own_link_is_told_of_the_other() {
    for (second, is_told) in [(address(7), false), (address(8), true)] {
        let mut rig = Rig::new(&[]);
        let up = |link: u64, at: SocketAddr| LinkUp {
            listening: Some(at),
            ..accepted(1, link)
        };
        rig.on(Event::LinkUp(up(5, address(7))));
        rig.pass(CROSSING);
        let effects = rig.on(Event::LinkUp(up(6, second)));
        assert_eq!(closed(&effects), [(5, Reason::Duplicate)]);
        let told = Effect::Send {
            link: LinkId(6),
            message: Message::Peers(vec![PeerAddress {
                node: node(1),
                address: address(7),
            }]),
        };
        assert_eq!(effects.contains(&told), is_told, "{effects:?}");
    }
}

#[test]
fn peers_are_told_of_peers_and_dial_them() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    let effects = rig.up(2);
    let told = Message::Peers(vec![PeerAddress {
        node: node(1),
        address: address(1),
    }]);
    assert!(effects.contains(&Effect::Send {
        link: LinkId(2),
        message: told
    }));
    let message = Message::Peers(vec![
        PeerAddress {
            node: node(30),
            address: address(30),
        },
        PeerAddress {
            node: node(ME),
            address: address(31),
        },
        PeerAddress {
            node: node(1),
            address: address(32),
        },
    ]);
    let effects = rig.on(Event::Received {
        link: LinkId(1),
        message,
    });
    assert_eq!(
        dials(&effects),
        [address(30), address(31)],
        "a copy of this node may be at 31"
    );
    let told = PeerAddress {
        node: node(3),
        address: address(3),
    };
    let message = Message::Peers(vec![told; PEERS_TOLD_MAX + 1]);
    let effects = rig.on(Event::Received {
        link: LinkId(1),
        message,
    });
    assert_eq!(closed(&effects), [(1, Reason::Oversized)]);
}

#[test]
fn more_links_than_there_may_be_are_refused_and_known_ones_stay() {
    let mut rig = Rig::new(&[]);
    let peers: Vec<u8> = (ME + 1..).take(LINKS_MAX).collect();
    for peer in &peers {
        assert_eq!(closed(&rig.up(*peer)), []);
    }
    let last = u64::from(u8::MAX);
    let refused = [(last, Reason::LinksTooMany)];
    assert_eq!(closed(&rig.up(u8::MAX)), refused);
    assert_eq!(rig.sync.connected().count(), LINKS_MAX);
    // the owner's word does not help either while there is no place
    rig.on(Event::Found {
        node: None,
        addresses: vec![address(1)],
        origin: Origin::Owner,
    });
    assert_eq!(dials(&rig.pass(DIAL_RETRY_MAX)), []);
    rig.on(Event::LinkDown {
        link: LinkId(u64::from(peers[0])),
    });
    assert_eq!(closed(&rig.up(u8::MAX)), []);
}

#[test]
fn invented_addresses_are_forgotten_for_one_that_discovery_has_found() {
    let mut rig = Rig::new(&[]);
    let found = |port, origin| Event::Found {
        node: None,
        addresses: vec![address(port)],
        origin,
    };
    let mut dialled = Vec::new();
    for port in 1..=2 * ADDRESSES_MAX as u16 {
        dialled.extend(dials(&rig.on(found(port, Origin::Told))));
    }
    assert_eq!(dialled.len(), DIALS_MAX, "so many at once");
    rig.on(found(u16::MAX, Origin::Discovered));
    let mut failures = 0;
    while !dialled.contains(&address(u16::MAX)) {
        let Some(address) = dialled.pop() else {
            panic!("it is not dialled after {failures} others")
        };
        failures += 1;
        assert!(failures <= ADDRESSES_MAX, "more were remembered");
        let failure = DialFailure::Stranger;
        dialled.extend(dials(&rig.on(Event::DialFailed { address, failure })));
    }
}
