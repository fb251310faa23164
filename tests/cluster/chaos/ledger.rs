//! What users were told is kept, which versions they had seen, and whether mounts show it in the end.

use super::observer::{Thing, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// A version of a file, by its bytes; of a symbolic link, by an arrow and its target. Each is made once.
pub type Version = Vec<u8>;

/// What a name has to show, perhaps nothing; unknown (`None`) from the begin of an act until it is answered.
pub type Claim = Option<Option<Thing>>;

#[derive(Default)]
pub struct Ledger(Mutex<Book>);

struct Book {
    start: Instant,
    made: BTreeMap<Version, Record>,
    /// Bytes that several writers make alike.
    common: BTreeSet<Version>,
    /// Of names that only one writer touches.
    own: BTreeMap<String, Claim>,
    removals: Vec<Removal>,
    /// What was done to the versions of a line, to tell of one that is gone.
    told: Vec<(u64, String)>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            made: BTreeMap::new(),
            common: BTreeSet::new(),
            own: BTreeMap::new(),
            removals: Vec::new(),
            told: Vec::new(),
        }
    }
}

struct Record {
    by: usize,
    /// Under which it has been, as far as its line is not told apart by renames.
    names: BTreeSet<String>,
    /// The same for all versions that were made of one another.
    line: u64,
    acknowledged: Option<Instant>,
    /// Somebody who had seen it began to overwrite or delete it; whether that was answered.
    ended: Option<bool>,
}

/// A name was taken away by someone who had looked at it just before. What arrives from elsewhere between the look and the
/// act is lost to them, as on any filesystem.
struct Removal {
    by: usize,
    name: String,
    line: u64,
    looked: Instant,
    done: Instant,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    /// A version is about to be made, perhaps of another that its writer has seen and that ends by it. False: there was
    /// such a version before.
    pub fn begin(&self, by: usize, name: &str, version: &[u8], of: Option<&[u8]>) -> bool {
        let mut book = self.book();
        if book.made.contains_key(version) {
            return false;
        }
        let fresh = book.made.len() as u64;
        let line = of.and_then(|of| book.made.get(of)).map(|one| one.line);
        let record = Record {
            by,
            names: [name.to_owned()].into(),
            line: line.unwrap_or(fresh),
            acknowledged: None,
            ended: None,
        };
        let line = record.line;
        book.made.insert(version.to_owned(), record);
        let told = format!(
            "{:?} {by} makes {name}: {}",
            book.start.elapsed(),
            brief(version)
        );
        book.told.push((line, told));
        if let Some(of) = of {
            book.ends(of, false);
        }
        true
    }

    /// Bytes that several may make are about to be made.
    pub fn common(&self, version: &[u8]) {
        self.book().common.insert(version.to_owned());
    }

    pub fn made(&self, version: &[u8]) {
        if let Some(record) = self.book().made.get_mut(version) {
            record.acknowledged = Some(Instant::now());
        }
    }

    /// Somebody who has seen this version is about to overwrite or delete it.
    pub fn ending(&self, version: &[u8]) {
        self.book().ends(version, false);
    }

    /// That was answered.
    pub fn ended(&self, version: &[u8]) {
        let mut book = self.book();
        book.ends(version, true);
        if let Some(line) = book.made.get(version).map(|one| one.line) {
            let told = format!("{:?} ended: {}", book.start.elapsed(), brief(version));
            book.told.push((line, told));
        }
    }

    /// A name with this version was removed, or something renamed over it, by someone who had looked at it then.
    pub fn removal(&self, by: usize, name: &str, seen: (&[u8], Instant)) {
        let (seen, looked) = seen;
        let mut book = self.book();
        let line = book.made.get(seen).map_or(u64::MAX, |one| one.line);
        let told = format!(
            "{:?} {by} removes {name}: {}",
            book.start.elapsed(),
            brief(seen)
        );
        book.told.push((line, told));
        book.removals.push(Removal {
            by,
            name: name.to_owned(),
            line,
            looked,
            done: Instant::now(),
        });
    }

    /// Something was renamed, or begun to be.
    pub fn moves(&self, from: &str, to: &str) {
        let below = format!("{from}/");
        for record in self.book().made.values_mut() {
            let moved = record.names.iter();
            let moved = moved.filter(|name| *name == from || name.starts_with(&below));
            let moved: Vec<String> = moved.map(|name| name.replacen(from, to, 1)).collect();
            record.names.extend(moved);
        }
    }

    /// An act on names of one's own begins; until it is answered nothing is claimed of them.
    pub fn own_begins(&self, names: &[&str]) {
        let mut book = self.book();
        for name in names {
            book.own.insert((*name).to_owned(), None);
        }
    }

    pub fn own(&self, name: &str) -> Claim {
        self.book().own.get(name).cloned().unwrap_or(Some(None))
    }

