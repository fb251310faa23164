//! A real tree: tens of thousands of files, over a gigabyte, with modes, times and links.

use crate::support::{Lab, Node, has, must};
use crate::support::{eventually, large::rate};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Far beyond what this takes: a machine that others use, too, must not decide.
const PATIENCE: Duration = Duration::from_mins(10);

/// The folder of the Rust toolchain that builds us.
fn toolchain() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    PathBuf::from(text.trim())
}

/// Files and their bytes below a folder.
fn census(folder: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        let below = match metadata.is_dir() {
            true => census(&entry.path()),
            false => (1, metadata.len()),
        };
        sum = (sum.0 + below.0, sum.1 + below.1);
    }
    sum
}

/// What `rsync` would do to make a folder the same as another.
fn differences(options: &[&str], from: &Path, to: &Path) -> String {
    let mut rsync = Command::new("rsync");
    rsync.args(options).args(["--itemize-changes", "--delete"]);
    let output = rsync.arg(from.join("")).arg(to.join("")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rsync: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn quiet(node: &Node) -> bool {
    let contents = &node.status()["contents"];
    contents["unsealed"] == 0 && contents["uncommitted"] == 0
}

#[test]
#[ignore = "long: a large tree"]
fn a_toolchain_copied_in_is_the_same_elsewhere() {
    if !has(&["rsync", "rustc"]) {
        return;
    }
    let lab = Lab::new(2);
    let first = lab.node(1, "a").create().start();
    let second = lab.node(2, "b").start();
    let original = toolchain();
    let (files, bytes) = census(&original);
    let start = Instant::now();
    let mut copy = Command::new("cp");
    must(copy.arg("-a").arg(&original).arg(first.path("toolchain")));
    let copied = start.elapsed();
    println!(
        "cp -a of {files} files, {} MB: {copied:.1?}, {}",
        bytes / 1_000_000,
        rate(bytes, copied)
    );
    let settled = eventually(PATIENCE, "both have the same head", || {
        quiet(&first) && quiet(&second) && first.head() == second.head()
    });
    println!("both have the same head {settled:.1?} later");

    let elsewhere = second.path("toolchain");
    for options in ["-anc", "-aXAHn"] {
        let start = Instant::now();
        let found = differences(&[options], &original, &elsewhere);
        println!("rsync {options}: {:.1?}", start.elapsed());
        let some: Vec<_> = found.lines().take(20).collect();
        assert!(some.is_empty(), "rsync {options} finds {some:#?} …");
    }
    println!(
        "most memory: {} MB where copied, {} MB elsewhere",
        first.most_memory(),
        second.most_memory()
    );
    one_byte_shows(&second, &original);
}

/// That `rsync` finding nothing means something: a byte changed under the same length and time is found.
fn one_byte_shows(node: &Node, original: &Path) {
    use std::os::unix::fs::FileExt;
    let elsewhere = node.path("toolchain/lib/rustlib");
    let original = original.join("lib/rustlib");
    let path = elsewhere.join("components");
    let file = std::fs::File::options().read(true).write(true).open(&path);
    let file = file.unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 3).unwrap();
    file.write_all_at(&[!byte[0]], 3).unwrap();
    file.set_modified(modified).unwrap();
    drop(file);
    let found = differences(&["-anc", "--exclude=*/"], &original, &elsewhere);
    assert_eq!(found, ">fc........ components\n");
}
