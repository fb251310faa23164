//! What can be said on the command line.

use super::units::{parse_size, parse_time};
use crate::fuse::WATCHER_COMMAND;
use clap::{Args, Parser, Subcommand};
use delugefs_core::limits::{LABEL_BYTES_MAX, VOLUME_NAME_BYTES_MAX};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What `--log` takes, from least to most.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

const LONG_ABOUT: &str = "\
One filesystem made of spare disks, with no server.

Start one process for each disk; disks of one volume find each other on the local network:

    server1$ delugefs --create --id bigstore --root /mnt/disk1/.bigstoredb --mount ~/bigstore
    server1$ delugefs          --id bigstore --root /mnt/disk2/.bigstoredb
    server2$ delugefs          --id bigstore --root /mnt/disk3/.bigstoredb --mount ~/bigstore";

/// The command line of `delugefs`.
#[derive(Debug, Parser)]
#[command(
    name = "delugefs",
    version,
    about = "One filesystem made of spare disks, with no server"
)]
#[command(long_about = LONG_ABOUT)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// Ask or tell a running node.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Run a node.
    #[command(flatten)]
    pub node: NodeArguments,
}

/// What a node is started with, as given.
#[allow(clippy::struct_excessive_bools)] // each is a flag of its own
#[derive(Debug, Clone, Args)]
pub struct NodeArguments {
    /// The volume's name (NAME#UUIDPREFIX where two volumes have one name)
    #[arg(long, value_name = "NAME", required = true)]
    pub id: Option<String>,
    /// The folder on the disk that holds this node's part of the volume
    #[arg(long, value_name = "DIR", required = true)]
    pub root: Option<PathBuf>,
    /// Make a new volume, with this disk as its first
    #[arg(long)]
    pub create: bool,
    /// Where the volume's files shall appear (none: a storage node)
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// How this disk is called in messages and in names of conflict copies (default: HOST:ROOT)
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
    /// Where this disk is; copies are spread over sites
    #[arg(long, value_name = "TEXT")]
    pub site: Option<String>,
    /// Most bytes to use, e.g. 500G (default: the disk, less a reserve)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub capacity: Option<u64>,
    /// Where to listen (default: every address, a port chosen once and kept)
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// A node to connect to, where mDNS does not reach (may be repeated)
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Vec<String>,
    /// Do not announce or look for nodes by mDNS
    #[arg(long)]
    pub no_mdns: bool,
    /// Let other users of this machine into the mount
    #[arg(long)]
    pub allow_other: bool,
    /// Return once the node is up and mounted; the exit status tells
    #[arg(long)]
    pub background: bool,
    /// How much to say: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = LOG_LEVELS, hide_possible_values = true)]
    pub log: String,
}

/// Commands to a running node.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a node: its volume, peers, space, and what is under way
    Status(StatusArguments),
    /// Show which disks hold a file
    Where(WhereArguments),
    /// Print the keys that sign the volume's commits, as git's gpg.ssh.allowedSignersFile
    Signers(SignersArguments),
    /// Show or change the volume's settings
    Set(SetArguments),
    /// Read all that a disk holds again, and repair what is damaged
    Scrub(ScrubArguments),
    /// Finish what is under way, unmount and stop a node
    Stop(StopArguments),
    /// What a node starts beside its mount
    #[command(name = WATCHER_COMMAND, hide = true)]
    WatchOverMount,
}

/// Which running node is meant.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Select {
    /// The node's root folder
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where the node's volume is mounted
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
}

/// `delugefs status`
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Which node.
    #[command(flatten)]
    pub node: Select,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `delugefs signers`
