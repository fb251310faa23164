//! Users of one mount: what they do, and what they write into the ledger about it.

use super::ledger::{Claim, Ledger};
use super::observer::{Thing, XATTR, link, names};
use super::plan::Draw;
use crate::support::noise;
use rustix::fs::{RenameFlags, XattrFlags};
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two acts: the machine has other things to do as well, and histories stay small.
const PACE: Duration = Duration::from_millis(40);

/// A node's lives: even while it should be up, odd from before a kill until it is up again.
pub struct Life(AtomicU64);

impl Life {
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn turns(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Writer<'a> {
    pub nth: usize,
    pub mount: PathBuf,
    pub ledger: &'a Ledger,
    pub life: &'a Life,
    pub draw: Draw,
    began: u64,
    count: u64,
    acts: BTreeMap<&'static str, u64>,
    odd: Vec<String>,
}

/// What a writer has done: acts that were answered well, by their names; answers that nothing excuses.
#[derive(Debug)]
pub struct Done {
    pub acts: BTreeMap<&'static str, u64>,
    pub odd: Vec<String>,
}

#[derive(Clone, Copy)]
enum Edit {
    Overwrite,
    Append,
    Truncate,
}

const SHARED: &str = "shared";

impl<'a> Writer<'a> {
    pub fn new(nth: usize, mount: PathBuf, shared: (&'a Ledger, &'a Life), draw: Draw) -> Self {
        Self {
            nth,
            mount,
            ledger: shared.0,
            life: shared.1,
            draw,
            began: 0,
            count: 0,
            acts: BTreeMap::new(),
            odd: Vec::new(),
        }
    }

    /// Writes until it is told to stop.
    pub fn run(mut self, is_over: impl Fn() -> bool) -> Done {
        while !is_over() {
            std::thread::sleep(PACE);
            self.began = self.life.now();
            if !self.began.is_multiple_of(2) {
                continue;
            }
            self.count += 1;
            let own = self.draw.below(3) == 0;
            let root = if own {
                format!("own{}", self.nth)
            } else {
                SHARED.to_owned()
            };
            let (act, result) = self.act(&root);
            match result {
                Ok(()) => *self.acts.entry(act).or_default() += 1,
                Err(error) if self.is_alive() && !is_excused(&error, own) => {
                    self.odd
                        .push(format!("{act} in {root} at {}: {error}", self.nth));
                }
                Err(_) => *self.acts.entry("refused").or_default() += 1,
            }
        }
        Done {
            acts: self.acts,
            odd: self.odd,
        }
    }

    /// Whether nobody has killed the node since the act began: what it answered counts.
    fn is_alive(&self) -> bool {
        self.life.now() == self.began
    }

    fn act(&mut self, root: &str) -> (&'static str, io::Result<()>) {
        let (folders, leaves) = match names(&self.mount, root) {
            Ok(found) => found,
            Err(error) => return ("list", Err(error)),
        };
        let folder = match self.draw.below(2) {
            0 if !folders.is_empty() => self.draw.one(&folders).clone(),
            _ => root.to_owned(),
        };
        let pool = self.draw.below(8);
        let fresh = format!("{folder}/f{pool}");
        let choice = self.draw.below(100);
        if leaves.is_empty() || choice < 14 {
            return self.make(root, &folder, &fresh);
        }
        let leaf = self.draw.one(&leaves).clone();
        let stat = fs::symlink_metadata(self.path(&leaf));
        let is_link = stat.is_ok_and(|stat| stat.is_symlink());
        match choice {
            14..66 if is_link => ("unlink", self.unlink(&leaf)),
            14..28 => ("overwrite", self.edit(&leaf, Edit::Overwrite)),
            28..38 => ("append", self.edit(&leaf, Edit::Append)),
            38..42 => ("truncate", self.edit(&leaf, Edit::Truncate)),
            42..54 => ("save", self.save(&leaf)),
            54..58 => ("save", self.save(&fresh)),
            58..62 => ("chmod", self.chmod(&leaf)),
            62..66 => ("xattr", self.xattr(&leaf)),
            66..76 => ("unlink", self.unlink(&leaf)),
            76..83 => ("rename", self.rename(&leaf, &fresh)),
            83..90 => {
                let over = self.draw.one(&leaves).clone();
                ("rename over", self.rename_over(&leaf, &over))
            }
            90..94 if !folders.is_empty() => {
                let to = format!("{folder}/d{pool}");
                let from = self.draw.one(&folders).clone();
                ("move directory", self.rename(&from, &to))
            }
            94..97 if !folders.is_empty() => {
                let gone = self.draw.one(&folders).clone();
                ("rmdir", fs::remove_dir(self.path(&gone)))
            }
            _ => (
                "mkdir",
                fs::create_dir(self.path(&format!("{folder}/d{}", pool % 3))),
            ),
        }
    }

