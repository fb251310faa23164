//! Reading what is elsewhere: far ends first, waits that block only themselves, waits that end.

use crate::support::{Lab, Node, can_run, eventually, interruptible, noise, sha256, signal};
use rustix::fs::{Advice, AtFlags, CWD, StatxFlags, fadvise, statx};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

/// A large file's bytes: 13 seconds of the limited link.
const SIZE: usize = 128 << 20;

/// Its last megabyte.
const END: usize = 1 << 20;

/// Readers that wait at a time.
const READERS: usize = 50;

/// A file on the first disk only, and a second node that knows its name.
fn pair(lab: &Lab) -> (Node, Node) {
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    first.set("copies", "1");
    (first, second)
}

fn appears(node: &Node, name: &str, length: usize) {
    eventually(SOON, name, || {
        let metadata = node.path(name).metadata();
        metadata.is_ok_and(|metadata| metadata.len() == length as u64)
    });
}

/// `cat` of the numbered files that the first disk has.
fn readers(node: &Node) -> Vec<Child> {
    let cat = |number: usize| {
        let mut command = interruptible("cat");
        command.arg(node.path(&format!("far{number}")));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    (0..READERS).map(cat).collect()
}

/// Rounds of stat, open and read.
const ROUNDS: usize = 1000;

/// The times within which 99 of 100 of these end, for files that are here. None is answered by the kernel alone.
#[derive(Debug)]
struct Slowest {
    stat: Duration,
    open: Duration,
    read: Duration,
}

impl Slowest {
    fn measure(node: &Node) -> Self {
        let mut times = [const { Vec::new() }; 3];
        for round in 0..ROUNDS {
            let path = node.path(&format!("near{}", round % READERS));
            let start = Instant::now();
            statx(CWD, &path, AtFlags::STATX_FORCE_SYNC, StatxFlags::ALL).unwrap();
            times[0].push(start.elapsed());
            let start = Instant::now();
            let file = File::open(&path).unwrap();
            times[1].push(start.elapsed());
            // what an earlier round has read is forgotten
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            let start = Instant::now();
            file.read_exact_at(&mut [0; 100], 5).unwrap();
            times[2].push(start.elapsed());
        }
        let [stat, open, read] = times.map(|mut times| {
            times.sort();
            times[ROUNDS * 99 / 100]
        });
        Self { stat, open, read }
    }
}

#[test]
fn an_open_file_is_read_as_it_was_though_it_was_replaced_elsewhere() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let (old, new) = (noise(1, 200_000), noise(2, 300_000));
    fs::write(first.path("f"), &old).unwrap();
    appears(&second, "f", old.len());
    // nothing has been read yet, and nothing is here
    let file = File::open(second.path("f")).unwrap();
    fs::write(first.path("new"), &new).unwrap();
    fs::rename(first.path("new"), first.path("f")).unwrap();
    appears(&second, "f", new.len());
    let mut read = vec![0; old.len()];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read == old);
    assert!(fs::read(second.path("f")).unwrap() == new);
}

#[test]
fn waiting_reads_block_only_themselves() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    for number in 0..READERS {
        fs::write(
            first.path(&format!("far{number}")),
            noise(number as u64, 100_000),
        )
        .unwrap();
        let near = noise(1000 + number as u64, 20_000);
        fs::write(second.path(&format!("near{number}")), near).unwrap();
    }
    (0..READERS).for_each(|number| appears(&second, &format!("far{number}"), 100_000));
    eventually(SOON, "all is sealed", || {
        second.status()["contents"]["unsealed"] == 0
    });
    signal(first.pid(), Signal::STOP);
    Slowest::measure(&second);
    let without = Slowest::measure(&second);

    let mut waiting = readers(&second);
    std::thread::sleep(Duration::from_millis(500));
    let with = Slowest::measure(&second);
    println!("99 of 100 alone: {without:?}");
    println!("99 of 100 beside {READERS} waiting: {with:?}");
    // below a few milliseconds, who else uses the machine decides
    let most = |alone: Duration| 2 * alone.max(Duration::from_millis(10));
    assert!(with.stat < most(without.stat));
    assert!(with.open < most(without.open));
    assert!(with.read < most(without.read));
    assert!(
        waiting
            .iter_mut()
            .all(|child| child.try_wait().unwrap().is_none())
    );

    let start = Instant::now();
    for (number, child) in waiting.iter().enumerate() {
        let sent = [Signal::INT, Signal::KILL][number % 2];
        signal(child.id(), sent);
    }
    let ended = waiting
        .into_iter()
        .all(|mut child| !child.wait().unwrap().success());
    println!("readers ended within {:?}", start.elapsed());
    assert!(ended && start.elapsed() < Duration::from_secs(1));

    let waiting = readers(&second);
    std::thread::sleep(Duration::from_millis(300));
    signal(first.pid(), Signal::CONT);
    let whole = waiting
        .into_iter()
        .all(|mut child| child.wait().unwrap().success());
    assert!(whole, "they finish when the holder is back");
}