    pub fn own_is(&self, name: &str, claim: Claim) {
        self.book().own.insert(name.to_owned(), claim);
    }

    /// Names with a claim, at a path or below it.
    pub fn own_names(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        let book = self.book();
        let names = book.own.keys();
        names
            .filter(|name| *name == path || name.starts_with(&below))
            .cloned()
            .collect()
    }

    /// Everything that a tree shows against the promise.
    pub fn findings(&self, tree: &Tree) -> Findings {
        let book = self.book();
        let mut findings = Findings::default();
        let shown: BTreeSet<&[u8]> = tree.values().filter_map(Thing::version).collect();
        for (version, record) in &book.made {
            book.judge(version, record, shown.contains(&version[..]), &mut findings);
        }
        for (name, thing) in tree {
            if let Some(version) = thing.version()
                && !book.knows(version)
            {
                findings.wrong(format!("{name}: bytes nobody wrote: {}", brief(version)));
            }
        }
        for (name, claim) in &book.own {
            if let Some(claim) = claim
                && !holds(claim.as_ref(), tree.get(name))
            {
                let found = tree.get(name);
                findings.wrong(format!("own {name}: {found:?} instead of {claim:?}"));
            }
        }
        findings.versions = book.made.len();
        findings.own = book.own.len();
        copies(tree, &mut findings);
        findings
    }
}

#[derive(Default, Debug)]
pub struct Findings {
    pub wrong: Vec<String>,
    /// Versions that may have arrived between someone's look at a name and their removal of it.
    pub unseen: Vec<String>,
    pub versions: usize,
    /// Versions that have to be there.
    pub live: usize,
    pub own: usize,
    pub conflicts: usize,
    /// Versions that are there although someone who had seen them ended them: as conflict copies that others had come to
    /// know meanwhile, and that are things of their own since.
    pub outlived: usize,
}

impl Findings {
    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }
}

impl Book {
    fn ends(&mut self, version: &[u8], answered: bool) {
        if let Some(record) = self.made.get_mut(version) {
            record.ended = Some(answered || record.ended == Some(true));
        }
    }

    fn judge(&self, version: &[u8], record: &Record, shown: bool, findings: &mut Findings) {
        let Record { by, names, .. } = record;
        let what = |fate: &str| format!("{names:?} by {by} {fate}: {}", brief(version));
        match (record.acknowledged, record.ended) {
            (Some(_), Some(true)) => findings.outlived += usize::from(shown),
            (Some(when), None) => {
                findings.live += 1;
                if shown {
                } else if let Some(removal) = self.removed_unseen(record, when) {
                    let Removal { by, name, .. } = removal;
                    let between = removal.done - removal.looked;
                    let after = removal.done - when;
                    let fate = format!(
                        "is gone, perhaps with {name} by {by}, {after:?} later, {between:?} after a look"
                    );
                    findings.unseen.push(what(&fate) + &self.tell(record));
                } else {
                    findings.wrong(what("is gone") + &self.tell(record));
                }
            }
            _ => {}
        }
    }

    /// What was done to the versions of the same line.
    fn tell(&self, record: &Record) -> String {
        let told = self.told.iter().filter(|(line, _)| *line == record.line);
        told.fold(String::new(), |all, (_, told)| format!("{all}\n    {told}"))
    }

    /// The likeliest: where most time was between the look and the act.
    fn removed_unseen(&self, record: &Record, acknowledged: Instant) -> Option<&Removal> {
        let may_be = |removal: &&Removal| {
            let same = removal.line == record.line || record.names.contains(&removal.name);
            same && removal.by != record.by && removal.done > acknowledged
        };
        let may_be = self.removals.iter().filter(may_be);
        may_be.max_by_key(|removal| removal.done - removal.looked)
    }

    /// A writer that was cut off leaves the first bytes of what it was at.
    fn knows(&self, version: &[u8]) -> bool {
        let cut_off = |(whole, record): (&Version, &Record)| {
            record.acknowledged.is_none() && whole.starts_with(version)
        };
        let common = |whole: &Version| whole.starts_with(version);
        self.made.contains_key(version)
            || self.common.iter().any(common)
            || self.made.iter().any(cut_off)
    }
}

fn holds(claim: Option<&Thing>, found: Option<&Thing>) -> bool {
    match (claim, found) {
        (None, None) => true,
        (Some(claim), Some(found)) => {
            let mode = claim.mode.is_none() || claim.mode == found.mode;
            mode && claim.body == found.body && claim.xattr == found.xattr
        }
        _ => false,
    }
}