    fn make(&mut self, root: &str, folder: &str, name: &str) -> (&'static str, io::Result<()>) {
        match self.draw.below(6) {
            0 => (
                "symlink",
                self.symlink(&format!("{folder}/l{}-{}", self.nth, self.count)),
            ),
            1 if root == SHARED => ("create alike", self.create_alike()),
            _ if fs::symlink_metadata(self.path(name)).is_ok() => ("save", self.save(name)),
            _ => {
                let bytes = self.bytes(name);
                ("create", self.create(name, &bytes))
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Bytes that nobody has written before; their first line tells whose they are.
    fn bytes(&mut self, name: &str) -> Vec<u8> {
        let length = [0, 40, 900, 7_000, 60_000, 300_000][self.draw.below(6) as usize];
        let mut bytes = format!("{}#{} {name}\n", self.nth, self.count).into_bytes();
        bytes.extend(noise(self.draw.next(), length));
        bytes
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.ledger.begin(self.nth, name, bytes, None);
        self.own_begins(&[name]);
        let mut file = File::create_new(self.path(name))?;
        file.write_all(bytes)?;
        self.close(file)?;
        if self.is_alive() {
            self.ledger.made(bytes);
            self.own_is(name, Some(Some(Thing::file(bytes))));
        }
        Ok(())
    }

    /// The same bytes under the same name as others, who do so at about the same time.
    fn create_alike(&mut self) -> io::Result<()> {
        let number = self.count / 20;
        let bytes = format!("alike {number}\n").repeat(number as usize + 1);
        self.ledger.common(bytes.as_bytes());
        let mut file = File::create_new(self.path(&format!("{SHARED}/alike{number}")))?;
        file.write_all(bytes.as_bytes())?;
        self.close(file)
    }

    fn close(&mut self, file: File) -> io::Result<()> {
        if self.draw.below(3) == 0 {
            file.sync_all()?;
        }
        drop(file);
        Ok(())
    }

    /// In place: what the handle reads is what is overwritten, whatever arrives while it writes.
    fn edit(&mut self, name: &str, how: Edit) -> io::Result<()> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .open(self.path(name))?;
        let mut seen = Vec::new();
        file.read_to_end(&mut seen)?;
        let new = match how {
            Edit::Overwrite => self.bytes(name),
            Edit::Append => {
                let line = format!("{}#{} appends\n", self.nth, self.count);
                [&seen[..], line.as_bytes()].concat()
            }
            Edit::Truncate if seen.len() < 50 => return Ok(()),
            Edit::Truncate => {
                seen[..40 + self.draw.below(seen.len() as u64 - 40) as usize].to_vec()
            }
        };
        if !self.ledger.begin(self.nth, name, &new, Some(&seen)) {
            return Ok(());
        }
        let before = self.ledger.own(name);
        self.own_begins(&[name]);
        match how {
            Edit::Overwrite => {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&new)?;
            }
            Edit::Append => file.write_all(&new[seen.len()..])?,
            Edit::Truncate => file.set_len(new.len() as u64)?,
        }
        self.close(file)?;
        if self.is_alive() {
            self.ledger.made(&new);
            self.ledger.ended(&seen);
            self.own_changes(name, before, |thing| thing.body = Some(new));
        }
        Ok(())
    }

    /// What a name shows, as someone looks before they remove it, and when it was seen to be still so: reading may have
    /// waited for bytes from elsewhere.
    fn look(&self, name: &str) -> io::Result<(Vec<u8>, Instant)> {
        let path = self.path(name);
        loop {
            if fs::symlink_metadata(&path)?.is_symlink() {
                return Ok((link(&fs::read_link(path)?), Instant::now()));
            }
            let mut file = File::open(&path)?;
            let mut seen = Vec::new();
            file.read_to_end(&mut seen)?;
            let looked = Instant::now();
            if fs::symlink_metadata(&path)?.ino() == file.metadata()?.ino() {
                return Ok((seen, looked));
            }
        }
    }

    /// As editors do: a temporary file beside it, renamed over it.
    fn save(&mut self, name: &str) -> io::Result<()> {
        let folder = Path::new(name).parent().unwrap().display();
        let temporary = format!("{folder}/.{}-{}~", self.nth, self.count);
        let bytes = self.bytes(name);
        self.create(&temporary, &bytes)?;
        if self.is_alive() {
            self.replace(&temporary, name)
        } else {
            Ok(())
        }
    }

    fn rename_over(&mut self, from: &str, to: &str) -> io::Result<()> {
        if from == to {
            Ok(())
        } else {
            self.replace(from, to)
        }
    }

    fn replace(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (seen, looked) = match self.look(to) {
            Err(error) if error.kind() == ErrorKind::NotFound => (Vec::new(), Instant::now()),
            found => found?,
        };
        let claim = self.ledger.own(from);
        self.own_begins(&[from, to]);
        self.ledger.ending(&seen);
        self.ledger.moves(from, to);
        let renamed = fs::rename(self.path(from), self.path(to));
        self.ledger.removal(self.nth, to, (&seen, looked));
        renamed?;
        if self.is_alive() {
            self.ledger.ended(&seen);
            self.own_is(to, claim);
            self.own_is(from, Some(None));
        }
        Ok(())
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        let (seen, looked) = self.look(name)?;
        self.own_begins(&[name]);
        self.ledger.ending(&seen);
        let removed = fs::remove_file(self.path(name));
        self.ledger.removal(self.nth, name, (&seen, looked));
        removed?;
        if self.is_alive() {
            self.ledger.ended(&seen);
            self.own_is(name, Some(None));
        }
        Ok(())
    }

    /// Of a file or a directory, over nothing.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let to_move = |name: &String| name.replacen(from, to, 1);
        let moved = self.ledger.own_names(from);
        let claims: Vec<_> = moved.iter().map(|name| self.ledger.own(name)).collect();
        let rename = rustix::fs::renameat_with(
            rustix::fs::CWD,
            self.path(from),
            rustix::fs::CWD,
            self.path(to),
            RenameFlags::NOREPLACE,
        );
        // a name that is taken, a directory into itself: nothing was begun
        let is_refused = rename.is_err() && self.is_alive();
        if is_refused {
            return Ok(rename?);
        }
        self.ledger.moves(from, to);
        for name in &moved {
            self.own_begins(&[name, &to_move(name)]);
        }
        rename?;
        if self.is_alive() {
            for (name, claim) in moved.iter().zip(claims) {
                self.own_is(name, Some(None));
                self.own_is(&to_move(name), claim);
            }
        }
        Ok(())
    }