#[derive(Debug, Args)]
pub struct SignersArguments {
    /// Which node.
    #[command(flatten)]
    pub node: Select,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `delugefs where`
#[derive(Debug, Args)]
pub struct WhereArguments {
    /// A file under a mount
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `delugefs set`
#[derive(Debug, Args)]
pub struct SetArguments {
    /// Which node.
    #[command(flatten)]
    pub node: Select,
    /// copies, grace, keep, wait, inline_max or history (none: show all)
    #[arg(requires = "value")]
    pub key: Option<String>,
    /// The new value, e.g. 3, 24h, 4096
    pub value: Option<String>,
}

/// `delugefs scrub`: ends with status 0 if nothing remains damaged, 3 if something does
#[derive(Debug, Args)]
pub struct ScrubArguments {
    /// Which node.
    #[command(flatten)]
    pub node: Select,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `delugefs stop`
#[derive(Debug, Args)]
pub struct StopArguments {
    /// The node's root folder
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
}

/// What is wrong with a command line that clap let through.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A flag that is needed is missing.
    #[error("{0} is missing; see delugefs --help")]
    Missing(&'static str),
    /// A volume's name that cannot be used.
    #[error(
        "--id {0:?}: a volume's name has 1 to {VOLUME_NAME_BYTES_MAX} letters, digits, dots, dashes and underscores"
    )]
    VolumeName(String),
    /// A label that cannot be used.
    #[error("--label {0:?}: a label has 1 to {LABEL_BYTES_MAX} bytes without control characters")]
    Label(String),
    /// A path that does not lead anywhere.
    #[error("{path}: {source}")]
    Path {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What a node is started with, checked: paths absolute, names valid.
#[derive(Debug, Clone)]
pub struct Options {
    /// The volume's name.
    pub volume: String,
    /// Start of the volume's UUID in hex, to tell volumes of one name apart.
    pub volume_prefix: Option<String>,
    /// The root folder.
    pub root: PathBuf,
    /// Make a new volume.
    pub create: bool,
    /// Where to mount.
    pub mount: Option<PathBuf>,
    /// The disk's label.
    pub label: Option<String>,
    /// The disk's site.
    pub site: Option<String>,
    /// Most bytes to use.
    pub capacity: Option<u64>,
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// Known peers, `HOST:PORT`.
    pub peers: Vec<String>,
    /// Use mDNS.
    pub mdns: bool,
    /// Let other users in.
    pub allow_other: bool,
}

impl NodeArguments {
    /// Checks everything that can be checked before anything is touched.
    pub fn resolve(&self) -> Result<Options, UsageError> {
        let id = self.id.as_deref().ok_or(UsageError::Missing("--id"))?;
        let root = self.root.as_deref().ok_or(UsageError::Missing("--root"))?;
        let (volume, prefix) = match id.split_once('#') {
            Some((name, prefix)) => (name, Some(prefix.replace('-', "").to_ascii_lowercase())),
            None => (id, None),
        };
        if !valid_volume_name(volume) {
            return Err(UsageError::VolumeName(volume.to_owned()));
        }
        if let Some(label) = self.label.as_deref().filter(|label| !valid_label(label)) {
            return Err(UsageError::Label(label.to_owned()));
        }
        Ok(Options {
            volume: volume.to_owned(),
            volume_prefix: prefix,
            root: absolute(root)?,
            create: self.create,
            mount: self.mount.as_deref().map(absolute).transpose()?,
            label: self.label.clone(),
            site: self.site.clone(),
            capacity: self.capacity,
            listen: self.listen,
            peers: self.peer.clone(),
            mdns: !self.no_mdns,
            allow_other: self.allow_other,
        })
    }
}

fn absolute(path: &Path) -> Result<PathBuf, UsageError> {
    std::path::absolute(path).map_err(|source| UsageError::Path {
        path: path.to_owned(),
        source,
    })
}

fn valid_volume_name(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=VOLUME_NAME_BYTES_MAX).contains(&name.len())
        && name.chars().all(valid)
        && !name.starts_with(['.', '-'])
}

fn valid_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && !label.chars().any(char::is_control)
}

/// A new value of a volume's setting.
pub fn apply_setting(
    settings: &mut delugefs_core::settings::Settings,
    key: &str,
    value: &str,
) -> Result<(), String> {
    use delugefs_core::limits::INLINE_BYTES_MAX;
    let time = || parse_time(value).map_err(|error| error.to_string());
    match key {
        "copies" => match value.parse() {
            Ok(copies) if (1..=100).contains(&copies) => settings.copies = copies,
            _ => return Err(format!("copies is a number from 1 to 100, not {value:?}")),
        },
        "grace" => settings.grace = time()?,
        "keep" => settings.keep = time()?,
        "wait" => settings.wait = time()?,
        "history" => settings.history = time()?,
        "retire" => settings.retire = time()?,
        "inline_max" => match parse_size(value) {
            Ok(bytes) if bytes <= INLINE_BYTES_MAX as u64 => settings.inline_max = bytes as u32,
            _ => return Err(format!("inline_max is a size up to 64K, not {value:?}")),
        },
        _ => {
            return Err(format!(
                "there is no setting {key:?}; there are copies, grace, keep, wait, inline_max, history, retire"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn flags_come_in_any_order() {
        let line = "delugefs --mount /m --root /r --create --id bigstore --peer a:1 --peer b:2 --capacity 500G";
        let options = parse(line).unwrap().node.resolve().unwrap();
        assert_eq!(options.volume, "bigstore");
        assert!(options.create);
        assert_eq!(options.peers, ["a:1", "b:2"]);
        assert_eq!(options.capacity, Some(500 << 30));
    }

    #[test]
    fn commands_do_not_ask_for_a_volume() {
        assert!(
            parse("delugefs status --root /r --json")
                .unwrap()
                .command
                .is_some()
        );
        assert!(
            parse("delugefs set --mount /m copies 3")
                .unwrap()
                .command
                .is_some()
        );
        assert!(
            parse("delugefs set --mount /m copies").is_err(),
            "a key needs a value"
        );
        assert!(parse("delugefs status").is_err(), "which node?");
        assert!(parse("delugefs --root /r").is_err(), "--id is missing");
    }

    #[test]
    fn a_volume_among_several_of_one_name() {
        let node = parse("delugefs --id big#AB-cd --root r").unwrap().node;
        let options = node.resolve().unwrap();
        assert_eq!(options.volume_prefix.as_deref(), Some("abcd"));
        assert!(options.root.is_absolute());
    }

    #[test]
    fn names_that_would_hurt_are_refused() {
        for bad in ["", "a/b", ".x", "-x", "a b", "ä", &"x".repeat(65)] {
            assert!(!valid_volume_name(bad), "{bad}");
        }
    }
}
