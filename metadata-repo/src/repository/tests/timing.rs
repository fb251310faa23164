//! How long things take, printed: `cargo test timing -- --nocapture --ignored`.

use super::support::*;
use crate::Repository;
use delugefs_core::change::Changes;
use delugefs_core::entry::{Kind, Placed};
use delugefs_core::ids::EntryId;
use std::path::Path;
use std::time::Instant;

fn directory_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().unwrap() {
            facts if facts.is_dir() => directory_bytes(&entry.path()),
            facts => facts.len(),
        })
        .sum()
}

/// Of this thread.
fn cpu_milliseconds() -> f64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    statistics
        .split(' ')
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1e6
}

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = act();
    println!("{what}: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    result
}

fn edit(node: &Node, number: u32, turn: u32) -> Placed {
    let mut placed = node.model.get(id(number)).unwrap().clone();
    placed.entry.attributes.uid = turn;
    placed
}

fn shape(directories: u32, files: u32) {
    println!("-- {directories} directories of {files} files");
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("metadata.git");
    let mut node = Node::create(&path, 1);
    let start = node.view.tree;
    let mut number = 0;
    let mut all = Vec::new();
    for directory in 0..directories {
        number += 1;
        let parent = id(number);
        all.push(placed(
            EntryId::ROOT,
            format!("directory{directory}"),
            entry(parent, Kind::Directory),
        ));
        for file in 0..files {
            number += 1;
            all.push(placed(
                parent,
                format!("file {file}"),
                entry(id(number), swarm(u64::from(file % 64))),
            ));
        }
    }
    let changes: Changes = all
        .into_iter()
        .map(|after| {
            (
                after.entry.id,
                change(&node.model, after.entry.id, Some(after)).1,
            )
        })
        .collect();
    timed(&format!("commit of {number} new entries"), || {
        node.author(&changes)
    });
    timed("diff with nothing", || {
        node.repository.diff(start, node.view.tree).unwrap()
    });
    for durable in [false, true] {
        node.durable = durable;
        let before = directory_bytes(&path);
        let turns = if durable { 20 } else { 100 };
        let edits: Vec<Placed> = (0..turns)
            .map(|turn| {
                edit(
                    &node,
                    2 + turn * 7 % 99,
                    turn + if durable { 1000 } else { 1 },
                )
            })
            .collect();
        let edits: Vec<Changes> = edits
            .into_iter()
            .map(|after| {
                [change(&node.model, after.entry.id, Some(after))]
                    .into_iter()
                    .collect()
            })
            .collect();
        // The model is not what is measured.
        let model = std::mem::take(&mut node.model);
        let (start, cpu) = (Instant::now(), cpu_milliseconds());
        for changes in &edits {
            node.author_unmodelled(changes, &model).unwrap();
        }
        let each = start.elapsed().as_secs_f64() * 1000.0 / f64::from(turns);
        let cpu = (cpu_milliseconds() - cpu) / f64::from(turns);
        let bytes = (directory_bytes(&path) - before) / u64::from(turns);
        println!(
            "one-file commit, durable {durable}: {each:.2} ms, {cpu:.2} ms of them on the processor, {bytes} bytes"
        );
        node.model = read(&node.repository, node.view.tree);
    }
    let again = timed("open", || Repository::open(&path).unwrap());
    timed("read all", || {
        again.contents(node.view.tree, &mut |_, _| {}).unwrap()
    });
}

#[test]
#[ignore = "prints times, proves nothing"]
fn timing() {
    shape(1000, 100);
    shape(1, 50_000);
}
