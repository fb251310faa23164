//! The `delugefs` program.

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use delugefs::cli::{Arguments, Command, NodeArguments, Select, UsageError, background, scrub};
use delugefs::control::{self, Request, SettingsReport, SignersReport, StatusReport, WhereReport};
use delugefs::{fuse, node};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Exit status for a command line that cannot be understood, as clap has it.
const USAGE_ERROR: u8 = 2;

/// Exit status of a scrub after which something on the disk is still damaged.
const DAMAGE_REMAINS: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Some(command) => tell(command),
        None => start(&arguments.node).map(|()| ExitCode::SUCCESS),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("delugefs: {}", sentence(&error));
            match error.downcast_ref::<UsageError>() {
                Some(_) => ExitCode::from(USAGE_ERROR),
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// An error with its causes; most of our sentences hold theirs already.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

/// Runs a node, here or in the background.
fn start(arguments: &NodeArguments) -> Result<()> {
    let options = arguments.resolve()?;
    let child = background::is_child();
    if arguments.background && !child {
        return Ok(background::start(&options.root)?);
    }
    log_to_stderr(&arguments.log, child)?;
    if child {
        background::detach().context("cannot go to the background")?;
    }
    let ready = move || {
        if child {
            background::report(Ok(()));
        }
    };
    let outcome = node::run(options, ready);
    if let (true, Err(error)) = (child, &outcome) {
        background::report(Err(&error.to_string()));
    }
    Ok(outcome?)
}

fn log_to_stderr(level: &str, to_file: bool) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{level},mdns_sd=error"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(!to_file && std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}

/// Says something to a running node and prints what it answers.
fn tell(command: &Command) -> Result<ExitCode> {
    if let Command::Scrub(arguments) = command {
        let report = scrub(&root(&arguments.node)?)?;
        print(&report, arguments.json)?;
        return Ok(match report.damaged_contents {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(DAMAGE_REMAINS),
        });
    }
    ask(command).map(|()| ExitCode::SUCCESS)
}

fn ask(command: &Command) -> Result<()> {
    match command {
        Command::Status(status) => {
            let report: StatusReport = control::ask(&root(&status.node)?, &Request::Status)?;
            print(&report, status.json)
        }
        Command::Where(file) => {
            let (root, path) = control::mount_of(&file.path)?;
            let report: WhereReport = control::ask(&root, &Request::Where { path })?;
            print(&report, file.json)
        }
        Command::Signers(signers) => {
            let report: SignersReport = control::ask(&root(&signers.node)?, &Request::Signers)?;
            print(&report, signers.json)
        }
        Command::Set(set) => {
            let root = root(&set.node)?;
            let request = match (&set.key, &set.value) {
                (Some(key), Some(value)) => Request::Set {
                    key: key.clone(),
                    value: value.clone(),
                },
                _ => Request::Settings,
            };
            let report: SettingsReport = control::ask(&root, &request)?;
            print(&report, false)
        }
        Command::Scrub(_) => Ok(()),
        Command::WatchOverMount => Ok(fuse::watch_over_mount()?),
        Command::Stop(stop) => {
            let root = std::path::absolute(&stop.root)?;
            control::ask(&root, &Request::Stop).map_err(Into::into)
        }
    }
}

fn root(select: &Select) -> Result<PathBuf> {
    match (&select.root, &select.mount) {
        (Some(root), _) => Ok(std::path::absolute(root)?),
        (None, Some(mount)) => Ok(control::root_of_mount(mount)?),
        (None, None) => Err(anyhow!("give --root or --mount")),
    }
}

fn print<T: Display + serde::Serialize>(report: &T, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