    fn symlink(&mut self, name: &str) -> io::Result<()> {
        let target = PathBuf::from(format!("nowhere/{}-{}", self.nth, self.count));
        let version = link(&target);
        self.ledger.begin(self.nth, name, &version, None);
        self.own_begins(&[name]);
        symlink(&target, self.path(name))?;
        if self.is_alive() {
            self.ledger.made(&version);
            self.own_is(name, Some(Some(Thing::file(&version))));
        }
        Ok(())
    }

    fn chmod(&mut self, name: &str) -> io::Result<()> {
        let mode = *self.draw.one(&[0o600, 0o644, 0o755, 0o640]);
        let before = self.ledger.own(name);
        self.own_begins(&[name]);
        fs::set_permissions(self.path(name), Permissions::from_mode(mode))?;
        self.own_changes(name, before, |thing| thing.mode = Some(mode));
        Ok(())
    }

    fn xattr(&mut self, name: &str) -> io::Result<()> {
        let value = format!("{}#{}", self.nth, self.count).into_bytes();
        let before = self.ledger.own(name);
        self.own_begins(&[name]);
        rustix::fs::setxattr(self.path(name), XATTR, &value, XattrFlags::empty())?;
        self.own_changes(name, before, |thing| thing.xattr = Some(value));
        Ok(())
    }

    fn own_begins(&self, names: &[&str]) {
        let own: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| name.starts_with("own"))
            .collect();
        self.ledger.own_begins(&own);
    }

    fn own_is(&self, name: &str, claim: Claim) {
        if name.starts_with("own") {
            self.ledger.own_is(name, claim);
        }
    }

    /// An act was answered that changes one side of a thing.
    fn own_changes(&self, name: &str, before: Claim, change: impl FnOnce(&mut Thing)) {
        if let (true, Some(Some(mut thing))) = (self.is_alive(), before) {
            change(&mut thing);
            self.own_is(name, Some(Some(thing)));
        }
    }
}

/// Where others change names at the same time, they come and go; a name of one's own only as one knows it.
fn is_excused(error: &io::Error, own: bool) -> bool {
    use ErrorKind as Kind;
    match error.kind() {
        Kind::AlreadyExists | Kind::DirectoryNotEmpty | Kind::InvalidInput => true,
        Kind::NotFound
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::StaleNetworkFileHandle => !own,
        _ => false,
    }
}
