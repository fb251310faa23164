//! Trees: what a tree of a volume may look like, and what is new in one compared with others.

use super::ExchangeError;
use super::store::Objects;
use gix::ObjectId;
use gix::objs::Kind;
use gix::objs::tree::name_order;
use std::cmp::Ordering;
use std::collections::HashSet;

/// Most bytes of an entry's name: a longer one cannot be checked out.
const NAME_BYTES_MAX: usize = 255;

/// One entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<'a> {
    directory: bool,
    name: &'a [u8],
    id: ObjectId,
}

/// All entries in their order. Volumes have trees and plain blobs only: neither links nor submodules, which
/// could lead a checkout astray.
fn parse(mut data: &[u8]) -> Result<Vec<Entry<'_>>, &'static str> {
    let mut entries = Vec::with_capacity(data.len() / 40);
    while !data.is_empty() {
        let space = data.iter().take(7).position(|byte| *byte == b' ');
        let space = space.ok_or("an entry without a mode")?;
        let directory = match &data[..space] {
            b"40000" => true,
            b"100644" | b"100755" => false,
            _ => return Err("an entry that is neither a folder nor a plain file"),
        };
        data = &data[space + 1..];
        let end = data
            .iter()
            .take(NAME_BYTES_MAX + 1)
            .position(|byte| *byte == 0);
        let end = end.ok_or("an entry whose name has no end or is too long")?;
        let (name, rest) = (&data[..end], &data[end + 1..]);
        let (id, rest) = rest.split_first_chunk::<20>().ok_or("a cut entry")?;
        let id = ObjectId::Sha1(*id);
        entries.push(Entry {
            directory,
            name,
            id,
        });
        data = rest;
    }
    Ok(entries)
}

/// Checks a tree that comes from outside as `git fsck --strict` does, and for what volumes do not have. Gives what
/// it names.
pub(super) fn check(data: &[u8]) -> Result<Vec<Found>, &'static str> {
    let entries = parse(data)?;
    let mut names = HashSet::with_capacity(entries.len());
    let mut previous: Option<&Entry<'_>> = None;
    for entry in &entries {
        check_name(entry.name)?;
        if entry.id.is_null() {
            return Err("an entry with the null id");
        }
        if !names.insert(entry.name) {
            return Err("two entries of one name");
        }
        if previous.is_some_and(|previous| order(previous, entry) != Ordering::Less) {
            return Err("entries out of order");
        }
        previous = Some(entry);
    }
    let named = entries.iter().map(|entry| Found {
        directory: entry.directory,
        id: entry.id,
    });
    Ok(named.collect())
}

fn order(a: &Entry<'_>, b: &Entry<'_>) -> Ordering {
    name_order(a.name, a.directory, b.name, b.directory)
}

/// Refuses what git or a checkout would refuse, on any system, and `.gitmodules` and the like, which git would
/// read: volumes write such names otherwise.
fn check_name(name: &[u8]) -> Result<(), &'static str> {
    let options = gix::validate::path::component::Options {
        protect_windows: false,
        protect_hfs: true,
        protect_ntfs: true,
    };
    // as a link is the stricter way: it may not be called .gitmodules under any alias either
    let as_link = Some(gix::validate::path::component::Mode::Symlink);
    let is_for_git = name
        .get(..4)
        .is_some_and(|start| start.eq_ignore_ascii_case(b".git"));
    match gix::validate::path::component(name.into(), as_link, options) {
        Ok(_) if !is_for_git => Ok(()),
        _ => Err("a name that git refuses"),
    }
}

/// Whether a peer would take a tree with this name in it.
pub(crate) fn takes_name(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX && check_name(name).is_ok()
}

/// A tree to be compared with others.
struct Comparison {
    tree: ObjectId,
    bases: Vec<ObjectId>,
}

/// What a tree names, or [`walk_new`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Found {
    /// A tree, or else a blob.
    pub(super) directory: bool,
    /// Its id.
    pub(super) id: ObjectId,
}

/// Visits the trees and blobs of `tree` that none of `bases` has in the same place, each id once, except those
/// in `seen`. The caller goes through commits parents first: then whatever is in `seen` is complete once the
/// commit that it was seen in has been gone through. After an error, nothing more is in `seen` than before.
pub(super) fn walk_new(
    objects: &mut dyn Objects,
    comparison: (ObjectId, Vec<ObjectId>),
    seen: &mut HashSet<ObjectId>,
    visit: Visit<'_>,
) -> Result<(), ExchangeError> {
    let mut fresh = Vec::new();
    let mut is_new = |id: ObjectId| {
        let is_new = seen.insert(id);
        fresh.extend(is_new.then_some(id));
        is_new
    };
    let walked = walk(objects, comparison, &mut is_new, visit);
    if walked.is_err() {
        for id in fresh {
            seen.remove(&id);
        }
    }
    walked
}

