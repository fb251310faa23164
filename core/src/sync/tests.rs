#![allow(clippy::unwrap_used, clippy::unchecked_time_subtraction)]

mod links;

use super::limits::*;
use super::*;
use crate::ids::{CommitId, IncarnationId};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const ME: u8 = 10;

fn node(number: u8) -> NodeId {
    NodeId::new([number; 16])
}

fn author(number: u8) -> IncarnationId {
    IncarnationId::new([number; 16])
}

fn commit(number: u8) -> CommitId {
    CommitId::new([number; 20])
}

fn heads(of: &[(u8, u8)]) -> Authors {
    of.iter().map(|(a, c)| (author(*a), commit(*c))).collect()
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn ms(time: u64) -> Now {
    Duration::from_millis(time)
}

/// One machine and its time; the links are named after the peers' numbers.
struct Rig {
    sync: Sync,
    now: Now,
}

impl Rig {
    fn new(ours: &[(u8, u8)]) -> Self {
        let sync = Sync::new(Config {
            node: node(ME),
            incarnation: author(ME),
            seed: 1,
            authors: heads(ours),
            positions: Positions::new(),
        });
        Self {
            sync,
            now: ms(1_000_000),
        }
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        self.sync.handle(event, self.now)
    }

    /// Lets time pass, waking the machine when it asks for it.
    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let end = self.now + time;
        let mut effects = Vec::new();
        while let Some(wake) = self.sync.wake_at().filter(|wake| *wake <= end) {
            assert!(wake > self.now, "wants to be woken in the past");
            self.now = wake;
            effects.extend(self.on(Event::Wake));
        }
        self.now = end;
        effects
    }

    /// Lets time pass while these peers answer pings.
    fn pass_with(&mut self, peers: &[u8], time: Duration) -> Vec<Effect> {
        let mut effects = Vec::new();
        let end = self.now + time;
        while self.now < end {
            for peer in peers {
                let link = LinkId(u64::from(*peer));
                effects.extend(self.on(Event::Received {
                    link,
                    message: Message::Pong,
                }));
            }
            effects.extend(self.pass(ms(500).min(end - self.now)));
        }
        effects
    }

    fn up(&mut self, peer: u8) -> Vec<Effect> {
        self.on(Event::LinkUp(accepted(peer, u64::from(peer))))
    }

    fn tell(&mut self, peer: u8, authors: &[(u8, u8)]) -> Vec<Effect> {
        let message = Message::Heads(heads(authors));
        let link = LinkId(u64::from(peer));
        self.on(Event::Received { link, message })
    }

    fn pulled(&mut self, pull: u64, authors: &[(u8, u8)]) -> Vec<Effect> {
        let outcome = Outcome::Done(heads(authors));
        self.on(Event::PullFinished {
            pull: PullId(pull),
            outcome,
        })
    }
}

fn accepted(peer: u8, link: u64) -> LinkUp {
    LinkUp {
        link: LinkId(link),
        peer: node(peer),
        incarnation: author(peer),
        direction: Direction::Accepted,
        listening: Some(address(u16::from(peer))),
    }
}

fn dialled(peer: u8, link: u64) -> LinkUp {
    let at = address(u16::from(peer));
    LinkUp {
        direction: Direction::Dialled(at),
        ..accepted(peer, link)
    }
}

fn pulls(effects: &[Effect]) -> Vec<(u64, NodeId)> {
    let pull = |effect: &Effect| match effect {
        Effect::Pull { pull, peer, .. } => Some((pull.0, *peer)),
        _ => None,
    };
    effects.iter().filter_map(pull).collect()
}

fn announcements(effects: &[Effect]) -> Vec<(u64, Authors)> {
    let sent = |effect: &Effect| match effect {
        Effect::Send {
            link,
            message: Message::Heads(authors),
        } => Some((link.0, authors.clone())),
        _ => None,
    };
    effects.iter().filter_map(sent).collect()
}

fn dials(effects: &[Effect]) -> Vec<SocketAddr> {
    let dial = |effect: &Effect| match effect {
        Effect::Dial { address } => Some(*address),
        _ => None,
    };
    effects.iter().filter_map(dial).collect()
}

fn closed(effects: &[Effect]) -> Vec<(u64, Reason)> {
    let close = |effect: &Effect| match effect {
        Effect::Disconnect { link, reason } => Some((link.0, *reason)),
        _ => None,
    };
    effects.iter().filter_map(close).collect()
}

