//! Between two volumes' repositories.

use super::super::{Anew, ExchangeError, PullOptions, Pulled, fetch_anew, pull, serve};
use super::support::{serving, streams};
use crate::Repository;
use crate::repository::tests::support::{
    Node, change, entry, id, incarnation, inline, placed, swarm,
};
use delugefs_core::change::Changes;
use delugefs_core::ids::EntryId;
use std::os::unix::net::UnixStream;
use tempfile::TempDir;

pub(crate) fn exchange(
    to: &Repository,
    from: &Repository,
    options: &PullOptions<'_>,
) -> Result<Pulled, ExchangeError> {
    over(from, |stream| pull(to, stream, stream, options))
}

/// All that another node has, for who has a past of its own that is older.
pub(crate) fn fetch_all(
    to: &Repository,
    from: &Repository,
    options: &PullOptions<'_>,
) -> Result<Anew, ExchangeError> {
    over(from, |stream| fetch_anew(to, stream, stream, options))
}

/// A conversation with another node.
fn over<T>(from: &Repository, talk: impl FnOnce(&UnixStream) -> T) -> T {
    let (client, server) = streams();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(from, &server, &server, &serving()));
        let done = talk(&client);
        drop(client);
        done
    })
}

/// Creates a file in the root.
pub(super) fn create(node: &mut Node, number: u32, durable: bool) {
    let kind = if number.is_multiple_of(2) {
        inline(b"text")
    } else {
        swarm(u64::from(number))
    };
    let place = placed(
        EntryId::ROOT,
        format!("file {number}"),
        entry(id(number), kind),
    );
    let changes: Changes = [change(&node.model, id(number), Some(place))]
        .into_iter()
        .collect();
    node.durable = durable;
    node.author(&changes);
}

#[test]
fn two_nodes_come_to_one_view() {
    let folder = TempDir::new().unwrap();
    let mut one = Node::create(&folder.path().join("one"), 1);
    let mut two = Node::create(&folder.path().join("two"), 2);
    for round in 0..5 {
        create(&mut one, 10 + round, round % 2 == 0);
        create(&mut two, 20 + round, round % 2 == 1);
        for (to, from, own) in [(&one, &two, 1), (&two, &one, 2)] {
            let options = PullOptions {
                own: Some(incarnation(own)),
                ..PullOptions::default()
            };
            let pulled = exchange(&to.repository, &from.repository, &options).unwrap();
            assert_eq!(pulled.moved.len(), 1);
            let again = exchange(&to.repository, &from.repository, &options).unwrap();
            assert_eq!(again, Pulled::default());
        }
        let views = [&one, &two].map(|node| node.repository.refresh_view().unwrap());
        assert_eq!(views[0], views[1]);
        assert_eq!(views[0].heads.len(), 2);
    }
    let reopened = Repository::open(&folder.path().join("one")).unwrap();
    assert_eq!(reopened.view(), two.repository.view());
}

#[test]
fn a_chain_under_anothers_name_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut one = Node::create(&folder.path().join("one"), 1);
    let two = Node::create(&folder.path().join("two"), 2);
    create(&mut one, 10, false);
    let head = one.repository.authors().unwrap()[&incarnation(1)];
    let forged = format!("refs/authors/{}", incarnation(3));
    std::fs::write(one.repository.path().join(forged), format!("{head}\n")).unwrap();
    let pulled = exchange(&two.repository, &one.repository, &PullOptions::default()).unwrap();
    assert_eq!(pulled.moved, [(incarnation(1), head)]);
    let [refused] = &pulled.refused[..] else {
        panic!("{pulled:?}")
    };
    assert_eq!((refused.author, refused.head), (incarnation(3), head));
    assert!(
        refused.to_string().contains("it is a commit of"),
        "{refused}"
    );
}
