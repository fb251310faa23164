//! A video that is watched while it arrives.

use crate::large::{appears, pair};
use crate::support::{Lab, Process, eventually, has, noise};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WIDTH: usize = 1280;
const HEIGHT: usize = 720;
/// 22 s of noise, which no encoder makes small: 25 MB a second.
const FRAMES: u64 = 550;
const SECONDS: u64 = FRAMES / 25;

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error"]);
    command.stdin(Stdio::null());
    command
}

/// Makes a video that has its index at its end, as ffmpeg does: a player needs the end before it can begin.
fn film(path: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p"]);
    command.args(["-s", &format!("{WIDTH}x{HEIGHT}"), "-r", "25", "-i", "-"]);
    command.args(["-c:v", "mpeg4", "-q:v", "6", "-g", "12", "-f", "mp4"]);
    let mut encoder = Process(command.arg(path).stdin(Stdio::piped()).spawn().unwrap());
    let mut frames = encoder.0.stdin.take().unwrap();
    for seed in 0..FRAMES {
        frames
            .write_all(&noise(seed, WIDTH * HEIGHT * 3 / 2))
            .unwrap();
    }
    drop(frames);
    assert!(encoder.0.wait().unwrap().success());
}

/// The picture at a second, as its hash.
fn picture(path: &Path, second: u64) -> String {
    let mut command = ffmpeg();
    command.args(["-ss", &second.to_string(), "-i"]).arg(path);
    command.args(["-frames:v", "1", "-f", "framemd5", "-"]);
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(!last.starts_with('#'), "{text}");
    last.to_owned()
}

/// Plays all of it at its own speed, when told so; the pictures' hashes go to a file.
fn player(path: &Path, hashes: &Path, speed: &[&str]) -> Process {
    let mut command = ffmpeg();
    command.args(speed).arg("-i").arg(path);
    command.args(["-f", "framemd5"]).arg(hashes);
    Process(command.spawn().unwrap())
}

#[test]
#[ignore = "long: moves gigabytes"]
fn a_video_plays_and_seeks_while_it_arrives() {
    if !has(&["ffmpeg"]) {
        return;
    }
    let lab = Lab::new(2);
    let (first, second) = pair(&lab);
    let original = first.path("film.mp4");
    film(&original);
    let length = original.metadata().unwrap().len();
    appears(&second, "film.mp4", length);
    // twice what the film has in a second
    lab.limit(1, 50_000);
    let there = second.path("film.mp4");
    let before = lab.received(2);
    let moved = || (lab.received(2) - before) / 1_000_000;

    let start = Instant::now();
    let hashes = [
        lab.folder("").join("played"),
        lab.folder("").join("expected"),
    ];
    let mut playing = player(&there, &hashes[0], &["-re"]);
    eventually(Duration::from_secs(30), "it plays", || moved() > 20);
    println!("a film of {} MB, {SECONDS} s", length / 1_000_000);
    for second in [SECONDS - 2, 5, SECONDS / 2] {
        let start = Instant::now();
        let found = picture(&there, second);
        println!(
            "to second {second}: {:.1?}, {} MB moved before",
            start.elapsed(),
            moved()
        );
        assert!(moved() < length / 2_000_000, "not while it arrives");
        assert_eq!(found, picture(&original, second));
    }
    assert!(playing.0.wait().unwrap().success());
    println!("played in {:.1?}", start.elapsed());
    assert!(start.elapsed() < 3 * Duration::from_secs(SECONDS));
    assert!(
        player(&original, &hashes[1], &[])
            .0
            .wait()
            .unwrap()
            .success()
    );
    let [played, expected] = hashes.map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(
        expected
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count() as u64,
        FRAMES
    );
    assert!(played == expected);
}