#[test]
fn an_idle_node_commits_at_once_and_a_busy_one_in_growing_groups() {
    let mut rig = Rig::new(&[]);
    assert_eq!(rig.on(Event::LocalChanges), [Effect::Commit]);
    assert_eq!(rig.on(Event::LocalChanges), [], "one at a time");
    rig.pass(ms(300));
    assert_eq!(
        rig.on(Event::CommitFinished(Outcome::Done(heads(&[(ME, 1)])))),
        []
    );
    assert_eq!(rig.pass(ms(299)), [], "rests as long as the commit took");
    assert_eq!(rig.pass(ms(1)), [Effect::Commit]);
    rig.pass(ms(9000));
    rig.on(Event::LocalChanges);
    rig.on(Event::CommitFinished(Outcome::Done(heads(&[(ME, 2)]))));
    assert_eq!(
        rig.pass(GATHER_MAX),
        [Effect::Commit],
        "never rests longer than a second"
    );
    rig.on(Event::CommitFinished(Outcome::Done(heads(&[(ME, 3)]))));
    assert!(rig.sync.is_settled());
    assert_eq!(rig.sync.wake_at(), None, "an idle node sleeps");
}

#[test]
fn a_failed_commit_is_tried_again_ever_later() {
    let mut rig = Rig::new(&[]);
    rig.on(Event::LocalChanges);
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(rig.on(Event::CommitFinished(Outcome::Failed)), []);
        assert!(!rig.sync.is_settled());
        let wait = rig.sync.wake_at().unwrap() - rig.now;
        waits.push(wait);
        assert_eq!(rig.pass(wait), [Effect::Commit]);
    }
    assert!(waits[0] <= COMMIT_RETRY_MIN * 5 / 4 && waits[5] > waits[1]);
    assert!(waits.iter().all(|wait| *wait <= COMMIT_RETRY_MAX * 5 / 4));
}

#[test]
fn news_is_pulled_then_shown_then_told_to_the_others() {
    let mut rig = Rig::new(&[(ME, 1)]);
    let hello = rig.up(1);
    assert_eq!(announcements(&hello), [(1, heads(&[(ME, 1)]))]);
    rig.up(2);
    rig.pass(ms(100));
    let effects = rig.tell(1, &[(1, 7), (ME, 1)]);
    assert_eq!(pulls(&effects), [(0, node(1))]);
    let effects = rig.pulled(0, &[(1, 7), (ME, 1)]);
    assert!(effects.contains(&Effect::Rebase));
    assert_eq!(
        announcements(&effects),
        [(2, heads(&[(1, 7), (ME, 1)]))],
        "1 has said the same"
    );
    let done = Outcome::Done(heads(&[(1, 7), (ME, 1)]));
    assert_eq!(rig.on(Event::RebaseFinished(done)), []);
    assert!(rig.sync.is_settled());
}

#[test]
fn a_rebase_commits_what_is_pending() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.tell(1, &[(1, 7)]);
    assert_eq!(rig.on(Event::LocalChanges), [], "gathers while a pull runs");
    let effects = rig.pulled(0, &[(1, 7)]);
    assert!(effects.contains(&Effect::Rebase) && !effects.contains(&Effect::Commit));
    let effects = rig.on(Event::RebaseFinished(Outcome::Failed));
    assert_eq!(pulls(&effects), []);
    assert!(!rig.sync.is_settled());
    assert!(rig.pass(COMMIT_RETRY_MIN * 2).contains(&Effect::Rebase));
    let effects = rig.on(Event::RebaseFinished(Outcome::Done(heads(&[
        (1, 7),
        (ME, 1),
    ]))));
    assert_eq!(announcements(&effects), [(1, heads(&[(1, 7), (ME, 1)]))]);
    assert!(rig.sync.is_settled());
}

#[test]
fn heads_that_moved_while_a_rebase_ran_are_shown_by_another() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.up(2);
    rig.tell(1, &[(1, 7)]);
    assert!(rig.pulled(0, &[(1, 7)]).contains(&Effect::Rebase));
    assert_eq!(pulls(&rig.tell(2, &[(1, 7), (2, 8)])), [(1, node(2))]);
    // the second pull has moved its head, after the rebase looked and before either was told of
    let both = heads(&[(1, 7), (2, 8)]);
    rig.on(Event::RebaseFinished(Outcome::Done(both)));
    let mut effects = rig.pulled(1, &[(1, 7), (2, 8)]);
    effects.extend(rig.pass(GATHER_MAX));
    assert!(effects.contains(&Effect::Rebase), "{effects:?}");
}