#[test]
fn a_wait_in_vain_ends_and_is_told_once() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (mut first, second) = pair(&lab);
    first.set("wait", "2s");
    fs::create_dir(first.path("films")).unwrap();
    let bytes = noise(1, 300_000);
    fs::write(first.path("films/far.mkv"), &bytes).unwrap();
    appears(&second, "films/far.mkv", bytes.len());
    eventually(SOON, "it is known who has it", || {
        let found = second.status()["contents"]["short_of_copies"] == 0;
        found && first.status()["contents"]["held"] == 1
    });
    std::thread::sleep(Duration::from_millis(500));
    first.kill();

    let path = second.path("films/far.mkv");
    let read = || fs::read(&path).map_err(|error| error.raw_os_error());
    let start = Instant::now();
    let several: Vec<_> = std::thread::scope(|scope| {
        let reads: Vec<_> = (0..5).map(|_| scope.spawn(read)).collect();
        reads.into_iter().map(|read| read.join().unwrap()).collect()
    });
    let waited = start.elapsed();
    let failed = Err(Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(several.iter().all(|read| *read == failed), "{several:?}");
    assert!(
        waited > Duration::from_secs(1) && waited < Duration::from_secs(8),
        "{waited:?}"
    );
    let start = Instant::now();
    assert_eq!(read(), failed);
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "fails at once"
    );
    let log = second.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("cannot read"))
        .collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(
        told[0].contains("films/far.mkv") && told[0].contains(" a ("),
        "{log}"
    );

    drop(first);
    let _first = lab.node(1, "a").start();
    eventually(SOON, "the holder is back", || read() == Ok(bytes.clone()));
}

/// A holder that is stopped in the middle of sending: it is still connected for a while, and answers nothing.
#[test]
fn a_holder_that_freezes_halfway_is_waited_for_once() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(3);
    let (first, second) = pair(&lab);
    first.set("wait", "2s");
    let bytes = noise(5, SIZE);
    fs::write(first.path("film"), &bytes).unwrap();
    appears(&second, "film", SIZE);
    eventually(SOON, "it is known who has it", || {
        first.status()["contents"]["held"] == 1
    });
    lab.limit(1, 10_000);
    let file = File::open(second.path("film")).unwrap();
    let read = |at: usize| {
        let mut found = vec![0; 1000];
        let start = Instant::now();
        let result = file.read_exact_at(&mut found, at as u64);
        let right = result.map(|()| found == bytes[at..at + 1000]);
        (right.map_err(|error| error.raw_os_error()), start.elapsed())
    };
    assert_eq!(read(1000).0, Ok(true));
    signal(first.pid(), Signal::STOP);
    let failed = Err(Some(rustix::io::Errno::IO.raw_os_error()));
    let at = |nth: usize| SIZE / 2 + nth * (2 << 20);
    let (result, time) = read(at(0));
    assert_eq!(result, failed);
    assert!(time < Duration::from_secs(8), "{time:?}");
    // while the link is still up, when it is given up, when somebody else comes, and after
    let until = Instant::now() + Duration::from_secs(9);
    let mut third = None;
    let mut slowest = Duration::ZERO;
    for nth in 1.. {
        if Instant::now() > until {
            break;
        }
        let (result, time) = read(at(nth % 20));
        assert_eq!(result, failed);
        slowest = slowest.max(time);
        third.get_or_insert_with(|| lab.node(3, "c").storage().start());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("after the first wait, the slowest read failed within {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let log = second.log();
    let told = log.lines().filter(|line| line.contains("cannot read"));
    assert_eq!(told.count(), 1, "{log}");

    signal(first.pid(), Signal::CONT);
    eventually(SOON, "the holder is back", || read(at(3)).0 == Ok(true));
    lab.limit(1, 1_000_000);
    assert_eq!(sha256(&second.path("film")), sha256(&first.path("film")));
}

#[test]
fn the_far_end_arrives_before_the_rest() {
    if !can_run() {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let bytes = noise(3, SIZE);
    fs::write(first.path("small"), &bytes[..1 << 20]).unwrap();
    fs::write(first.path("large"), &bytes).unwrap();
    appears(&second, "small", 1 << 20);
    appears(&second, "large", SIZE);
    // 13 seconds for the whole
    lab.limit(1, 10_000);

    let first_byte = |name: &str| {
        let start = Instant::now();
        let mut byte = [0];
        let file = File::open(second.path(name)).unwrap();
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte[0], bytes[0]);
        start.elapsed()
    };
    let (small, large) = (first_byte("small"), first_byte("large"));
    println!("first byte: {small:?} of 1 MiB, {large:?} of 128 MiB");
    assert!(large < Duration::from_secs(2));

    let start = Instant::now();
    let mut end = vec![0; END];
    let file = File::open(second.path("large")).unwrap();
    file.read_exact_at(&mut end, (SIZE - END) as u64).unwrap();
    println!("last megabyte: {:?}", start.elapsed());
    assert!(end == bytes[SIZE - END..] && start.elapsed() < Duration::from_secs(4));
    lab.limit(1, 1_000_000);
    assert_eq!(sha256(&second.path("large")), sha256(&first.path("large")));
}
