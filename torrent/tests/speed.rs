//! How fast bytes move between two engines over loopback. Prints figures; run by hand:
//! `cargo test -p delugefs-torrent --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod common;

use common::{Node, assert_same, random_file, scratch};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Megabytes to move.
fn size() -> u64 {
    std::env::var("DELUGEFS_MEGABYTES").map_or(1024, |text| text.parse().unwrap())
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn whole_content() {
    let (seed, leech) = (
        Node::start(Ipv4Addr::LOCALHOST.into()).await,
        Node::start(Ipv4Addr::LOCALHOST.into()).await,
    );
    let file = tempfile::NamedTempFile::new_in(scratch()).unwrap();
    random_file(file.path(), size(), 1);
    let info = seed.seal(file.path());
    leech.knows(&[seed.address]);
    let (begun, busy) = (Instant::now(), cpu());
    let mut fetch = leech.swarm.fetch(&info);
    let mut progress = fetch.progress();
    progress
        .wait_for(|progress| progress.missing_pieces == 0)
        .await
        .unwrap();
    let moved = begun.elapsed();
    fetch.done().await.unwrap();
    let megabytes = size() as f64 * 1.048_576;
    println!(
        "{megabytes:.0} MB in pieces of {} KiB: {:.0} MB/s to the last piece, {:.0} MB/s until synced and complete, {:.2} CPU-s/GB both ends",
        info.piece_length() / 1024,
        megabytes / moved.as_secs_f64(),
        megabytes / begun.elapsed().as_secs_f64(),
        (cpu() - busy) / megabytes * 1000.0,
    );
    assert_same(&seed.path(&info), &leech.path(&info));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn first_bytes() {
    let (seed, leech) = (
        Node::start(Ipv4Addr::LOCALHOST.into()).await,
        Node::start(Ipv4Addr::LOCALHOST.into()).await,
    );
    leech.knows(&[seed.address]);
    let file = tempfile::NamedTempFile::new_in(scratch()).unwrap();
    let mut times = Vec::new();
    for round in 0..30 {
        random_file(file.path(), 1, 100 + round);
        file.as_file().set_len(100 * 1024).unwrap();
        let info = seed.seal(file.path());
        let begun = Instant::now();
        let reader = leech.swarm.reader(&info);
        assert_eq!(reader.read(0, 102_400).await.unwrap().len(), 102_400);
        times.push(begun.elapsed());
    }
    println!("100 KiB, connecting included: {}", percentiles(&mut times));
    random_file(file.path(), size(), 7);
    let info = seed.seal(file.path());
    let reader = leech.swarm.reader(&info);
    let mut times = Vec::new();
    for step in 0..40u64 {
        let at = (step * 7_919 * 65_536 * 13) % (info.length() - 4096);
        let begun = Instant::now();
        reader.read(at, 4096).await.unwrap();
        times.push(begun.elapsed());
    }
    println!(
        "first and far seeks in {} MB: {}",
        size(),
        percentiles(&mut times)
    );
    let fetch = leech.swarm.fetch(&info);
    let mut times = Vec::new();
    for step in 0..20u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let at = info.length() - 4096 - step * 5_000_000;
        let begun = Instant::now();
        reader.read(at, 4096).await.unwrap();
        times.push(begun.elapsed());
    }
    println!(
        "seeks while the whole is being fetched: {}",
        percentiles(&mut times)
    );
    drop(fetch);
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    format!("p50 {:?}, p90 {:?}, most {:?}", at(50), at(90), at(100))
}