#[test]
fn a_long_pull_holds_up_local_changes_only_briefly() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.tell(1, &[(1, 7)]);
    rig.on(Event::LocalChanges);
    assert!(rig.pass(GATHER).contains(&Effect::Commit));
}

#[test]
fn arrivals_are_gathered_while_others_are_on_their_way() {
    let mut rig = Rig::new(&[]);
    for peer in [1, 2, 3] {
        rig.up(peer);
        rig.tell(peer, &[(peer, 7)]);
    }
    assert!(!rig.pulled(0, &[(1, 7)]).contains(&Effect::Rebase));
    assert!(!rig.pulled(1, &[(1, 7), (2, 7)]).contains(&Effect::Rebase));
    assert!(
        rig.pass(GATHER).contains(&Effect::Rebase),
        "does not wait for the third"
    );
}

#[test]
fn the_same_heads_are_pulled_from_one_peer_and_from_the_next_when_it_is_slow() {
    let mut rig = Rig::new(&[]);
    for peer in [1, 2, 3] {
        rig.up(peer);
    }
    assert_eq!(pulls(&rig.tell(1, &[(1, 7)])), [(0, node(1))]);
    assert_eq!(pulls(&rig.tell(2, &[(1, 7)])), []);
    assert_eq!(
        pulls(&rig.tell(3, &[(1, 7), (3, 1)])),
        [(1, node(3))],
        "that has more"
    );
    rig.pulled(1, &[(3, 1)]);
    let effects = rig.pass(PULL_PATIENCE);
    assert_eq!(pulls(&effects), [(2, node(2))]);
    assert_eq!(pulls(&rig.pulled(2, &[(1, 7), (3, 1)])), []);
    assert_eq!(pulls(&rig.pulled(0, &[(1, 7), (3, 1)])), []);
}

#[test]
fn a_long_pull_that_makes_progress_is_left_alone_for_a_minute() {
    let mut rig = Rig::new(&[]);
    for peer in [1, 2] {
        rig.up(peer);
        rig.tell(peer, &[(1, 7)]);
    }
    let mut seconds = 0;
    loop {
        let effects = rig.on(Event::PullProgress { pull: PullId(0) });
        if pulls(&[effects, rig.pass_with(&[1, 2], ms(999))].concat()) == [(1, node(2))] {
            break;
        }
        seconds += 1;
    }
    assert!((58..=61).contains(&seconds), "{seconds}");
}

#[test]
fn a_failed_pull_goes_to_another_peer_and_back_later() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.up(2);
    rig.tell(1, &[(1, 7)]);
    rig.tell(2, &[(1, 7)]);
    let failed = |pull| Event::PullFinished {
        pull: PullId(pull),
        outcome: Outcome::Failed,
    };
    assert_eq!(pulls(&rig.on(failed(0))), [(1, node(2))]);
    assert_eq!(pulls(&rig.on(failed(1))), []);
    assert_eq!(pulls(&rig.pass(PULL_RETRY_MIN * 2)).len(), 1);
}

#[test]
fn only_so_many_pulls_run_and_liars_do_not_take_their_places_for_ever() {
    let mut rig = Rig::new(&[]);
    let peers: Vec<u8> = (ME + 1..).take(2 * PULLS_MAX).collect();
    let mut started = Vec::new();
    for peer in &peers {
        rig.up(*peer);
        started.extend(pulls(&rig.tell(*peer, &[(*peer, *peer)])));
    }
    assert_eq!(started.len(), PULLS_MAX);
    started.extend(pulls(&rig.pass_with(&peers, PULL_PATIENCE)));
    assert_eq!(
        started.len(),
        2 * PULLS_MAX,
        "hanging pulls do not block the others"
    );
}