/// What is done with each tree and blob.
type Visit<'a> = &'a mut dyn FnMut(&mut dyn Objects, Found) -> Result<(), ExchangeError>;

fn walk(
    objects: &mut dyn Objects,
    (tree, bases): (ObjectId, Vec<ObjectId>),
    is_new: &mut dyn FnMut(ObjectId) -> bool,
    visit: Visit<'_>,
) -> Result<(), ExchangeError> {
    let mut todo = vec![Comparison { tree, bases }];
    while let Some(Comparison { tree, bases }) = todo.pop() {
        if bases.contains(&tree) || !is_new(tree) {
            continue;
        }
        let (directory, id) = (true, tree);
        visit(objects, Found { directory, id })?;
        let data = read_tree(objects, &tree)?;
        let bases: Vec<_> = bases
            .iter()
            .map(|base| read_tree(objects, base))
            .collect::<Result<_, _>>()?;
        let bases: Vec<_> = bases
            .iter()
            .map(|base| parse(base).map_err(|why| ExchangeError::object(&tree, why)))
            .collect::<Result<_, _>>()?;
        for entry in parse(&data).map_err(|why| ExchangeError::object(&tree, why))? {
            let twins = twins(&entry, &bases);
            if twins.contains(&entry.id) {
                continue;
            }
            if entry.directory {
                todo.push(Comparison {
                    tree: entry.id,
                    bases: twins,
                });
            } else if is_new(entry.id) {
                let (directory, id) = (false, entry.id);
                visit(objects, Found { directory, id })?;
            }
        }
    }
    Ok(())
}

/// What the bases have under an entry's name, if it is of its kind.
fn twins(entry: &Entry<'_>, bases: &[Vec<Entry<'_>>]) -> Vec<ObjectId> {
    bases
        .iter()
        .filter_map(|base| {
            let found = base.binary_search_by(|other| order(other, entry)).ok()?;
            Some(base[found]).filter(|other| other.directory == entry.directory)
        })
        .map(|other| other.id)
        .collect()
}

fn read_tree(objects: &mut dyn Objects, id: &ObjectId) -> Result<Vec<u8>, ExchangeError> {
    let mut buffer = Vec::new();
    match objects.read(id, &mut buffer)? {
        None => Err(ExchangeError::Missing(id.to_string())),
        Some((Kind::Tree, data)) => Ok(data.to_vec()),
        Some((kind, _)) => Err(ExchangeError::object(
            id,
            format!("a {kind} where a tree should be"),
        )),
    }
}

/// Any bytes as a tree: no panic; what passes is in order.
pub fn fuzz_tree(bytes: &[u8]) {
    if check(bytes).is_ok() {
        let entries = parse(bytes).unwrap_or_default();
        assert!(
            entries
                .iter()
                .all(|entry| entry.name.len() <= NAME_BYTES_MAX)
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tree(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut data = Vec::new();
        for (mode, name) in entries {
            data.extend_from_slice(mode.as_bytes());
            data.push(b' ');
            data.extend_from_slice(name);
            data.push(0);
            data.extend_from_slice(&[7; 20]);
        }
        data
    }

    #[test]
    fn sane_trees_pass() {
        let good = tree(&[
            ("100644", b"%dir"),
            ("100644", b"a.torrent"),
            ("40000", b"a"),
            ("100644", b"a0"),
            ("100644", b"\xff\xfe"),
        ]);
        check(&good).unwrap();
        check(b"").unwrap();
    }

    #[test]
    fn insane_trees_are_refused() {
        let long = [b'x'; 256];
        for bad in [
            &[("100644", &b".git"[..])][..],
            &[("40000", b".GiT")],
            &[("40000", b"git~1")],
            &[("40000", b".git. ")],
            &[("40000", ".g\u{200c}it".as_bytes())],
            &[("40000", b".gitmodules")],
            &[("40000", b"gitmod~1")],
            &[("100644", b".gitattributes")],
            &[("100644", b"")],
            &[("100644", b"..")],
            &[("100644", b"a/b")],
            &[("100644", &long)],
            &[("100644", b"b"), ("100644", b"a")],
            &[("100644", b"a"), ("100644", b"a")],
            &[("100644", b"a"), ("100644", b"a.b"), ("40000", b"a")],
            &[("120000", b"link")],
            &[("160000", b"module")],
            &[("040000", b"padded")],
            &[("100664", b"odd")],
        ] {
            assert!(check(&tree(bad)).is_err(), "{bad:?}");
        }
        let whole = tree(&[("100644", b"a")]);
        for length in 1..whole.len() {
            assert!(check(&whole[..length]).is_err(), "{length}");
        }
        let mut null = whole;
        let start = null.len() - 20;
        null[start..].fill(0);
        assert!(check(&null).is_err());
    }
}
