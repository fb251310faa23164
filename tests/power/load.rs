//! Users who sync what they want kept.

use crate::ledger::{Ledger, Version};
use crate::support::crew::{Crew, Habit};
use crate::support::noise;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Between two operations of a writer: the cut finds them all busy, and the disk is not filled.
const PACE: Duration = Duration::from_millis(5);

const HABITS: [Habit<Writer>; 8] = [
    Writer::saves,
    Writer::saves_in_a_hurry,
    Writer::makes_files,
    Writer::fills_a_folder,
    Writer::appends,
    Writer::overwrites,
    Writer::moves_and_removes,
    Writer::does_not_sync,
];

/// Starts all kinds of writers; `number` makes their names and bytes new.
pub fn start(mount: &Path, ledger: &Arc<Ledger>, number: &Arc<AtomicU64>) -> Crew {
    let writer = Writer {
        mount: mount.to_owned(),
        ledger: Arc::clone(ledger),
    };
    Crew::start(&writer, &HABITS, number, PACE)
}

#[derive(Clone)]
struct Writer {
    mount: PathBuf,
    ledger: Arc<Ledger>,
}

#[expect(clippy::unnecessary_wraps, reason = "it names the type's other half")]
fn some(bytes: Vec<u8>) -> Version {
    Some(Arc::new(bytes))
}

impl Writer {
    fn at(&self, path: &str) -> PathBuf {
        self.mount.join(path)
    }

    /// Writes a new file; the caller syncs.
    fn write(&self, path: &str, bytes: &Version) -> io::Result<File> {
        // it exists before it has bytes
        self.ledger.begin(path, &some(Vec::new()));
        self.ledger.begin(path, bytes);
        let mut file = File::create_new(self.at(path))?;
        for chunk in bytes.as_ref().unwrap().chunks(64 << 10) {
            file.write_all(chunk)?;
        }
        Ok(file)
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }

    /// As editors do: a temporary file, synced, renamed over the old one. Never anything between old and new.
    fn saves(&self, number: u64) -> io::Result<()> {
        let length = [900, 30_000][(number % 2) as usize];
        let path = format!("document{}", number % 3);
        self.save(&path, number, &some(noise(number, length)))
    }

    fn save(&self, path: &str, number: u64, bytes: &Version) -> io::Result<()> {
        let temporary = format!(".{path}{number}~");
        self.write(&temporary, bytes)?.sync_all()?;
        self.ledger.promise(&temporary);
        self.ledger.begin(path, bytes);
        self.ledger.begin(&temporary, &None);
        fs::rename(self.at(&temporary), self.at(path))?;
        self.sync_folder("")?;
        self.ledger.promise(path);
        self.ledger.promise(&temporary);
        Ok(())
    }

    /// Saves, and at once again without a sync: that version, or the one before, never an older one.
    fn saves_in_a_hurry(&self, number: u64) -> io::Result<()> {
        let path = format!("hurried{}", number % 2);
        let temporary = format!(".{path}{number}again~");
        self.save(&path, number, &some(noise(number, 9_000)))?;
        let bytes = some(noise(number + 1, 90_000));
        self.write(&temporary, &bytes)?;
        self.ledger.begin(&path, &bytes);
        self.ledger.begin(&temporary, &None);
        fs::rename(self.at(&temporary), self.at(&path))
    }

    /// Files of all sizes, each synced; the folder is not.
    fn makes_files(&self, number: u64) -> io::Result<()> {
        let path = format!("file{number}");
        let length = [0, 10, 4_000, 9_000, 150_000][(number / 7 % 5) as usize];
        self.write(&path, &some(noise(number, length)))?
            .sync_all()?;
        self.ledger.promise(&path);
        Ok(())
    }

    /// Files that are closed and not synced; then their folder is.
    fn fills_a_folder(&self, number: u64) -> io::Result<()> {
        let folder = format!("folder{number}");
        fs::create_dir(self.at(&folder))?;
        let lengths = [0, 3_000, 5_000, 70_000];
        let path = |nth: usize| format!("{folder}/file{nth}");
        for (nth, length) in lengths.into_iter().enumerate() {
            self.write(&path(nth), &some(noise(number + nth as u64, length)))?;
        }
        self.sync_folder(&folder)?;
        (0..lengths.len()).for_each(|nth| self.ledger.promise(&path(nth)));
        Ok(())
    }

    /// A log that stays open for some lines, of which every third is synced.
    fn appends(&self, number: u64) -> io::Result<()> {
        let path = format!("log{number}");
        let mut file = File::options()
            .append(true)
            .create_new(true)
            .open(self.at(&path))?;
        self.ledger.grow(&path, &some(Vec::new()));
        let mut bytes = Vec::new();
        for line in 1..=30 {
            let text = noise(number * 31 + line, 10 + (number * line % 3_000) as usize);
            bytes.extend_from_slice(&text);
            self.ledger.grow(&path, &some(bytes.clone()));
            file.write_all(&text)?;
            if line % 3 == 0 {
                file.sync_data()?;
                self.ledger.promise(&path);
            }
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    /// A large file, replaced by another one and another one.
    fn overwrites(&self, number: u64) -> io::Result<()> {
        let (path, next) = (
            format!("large{}", number % 2),
            format!("large{number}.next"),
        );
        let bytes = some(noise(number, 2_500_000 + number as usize * 7 % 900_000));
        self.write(&next, &bytes)?.sync_all()?;
        self.ledger.promise(&next);
        self.ledger.begin(&path, &bytes);
        self.ledger.begin(&next, &None);
        fs::rename(self.at(&next), self.at(&path))?;
        if number.is_multiple_of(3) {
            self.sync_folder("")?;
            self.ledger.promise(&path);
            self.ledger.promise(&next);
        }
        Ok(())
    }

    /// Files that come, move with their directory, and go.
    fn moves_and_removes(&self, number: u64) -> io::Result<()> {
        let (from, to) = (format!("moving{number}"), format!("moved{number}"));
        fs::create_dir(self.at(&from))?;
        let (old, new) = (format!("{from}/file"), format!("{to}/file"));
        let bytes = some(noise(number, 6_000));
        self.write(&old, &bytes)?.sync_all()?;
        self.ledger.promise(&old);
        self.ledger.begin(&old, &None);
        self.ledger.begin(&new, &None);
        self.ledger.begin(&new, &bytes);
        fs::rename(self.at(&from), self.at(&to))?;
        self.sync_folder("")?;
        self.ledger.promise(&old);
        self.ledger.promise(&new);
        if number.is_multiple_of(3) {
            return Ok(());
        }
        self.ledger.begin(&new, &None);
        fs::remove_file(self.at(&new))?;
        self.sync_folder(&to)?;
        self.ledger.promise(&new);
        Ok(())
    }

    /// Whatever becomes of it: not other bytes.
    fn does_not_sync(&self, number: u64) -> io::Result<()> {
        let path = format!("careless{number}");
        let length = [5_000, 40_000, 700_000][(number / 7 % 3) as usize];
        self.write(&path, &some(noise(number, length)))?;
        Ok(())
    }
}