#[test]
fn a_peer_that_lags_is_not_pulled_from_and_a_liar_ever_less() {
    let mut rig = Rig::new(&[(2, 1)]);
    rig.up(1);
    rig.on(Event::LocalChanges);
    rig.on(Event::CommitFinished(Outcome::Done(heads(&[(2, 2)]))));
    assert_eq!(pulls(&rig.tell(1, &[(2, 1)])), [], "had that once");
    let mut count = 0;
    for lie in 0..200_u8 {
        for (pull, _) in pulls(&rig.tell(1, &[(3, lie)])) {
            count += 1;
            let again = rig.pulled(pull, &[(2, 2)]);
            assert_eq!(pulls(&again), [], "one pull for one lie");
        }
        rig.pass_with(&[1], ms(50));
    }
    assert!(count < 15, "{count} pulls in 10 s");
    rig.up(4);
    assert_eq!(
        pulls(&rig.tell(4, &[(3, 199)])).len(),
        1,
        "others are believed"
    );
}

#[test]
fn what_a_pull_did_not_bring_is_pulled_again_once_other_heads_have_moved() {
    let mut rig = Rig::new(&[(ME, 1), (2, 6)]);
    rig.up(1);
    let effects = rig.tell(1, &[(1, 5), (2, 7)]);
    assert_eq!(pulls(&effects), [(0, node(1))]);
    let effects = rig.pulled(0, &[(ME, 1), (1, 5), (2, 6)]);
    assert_eq!(pulls(&effects), [(1, node(1))], "the fork may move aside");
    let effects = rig.pulled(1, &[(ME, 1), (1, 5), (2, 6)]);
    assert_eq!(pulls(&effects), [], "it does not");
    let effects = rig.pass_with(&[1], PULL_RETRY_MAX * 3);
    assert_eq!(pulls(&effects), []);
}

#[test]
fn announcements_are_gathered_and_repeated_to_who_does_not_follow() {
    let mut rig = Rig::new(&[(ME, 1)]);
    rig.up(1);
    for head in 2..10 {
        rig.on(Event::LocalChanges);
        let effects = rig.on(Event::CommitFinished(Outcome::Done(heads(&[(ME, head)]))));
        assert_eq!(announcements(&effects), []);
    }
    let effects = rig.pass(ANNOUNCE_INTERVAL);
    assert_eq!(announcements(&effects), [(1, heads(&[(ME, 9)]))]);
    let effects = rig.pass_with(&[1], ANNOUNCE_REPEAT);
    assert_eq!(announcements(&effects), [(1, heads(&[(ME, 9)]))]);
    rig.tell(1, &[(ME, 9)]);
    let effects = rig.pass_with(&[1], ANNOUNCE_REPEAT * 3);
    assert_eq!(announcements(&effects), []);
}

#[test]
fn who_keeps_to_other_heads_is_told_until_it_has_heard() {
    let mut rig = Rig::new(&[(ME, 1), (2, 6)]);
    rig.up(1);
    rig.tell(1, &[(ME, 1), (2, 6)]);
    // history is cut here, and there not yet
    rig.on(Event::LocalChanges);
    let effects = rig.on(Event::CommitFinished(Outcome::Done(heads(&[(ME, 1)]))));
    let mut said = announcements(&effects);
    said.extend(announcements(&rig.pass_with(&[1], ANNOUNCE_INTERVAL)));
    assert_eq!(said, [(1, heads(&[(ME, 1)]))]);
    rig.tell(1, &[(ME, 1), (2, 6)]);
    let effects = rig.pass_with(&[1], ANNOUNCE_REPEAT);
    assert_eq!(announcements(&effects).len(), 1, "it may not have heard");
    let effects = rig.tell(1, &[(ME, 1), (2, 6)]);
    assert_eq!((announcements(&effects), pulls(&effects)), (vec![], vec![]));
    let effects = rig.pass_with(&[1], ANNOUNCE_REPEAT * 3);
    assert_eq!(announcements(&effects), []);
    rig.on(Event::LocalChanges);
    let effects = rig.on(Event::CommitFinished(Outcome::Done(heads(&[(ME, 2)]))));
    let news = [(1, heads(&[(ME, 2)]))];
    assert_eq!(announcements(&effects), news);
    let effects = rig.pass_with(&[1], ANNOUNCE_REPEAT);
    assert_eq!(announcements(&effects), news, "not heard yet");
}

