//! What a fresh machine lacks: installed where that is possible, else asked for in one sentence.

use crate::run::{cargo, find_program, run, target};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// A program that a chore needs, and Debian's package that has it.
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// Mounting, for everyone.
pub(crate) const MOUNT: &[Tool] = &[tool("fusermount3", "fuse3")];

/// The peers and hosts that the test suite talks to.
pub(crate) const TESTS: &[Tool] = &[
    tool("fusermount3", "fuse3"),
    tool("git", "git"),
    tool("ip", "iproute2"),
    tool("nft", "nftables"),
    tool("aria2c", "aria2"),
    tool("transmission-cli", "transmission-cli"),
    tool("rsync", "rsync"),
    tool("ffmpeg", "ffmpeg"),
    tool("faketime", "faketime"),
    tool("python3", "python3-libtorrent"),
    tool("pkg-config", "pkg-config"),
    tool("openssl", "libssl-dev"),
];

/// Published suites that tests/posix runs. Their versions are exact: what fails is listed case by case.
const SUITES: [&str; 2] = ["pjdfstest@=0.2.2", "fsx@=0.3.2"];

/// What the feature `avahi` is built with.
pub(crate) const AVAHI_BUILD: &[Tool] = &[
    tool("libclang.so", "libclang-dev"),
    tool("avahi-client/client.h", "libavahi-client-dev"),
];

/// What its tests run, privately, beside whatever runs on this host.
pub(crate) const AVAHI_TESTS: &[Tool] = &[
    tool("avahi-daemon", "avahi-daemon"),
    tool("avahi-browse", "avahi-utils"),
    tool("dbus-daemon", "dbus-daemon"),
];

/// Makes sure that all tools are here.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&str> = tools
        .iter()
        .filter(|tool| !present(tool))
        .map(|tool| tool.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ask = format!("apt-get install {}", missing.join(" "));
    if !rustix::process::geteuid().is_root() || find_program("apt-get").is_none() {
        bail!(
            "missing here: {}. On Debian: sudo {ask}",
            missing.join(", ")
        );
    }
    let quiet = ["-qq", "-y", "--no-install-recommends"];
    run(apt().args(["update", "-qq"]))?;
    run(apt().arg("install").args(quiet).args(&missing))
}

/// Makes sure that the suites are in target/tools; what is there in this version is left as it is.
pub(crate) fn ensure_suites() -> Result<()> {
    let mut command = cargo();
    command.args(["install", "--locked", "--root"]);
    run(command.arg(target().join("tools")).args(SUITES))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn present(tool: &Tool) -> bool {
    match tool.package {
        "python3-libtorrent" => Path::new("/usr/share/doc/python3-libtorrent").exists(),
        "libssl-dev" => Path::new("/usr/include/openssl/ssl.h").exists(),
        "libavahi-client-dev" => Path::new("/usr/include/avahi-client/client.h").exists(),
        "libclang-dev" => libclang_present(),
        _ => find_program(tool.program).is_some(),
    }
}

/// Each version of LLVM has a folder of its own.
fn libclang_present() -> bool {
    let Ok(folders) = std::fs::read_dir("/usr/lib") else {
        return false;
    };
    let mut libraries = folders
        .flatten()
        .filter(|folder| folder.file_name().to_string_lossy().starts_with("llvm"))
        .map(|folder| folder.path().join("lib/libclang.so"));
    libraries.any(|library| library.exists())
}