/// Conflict copies: none where one writer works alone, none of equal bytes.
fn copies(tree: &Tree, findings: &mut Findings) {
    let mut groups: BTreeMap<String, Vec<(&String, &[u8])>> = BTreeMap::new();
    for (name, thing) in tree {
        let is_copy = name.contains(" (conflict ");
        findings.conflicts += usize::from(is_copy);
        if is_copy && name.starts_with("own") {
            findings.wrong(format!(
                "{name}: a conflict copy, and only one writes there"
            ));
        }
        if let Some(version) = thing.version() {
            let group = groups.entry(original(name)).or_default();
            group.push((name, version));
        }
    }
    for group in groups.values() {
        for (nth, (name, version)) in group.iter().enumerate() {
            if let Some((other, _)) = group[..nth].iter().find(|(_, one)| one == version) {
                findings.wrong(format!("{name} and {other} are equal"));
            }
        }
    }
}

/// A name without what makes it a conflict copy.
fn original(name: &str) -> String {
    let mut rest = name.to_owned();
    while let Some(start) = rest.find(" (conflict ")
        && let Some(length) = rest[start..].find(')')
    {
        rest.replace_range(start..=start + length, "");
    }
    rest
}

/// The first words of a version, which tell who made it.
fn brief(version: &[u8]) -> String {
    let text = String::from_utf8_lossy(&version[..version.len().min(60)]).into_owned();
    let text = text.lines().next().unwrap_or_default().to_owned();
    format!("{} bytes, {text:?}", version.len())
}

/// A bug planted for each thing that the ledger finds.
#[cfg(test)]
mod tests {
    use super::*;

    fn show(things: &[(&str, &[u8])]) -> Tree {
        let things = things.iter();
        things
            .map(|(name, bytes)| ((*name).to_owned(), Thing::file(bytes)))
            .collect()
    }

    fn wrong(ledger: &Ledger, things: &[(&str, &[u8])]) -> String {
        let findings = ledger.findings(&show(things));
        assert!(findings.unseen.is_empty(), "{findings:?}");
        findings.wrong.join("; ")
    }

    fn written(versions: &[&[u8]]) -> Ledger {
        let ledger = Ledger::default();
        for version in versions {
            assert!(ledger.begin(0, "shared/f", version, None));
            ledger.made(version);
        }
        ledger
    }

    #[test]
    fn a_version_that_is_nowhere_is_found() {
        let ledger = written(&[b"first", b"second"]);
        assert_eq!(
            wrong(&ledger, &[("shared/f", b"first"), ("shared/g", b"second")]),
            ""
        );
        let found = wrong(&ledger, &[("shared/f", b"first")]);
        assert!(
            found.contains("is gone") && found.contains("second"),
            "{found}"
        );
    }

    #[test]
    fn a_version_that_was_overwritten_is_not_missed() {
        let ledger = written(&[b"old"]);
        ledger.begin(1, "shared/f", b"new", Some(b"old"));
        // begun and not answered: either
        assert_eq!(wrong(&ledger, &[("shared/f", b"old")]), "");
        assert_eq!(wrong(&ledger, &[("shared/f", b"ne")]), "");
        ledger.made(b"new");
        ledger.ended(b"old");
        assert_eq!(wrong(&ledger, &[("shared/f", b"new")]), "");
        let both = show(&[("shared/f", b"new"), ("shared/g", b"old")]);
        assert_eq!(ledger.findings(&both).outlived, 1);
        assert!(wrong(&ledger, &[("shared/f", b"ne")]).contains("nobody wrote"));
    }

    #[test]
    fn needless_conflict_copies_are_found() {
        let ledger = written(&[b"one"]);
        let copy = "shared/f (conflict 2026-01-01 00-00-00 n1)";
        let found = wrong(&ledger, &[("shared/f", b"one"), (copy, b"one")]);
        assert!(found.contains("are equal"), "{found}");
        let found = wrong(
            &ledger,
            &[("own0/f (conflict 2026-01-01 00-00-00 n1)", b"one")],
        );
        assert!(found.contains("only one writes there"), "{found}");
    }

    #[test]
    fn what_one_writer_left_under_its_own_name_is_to_be_there_as_it_was() {
        let ledger = written(&[b"mine"]);
        ledger.own_is("own0/f", Some(Some(Thing::file(b"mine"))));
        assert_eq!(wrong(&ledger, &[("own0/f", b"mine")]), "");
        assert!(wrong(&ledger, &[("own0/g", b"mine")]).contains("own own0/f"));
        ledger.own_begins(&["own0/f"]);
        assert_eq!(wrong(&ledger, &[("own0/g", b"mine")]), "");
    }

    #[test]
    fn only_a_removal_by_another_excuses_a_loss() {
        let ledger = written(&[b"seen", b"unseen"]);
        ledger.removal(0, "shared/f", (b"seen", Instant::now()));
        assert!(wrong(&ledger, &[("shared/f", b"seen")]).contains("is gone"));
        ledger.removal(1, "shared/f", (b"seen", Instant::now()));
        let findings = ledger.findings(&show(&[("shared/f", b"seen")]));
        assert_eq!((findings.wrong.len(), findings.unseen.len()), (0, 1));
    }
}