#[test]
fn holdings_are_asked_of_their_author_first_and_of_others_when_it_fails() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.up(2);
    let positions = |at| Message::Holdings(BTreeMap::from([(author(2), at)]));
    let ask = |link| Effect::AskHoldings {
        link: LinkId(link),
        incarnation: author(2),
    };
    let effects = rig.on(Event::Received {
        link: LinkId(1),
        message: positions(5),
    });
    assert!(effects.contains(&ask(1)));
    let effects = rig.on(Event::Received {
        link: LinkId(2),
        message: positions(9),
    });
    assert!(!effects.contains(&ask(2)), "one at a time");
    let applied = |link, position, progressed| {
        let incarnation = author(2);
        Event::BatchApplied {
            link: LinkId(link),
            incarnation,
            position,
            progressed,
        }
    };
    assert!(
        rig.on(applied(1, 5, true)).contains(&ask(2)),
        "the author has more"
    );
    let effects = rig.pass_with(&[1, 2], HOLDINGS_PATIENCE);
    assert!(!effects.contains(&ask(1)), "1 has no more");
    rig.on(Event::Received {
        link: LinkId(1),
        message: positions(8),
    });
    assert!(
        rig.pass_with(&[1, 2], HOLDINGS_RETRY_MAX).contains(&ask(2)),
        "tried again"
    );
    let mut effects = rig.on(applied(2, 9, true));
    effects.extend(rig.pass(HOLDINGS_INTERVAL));
    let told: Vec<_> = effects
        .iter()
        .filter(|e| {
            matches!(
                e,
                Effect::Send {
                    link: LinkId(1),
                    ..
                }
            )
        })
        .collect();
    assert_eq!(told.len(), 1, "relayed to 1: {effects:?}");
}

#[test]
fn who_repeats_itself_is_answered_once() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.tell(1, &[(1, 7)]);
    rig.pulled(0, &[(1, 7)]);
    rig.pass(GATHER);
    let answer = rig.tell(1, &[(1, 7)]);
    assert_eq!(announcements(&answer), [(1, heads(&[(1, 7)]))]);
    rig.pass(ANNOUNCE_INTERVAL);
    assert_eq!(announcements(&rig.tell(1, &[(1, 7)])), []);
}

#[test]
fn who_has_seen_more_of_us_than_we_makes_us_doubt() {
    let mut rig = Rig::new(&[(ME, 1)]);
    rig.up(1);
    let peer = node(1);
    let doubt = |evidence| Effect::SuspectIdentity { peer, evidence };
    assert!(
        !rig.tell(1, &[(ME, 1)])
            .iter()
            .any(|e| matches!(e, Effect::SuspectIdentity { .. }))
    );
    let effects = rig.tell(1, &[(ME, 9)]);
    assert!(effects.contains(&doubt(Evidence::Head(commit(9)))));
    assert_eq!(pulls(&effects), [], "nobody else moves our chain");
}

#[test]
fn who_claims_more_of_our_holdings_is_asked_for_the_proof_and_then_left_alone() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    let message = Message::Holdings(BTreeMap::from([(author(ME), 3)]));
    let (link, incarnation) = (LinkId(1), author(ME));
    let ask = Effect::AskHoldings { link, incarnation };
    assert!(rig.on(Event::Received { link, message }).contains(&ask));
    let applied = |position| Event::BatchApplied {
        link,
        incarnation,
        position,
        progressed: false,
    };
    assert!(!rig.on(applied(0)).contains(&ask), "it has proved nothing");
    assert!(
        rig.pass(HOLDINGS_RETRY_MAX).contains(&ask),
        "some time later"
    );
    rig.on(applied(3));
    assert!(!rig.pass(HOLDINGS_RETRY_MAX).contains(&ask), "it is said");
}

#[test]
fn a_pull_that_outlives_its_link_still_counts() {
    let mut rig = Rig::new(&[]);
    rig.up(1);
    rig.tell(1, &[(1, 7)]);
    rig.on(Event::LinkDown { link: LinkId(1) });
    rig.on(Event::LinkUp(accepted(1, 50)));
    let message = Message::Heads(heads(&[(1, 7)]));
    let effects = rig.on(Event::Received {
        link: LinkId(50),
        message,
    });
    assert_eq!(pulls(&effects), [(1, node(1))]);
    rig.pulled(0, &[(1, 7)]);
    assert!(rig.pass(GATHER).contains(&Effect::Rebase));
}
