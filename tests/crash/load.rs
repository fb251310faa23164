//! Users whose every answered operation is to outlive a kill.

use crate::ledger::{Fact, Ledger};
use crate::programs::Source;
use crate::support::crew::{Crew, Habit};
use crate::support::noise;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Between two operations of a writer: a kill finds them all busy, and the disk is not filled.
const PACE: Duration = Duration::from_millis(3);

const HABITS: [Habit<Writer>; 7] = [
    Writer::copies,
    Writer::clones,
    Writer::makes_a_tree,
    Writer::saves,
    Writer::appends,
    Writer::writes_large,
    Writer::moves_and_removes,
];

/// Starts all kinds of writers; `number` makes their names and bytes new.
pub fn start(mount: &Path, source: &Source, ledger: &Arc<Ledger>, number: &Arc<AtomicU64>) -> Crew {
    let writer = Writer {
        mount: mount.to_owned(),
        source: source.clone(),
        ledger: Arc::clone(ledger),
    };
    Crew::start(&writer, &HABITS, number, PACE)
}

#[derive(Clone)]
struct Writer {
    mount: PathBuf,
    source: Source,
    ledger: Arc<Ledger>,
}

impl Writer {
    fn write(&self, path: &str, bytes: Vec<u8>) -> io::Result<()> {
        let bytes = Arc::new(bytes);
        let after = Fact::Bytes(Arc::clone(&bytes));
        let cut_off = Fact::UpTo(Arc::clone(&bytes));
        self.ledger.begin(path, after.clone(), &[cut_off]);
        let mut file = File::create(self.mount.join(path))?;
        for chunk in bytes.chunks(64 << 10) {
            file.write_all(chunk)?;
        }
        self.close(file)?;
        self.ledger.done(path, after);
        Ok(())
    }

    /// Closes, and says whether the node was there to take it: it is alive after that.
    fn close(&self, file: File) -> io::Result<()> {
        drop(file);
        rustix::fs::statvfs(&self.mount)?;
        Ok(())
    }

    fn copies(&self, number: u64) -> io::Result<()> {
        let to = format!("copy{number}");
        self.source.copy(&self.mount, &self.ledger, &to)
    }

    fn clones(&self, number: u64) -> io::Result<()> {
        let to = format!("clone{number}");
        self.source.clone_to(&self.mount, &self.ledger, &to)
    }

    /// New directories with files of all sizes in them.
    fn makes_a_tree(&self, number: u64) -> io::Result<()> {
        let folder = format!("tree{}/folder{number}", number % 7);
        fs::create_dir_all(self.mount.join(&folder))?;
        for (nth, length) in [0, 100, 5_000, 70_000].into_iter().enumerate() {
            self.write(
                &format!("{folder}/file{nth}"),
                noise(number + nth as u64, length),
            )?;
        }
        Ok(())
    }

    /// As editors do: a temporary file, renamed over the old one. Never anything between old and new.
    fn saves(&self, number: u64) -> io::Result<()> {
        let (path, temporary) = (
            format!("document{}", number % 3),
            format!(".document{number}~"),
        );
        let length = if number.is_multiple_of(2) {
            900
        } else {
            30_000
        };
        let bytes = noise(number, length);
        self.write(&temporary, bytes.clone())?;
        let after = Fact::Bytes(Arc::new(bytes));
        self.ledger.begin(&path, after.clone(), &[]);
        self.ledger.begin(&temporary, Fact::Nothing, &[]);
        fs::rename(self.mount.join(&temporary), self.mount.join(&path))?;
        self.ledger.done(&path, after);
        self.ledger.done(&temporary, Fact::Nothing);
        Ok(())
    }

    /// A log: opened, one line appended, closed.
    fn appends(&self, number: u64) -> io::Result<()> {
        let path = format!("log{}", number % 2);
        let at = self.mount.join(&path);
        let mut bytes = match fs::read(&at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            found => found.unwrap_or_default(),
        };
        let line = format!("{number} {}\n", "x".repeat((number % 90) as usize));
        bytes.extend(line.as_bytes());
        let after = Fact::Bytes(Arc::new(bytes));
        let empty = Fact::Bytes(Arc::new(Vec::new()));
        let between = if at.exists() { vec![] } else { vec![empty] };
        self.ledger.begin(&path, after.clone(), &between);
        let mut file = File::options().append(true).create(true).open(&at)?;
        file.write_all(line.as_bytes())?;
        self.close(file)?;
        self.ledger.done(&path, after);
        Ok(())
    }

    /// Some megabytes, over an earlier version now and then.
    fn writes_large(&self, number: u64) -> io::Result<()> {
        let path = format!("large{}", number % 4);
        self.write(
            &path,
            noise(number, 2_500_000 + number as usize * 7 % 900_000),
        )
    }

    /// Files that come, move with their directory, and go.
    fn moves_and_removes(&self, number: u64) -> io::Result<()> {
        let (from, to) = (format!("moving{number}"), format!("moved{number}"));
        fs::create_dir(self.mount.join(&from))?;
        let (old, new) = (format!("{from}/file"), format!("{to}/file"));
        let bytes = noise(number, 6_000);
        self.write(&old, bytes.clone())?;
        let after = Fact::Bytes(Arc::new(bytes));
        self.ledger.begin(&old, Fact::Nothing, &[]);
        self.ledger.begin(&new, after.clone(), &[]);
        fs::rename(self.mount.join(&from), self.mount.join(&to))?;
        self.ledger.done(&old, Fact::Nothing);
        self.ledger.done(&new, after);
        if number.is_multiple_of(3) {
            return Ok(());
        }
        self.ledger.begin(&new, Fact::Nothing, &[]);
        fs::remove_file(self.mount.join(&new))?;
        self.ledger.done(&new, Fact::Nothing);
        fs::remove_dir(self.mount.join(&to))
    }
}
