//! The main job, for someone who sees it for the first time: several disks on this machine, real mounts, a file
//! written here and read there.

use crate::run::{cargo, run, target};
use crate::setup;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How the demo is run.
#[derive(Args)]
pub(crate) struct Options {
    /// Where the disks and mounts are made (default: a new folder in the temporary folder).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Stop the nodes and remove everything at the end, instead of leaving them running.
    #[arg(long)]
    stop: bool,
}

/// How long the demo waits for a file to appear on the other mount.
const ARRIVAL_WAIT: Duration = Duration::from_mins(1);

struct Demo {
    program: PathBuf,
    folder: PathBuf,
}

/// Runs the demo.
pub(crate) fn demo(options: &Options) -> Result<()> {
    setup::ensure(setup::MOUNT)?;
    run(cargo().args(["build", "--locked", "--package", "delugefs"]))?;
    let folder = match &options.dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("delugefs-demo-{}", std::process::id())),
    };
    let program = target().join("debug/delugefs");
    let demo = Demo { program, folder };
    let shown = demo.start().and_then(|()| demo.show());
    if options.stop || shown.is_err() {
        demo.stop();
    }
    shown?;
    if !options.stop {
        demo.explain();
    }
    Ok(())
}

impl Demo {
    fn root(&self, disk: u32) -> PathBuf {
        self.folder.join(format!("disk{disk}"))
    }

    fn mount(&self, disk: u32) -> PathBuf {
        self.folder.join(format!("mount{disk}"))
    }

    /// Three disks: two with a mount, the third for storage only.
    fn start(&self) -> Result<()> {
        for disk in 1..=3 {
            let mut command = Command::new(&self.program);
            if disk == 1 {
                command.arg("--create");
            }
            command.args(["--id", "demo", "--background", "--label"]);
            command.arg(format!("disk{disk}"));
            command.arg("--root").arg(self.root(disk));
            fs::create_dir_all(self.root(disk)).context("cannot make the demo's folder")?;
            if disk != 3 {
                fs::create_dir_all(self.mount(disk))?;
                command.arg("--mount").arg(self.mount(disk));
            }
            run(&mut command)?;
        }
        Ok(())
    }

    fn show(&self) -> Result<()> {
        self.copy("hello.txt", b"written on one disk, read on another\n")?;
        let large: Vec<u8> = (0..32u32 << 20)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        self.copy("large.bin", &large)?;
        run(Command::new(&self.program)
            .arg("where")
            .arg(self.mount(2).join("large.bin")))?;
        run(Command::new(&self.program)
            .arg("status")
            .arg("--root")
            .arg(self.root(1)))
    }

    /// Writes a file through one mount and reads it whole through the other.
    fn copy(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (from, to) = (self.mount(1).join(name), self.mount(2).join(name));
        let mut file = fs::File::create(&from)?;
        file.write_all(bytes)?;
        drop(file);
        println!("wrote {} bytes to {}", bytes.len(), from.display());
        let start = Instant::now();
        let seen = read_when_there(&to)?;
        if seen != bytes {
            bail!("{} differs from what was written", to.display());
        }
        println!(
            "read them from {} after {} ms",
            to.display(),
            start.elapsed().as_millis()
        );
        Ok(())
    }

    fn explain(&self) {
        let program = self.program.display();
        println!("\nThe volume is left running; what you write into one of");
        println!(
            "    {}\n    {}",
            self.mount(1).display(),
            self.mount(2).display()
        );
        println!("appears in the other. To look around:");
        println!("    {program} status --mount {}", self.mount(1).display());
        println!("To end it and remove everything:");
        for disk in 1..=3 {
            println!("    {program} stop --root {}", self.root(disk).display());
        }
        println!("    rm -r {}", self.folder.display());
    }

    fn stop(&self) {
        for disk in 1..=3 {
            if self.root(disk).join("control").exists() {
                let stop = Command::new(&self.program)
                    .arg("stop")
                    .arg("--root")
                    .arg(self.root(disk))
                    .status();
                if !stop.is_ok_and(|status| status.success()) {
                    eprintln!(
                        "cannot stop {}; its folder is left",
                        self.root(disk).display()
                    );
                    return;
                }
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn read_when_there(path: &Path) -> Result<Vec<u8>> {
    let end = Instant::now() + ARRIVAL_WAIT;
    loop {
        match fs::read(path) {
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Err(_) if Instant::now() > end => bail!("{} did not appear", path.display()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
