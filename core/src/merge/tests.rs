//! One case for each rule.

#![allow(clippy::unwrap_used)]

use super::desk::{Desk, file, id, written};
use super::merge;
use super::testing::{bytes, name};
use crate::change::{Change, Changes};
use crate::conflict::copy_id;
use crate::entry::{Attributes, Content, ContentRef, Entry, File, Kind, Placed};
use crate::ids::{EntryId, InfoHash};
use crate::limits::{PREVIOUS_MAX, XATTRS_BYTES_MAX};
use crate::time::Timestamp;

mod cost;

fn merged(base: &Desk, left: &Desk, right: &Desk) -> Desk {
    let (l, r) = (base.tree.diff(&left.tree), base.tree.diff(&right.tree));
    let changes = merge(&base.tree, &l, &r).unwrap();
    assert_eq!(changes, merge(&base.tree, &r, &l).unwrap());
    let mut result = base.clone();
    result.tree.apply(&changes).unwrap();
    result.tree.check().unwrap();
    result
}

fn start() -> Desk {
    let desk = Desk::new().directory(1, "d").file(2, "d/f", "old");
    desk.directory(3, "e").file(4, "g.txt", "old g")
}

#[test]
fn edit_and_rename_are_both_kept() {
    let base = start();
    let left = base.of("l", 10).write("d/f", "new");
    let right = base.of("r", 20).rename("d/f", "e/moved");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["d 1", "e 3", "e/moved 2 new", "g.txt 4 old g"]);
}

#[test]
fn of_two_renames_the_later_wins() {
    let base = start();
    let early = base
        .of("l", 10)
        .rename("g.txt", "z")
        .attributes("z", |_| ());
    let late = base
        .of("r", 20)
        .rename("g.txt", "e/y")
        .attributes("e/y", |_| ());
    let result = merged(&base, &early, &late).shown();
    assert_eq!(result, ["d 1", "d/f 2 old", "e 3", "e/y 4 old g"]);
}

#[test]
fn an_edit_survives_removal_but_a_rename_does_not() {
    let base = start();
    let left = base.of("l", 10).write("d/f", "new").rename("g.txt", "h");
    let right = base.of("r", 20).remove("d/f").remove("g.txt");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["d 1", "d/f 2 new", "e 3"]);
}

#[test]
fn of_two_edits_one_keeps_the_name_and_the_other_gets_its_own() {
    let base = start();
    let twice = base.of("l", 10).write("g.txt", "one").write("g.txt", "two");
    let once = base.of("r", 86_400).write("g.txt", "three");
    let result = merged(&base, &twice, &once);
    assert_eq!(bytes(&result.at("g.txt")), Some(&b"two"[..]));
    let copy = result.at("g (conflict 1970-01-02 00-00-00 r).txt");
    assert_eq!(bytes(&copy), Some(&b"three"[..]));
    assert_eq!(copy.entry.id, copy_id(&once.at("g.txt").entry));
    assert_eq!(result.at("g.txt").entry.id, id(4));
    assert_eq!(result.tree.len(), base.tree.len() + 1);
}

#[test]
fn as_many_edits_the_later_wins_and_takes_its_time_along() {
    let base = start();
    let late = base.of("l", 20).write("g.txt", "late");
    let early = base.of("r", 10).write("g.txt", "early");
    let early = early.attributes("g.txt", |a| a.modified = Timestamp::from_seconds(99));
    let result = merged(&base, &late, &early);
    assert_eq!(bytes(&result.at("g.txt")), Some(&b"late"[..]));
    let modified = result.at("g.txt").entry.attributes.modified;
    assert_eq!(modified, Timestamp::from_seconds(20));
}

/// Of three that merge, two differ as long as the third is not there: whichever of them loses the name for that time.
#[test]
fn what_becomes_equal_with_the_third_is_no_conflict() {
    let base = start();
    for (early, late) in [(10, 20), (20, 10)] {
        let old = base.of("b", late).file(5, "t", "old t");
        let other = base.of("a", early).file(6, "t", "new t");
        let both = merged(&base, &old, &other);
        let copies = both.shown().len() - base.shown().len();
        assert_eq!(copies, 2, "{:?}", both.shown());
        let new = old.of("c", 30).write("t", "new t");
        let result = merged(&old, &both, &new).shown();
        assert_eq!(result.len(), base.shown().len() + 1, "{result:?}");
        assert!(
            result
                .iter()
                .any(|line| line.starts_with("t ") && line.ends_with("new t"))
        );
    }
}

/// Who has a copy beside its equal on purpose keeps both.
#[test]
fn a_copy_that_one_side_has_beside_its_equal_stays() {
    let base = start();
    let name = "g (conflict 2026-01-02 03-04-05 a).txt";
    let left = base.of("l", 10).file(5, name, "old g");
    let right = base.of("r", 20).write("d/f", "new");
    assert_eq!(merged(&base, &left, &right).at(name).entry.id, id(5));
}

#[test]
fn the_same_bytes_are_no_conflict() {
    let base = start();
    let left = base
        .of("l", 10)
        .write("g.txt", "same")
        .file(8, "new", "also");
    let right = base
        .of("r", 20)
        .write("g.txt", "same")
        .file(9, "new", "also");
    let result = merged(&base, &left, &right);
    assert_eq!(result.tree.len(), base.tree.len() + 1);
    assert_eq!(result.at("g.txt").entry.written, written(2, 20, "r"));
}

#[test]
fn the_copy_is_beside_the_winner_wherever_it_went() {
    let base = start();
    let left = base.of("l", 20).write("d/f", "winner");
    let right = base.of("r", 10).write("d/f", "loser").rename("d/f", "e/h");
    let result = merged(&base, &left, &right).shown();
    let copy = "e/h (conflict 1970-01-01 00-00-10 r)";
    assert_eq!(result[2], "e/h 2 winner");
    assert!(result[3].starts_with(copy) && result[3].ends_with(" loser"));
}

#[test]
fn a_copy_that_both_know_is_not_made_again() {
    let base = start();
    let (left, right) = (base.of("l", 20).write("g.txt", "w"), base.of("r", 10));
    let right = right.write("g.txt", "x");
    let both = merged(&base, &left, &right);
    let again = merged(&base, &both, &right);
    assert_eq!(again.shown(), both.shown());
}

#[test]
fn a_taken_conflict_name_gets_a_number() {
    let base = start();
    let left = base.of("l", 20).write("g.txt", "winner");
    let taken = "g (conflict 1970-01-01 00-00-10 r).txt";
    let left = left.file(7, taken, "mine");
    let right = base.of("r", 10).write("g.txt", "loser");
    let result = merged(&base, &left, &right);
    assert_eq!(result.at(taken).entry.id, id(7));
    let copy = result.at("g (conflict 1970-01-01 00-00-10 r 2).txt");
    assert_eq!(bytes(&copy), Some(&b"loser"[..]));
}

#[test]
fn attributes_merge_one_by_one() {
    let base = start().attributes("g.txt", |a| a.mode = 0o644);
    let left = base.of("l", 10).attributes("g.txt", |a| {
        a.mode = 0o600;
        a.xattrs.insert(b"user.l".to_vec(), b"1".to_vec());
        a.xattrs.insert(b"user.both".to_vec(), b"early".to_vec());
    });
    let right = base.of("r", 20).attributes("g.txt", |a| {
        a.uid = 7;
        a.xattrs
            .insert(b"user.both".to_vec(), b"a later one".to_vec());
    });
    let left = left.write("g.txt", "edited");
    let result = merged(&base, &left, &right).at("g.txt").entry;
    assert_eq!((result.attributes.mode, result.attributes.uid), (0o600, 7));
    assert_eq!(result.attributes.changed, Timestamp::from_seconds(20));
    assert_eq!(result.attributes.modified, Timestamp::from_seconds(10));
    let value = |name: &str| result.attributes.xattrs.get(name.as_bytes()).cloned();
    assert_eq!(value("user.l").unwrap(), b"1");
    assert_eq!(value("user.both").unwrap(), b"a later one");
}

#[test]
fn a_removed_xattr_stays_removed() {
    let set = |a: &mut Attributes| drop(a.xattrs.insert(b"user.x".to_vec(), b"1".to_vec()));
    let base = start().attributes("g.txt", set);
    let left = base.of("l", 10).attributes("g.txt", |a| a.xattrs.clear());
    let right = base.of("r", 20).attributes("g.txt", |a| a.mode = 0o600);
    let result = merged(&base, &left, &right).at("g.txt").entry.attributes;
    assert!(result.xattrs.is_empty() && result.mode == 0o600);
}

#[test]
fn too_many_xattrs_together_leave_one_sides() {
    let fill = |name: u8| {
        move |a: &mut Attributes| {
            for number in 0..3 {
                let value = vec![name; XATTRS_BYTES_MAX / 4];
                a.xattrs.insert(vec![name, number], value);
            }
        }
    };
    let base = start();
    let left = base.of("l", 10).attributes("g.txt", fill(1));
    let right = base.of("r", 20).attributes("g.txt", fill(2));
    let result = merged(&base, &left, &right).at("g.txt").entry.attributes;
    assert_eq!(result.xattrs, right.at("g.txt").entry.attributes.xattrs);
}

#[test]
fn the_roots_attributes_merge_and_it_cannot_be_removed() {
    let base = start();
    let left = base.of("l", 10).attributes("", |a| a.mode = 0o700);
    let right = base.of("r", 20).attributes("", |a| a.uid = 5);
    let root = merged(&base, &left, &right).at("").entry.attributes;
    assert_eq!((root.mode, root.uid), (0o700, 5));

    let before = base.tree.get(EntryId::ROOT).cloned();
    let after = None;
    let removal = Changes::from_iter([(EntryId::ROOT, Change { before, after })]);
    let result = merge(&base.tree, &removal, &Changes::new()).unwrap();
    assert!(result.is_empty());
}

#[test]
fn both_sides_earlier_contents_are_remembered() {
    let hash = |number: u8| InfoHash::new([number; 20]);
    let swarm = |now: u8, previous: &[u8]| {
        let info_hash = hash(now);
        let content = Content::Swarm(ContentRef {
            info_hash,
            length: 1,
        });
        let previous = previous.iter().copied().map(hash).collect();
        Kind::File(File { content, previous })
    };
    let set = |desk: Desk, kind: Kind| {
        let mut desk = desk.write("g.txt", "");
        let mut placed = desk.at("g.txt");
        placed.entry.kind = kind;
        desk.put(placed);
        desk
    };
    let base = start();
    let left = set(base.of("l", 20), swarm(9, &[1, 2, 3]));
    let right = set(base.of("r", 10), swarm(8, &[9, 4, 1, 5]));
    let Kind::File(file) = merged(&base, &left, &right).at("g.txt").entry.kind else {
        panic!("no file");
    };
    assert_eq!(file.previous, [1, 2, 3, 4].map(hash));
    assert_eq!(file.previous.len(), PREVIOUS_MAX);
}

#[test]
fn a_removed_directory_lives_again_for_what_is_new_inside() {
    let base = start().directory(5, "d/deep").file(6, "d/deep/x", "x");
    let left = base.of("l", 10).remove("d");
    let right = base
        .of("r", 20)
        .rename("d", "e/d2")
        .file(7, "e/d2/deep/new", "new");
    let result = merged(&base, &left, &right).shown();
    let expected = [
        "e 3",
        "e/d2 1",
        "e/d2/deep 5",
        "e/d2/deep/new 7 new",
        "g.txt 4 old g",
    ];
    assert_eq!(result, expected);
}

#[test]
fn what_one_side_moves_into_a_directory_that_the_other_removes_keeps_it() {
    let base = start();
    let left = base.of("l", 10).remove("e");
    let right = base.of("r", 20).rename("d", "e/d");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["e 3", "e/d 1", "e/d/f 2 old", "g.txt 4 old g"]);
}

#[test]
fn a_removed_directory_stays_removed_if_only_renamed_elsewhere() {
    let base = start();
    let left = base.of("l", 10).remove("d");
    let right = base.of("r", 20).rename("d", "e/d2");
    assert_eq!(
        merged(&base, &left, &right).shown(),
        ["e 3", "g.txt 4 old g"]
    );
}

#[test]
fn of_moves_that_make_a_cycle_one_is_undone() {
    let base = start();
    let left = base.of("l", 10).rename("d", "e/d");
    let right = base.of("r", 20).rename("e", "d/e");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["d 1", "d/e 3", "d/f 2 old", "g.txt 4 old g"]);
}

#[test]
fn an_undone_move_revives_where_it_came_from() {
    let base = Desk::new().directory(9, "top").directory(1, "top/d");
    let base = base.directory(3, "e");
    let left = base.of("l", 10).rename("top/d", "e/d").remove("top");
    let right = base.of("r", 20).rename("e", "top/d/e");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["top 9", "top/d 1", "top/d/e 3"]);
}

#[test]
fn a_longer_cycle_is_undone_too() {
    let base = Desk::new().directory(1, "a").directory(2, "b");
    let base = base.directory(3, "c").directory(4, "d");
    let left = base.of("l", 10).rename("a", "b/a").rename("c", "d/c");
    let right = base.of("r", 20).rename("b", "c/b").rename("d", "a/d");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["a 1", "a/d 4", "a/d/c 3", "a/d/c/b 2"]);
}

#[test]
fn two_new_directories_of_one_name_are_united_all_the_way_down() {
    let base = start();
    let left = base.of("l", 10).directory(10, "n").directory(11, "n/sub");
    let left = left.file(12, "n/sub/x", "x").file(13, "n/one", "1");
    let right = base.of("r", 20).directory(20, "n").directory(9, "n/sub");
    let right = right.file(22, "n/sub/y", "y").file(23, "n/one", "one");
    let result = merged(&base, &left, &right).shown();
    let expected = [
        "n 10",
        "n/one 23 one",
        "n/one (conflict 1970-01-01 00-00-10 l) 13 1",
        "n/sub 9",
        "n/sub/x 12 x",
        "n/sub/y 22 y",
    ];
    assert_eq!(result[4..], expected);
}

#[test]
fn directories_of_the_base_that_come_to_one_place_are_united() {
    let base = start().file(6, "e/h", "h");
    let left = base.of("l", 10).rename("d", "n");
    let right = base.of("r", 20).rename("e", "n");
    let result = merged(&base, &left, &right).shown();
    assert_eq!(result, ["g.txt 4 old g", "n 1", "n/f 2 old", "n/h 6 h"]);
}

#[test]
fn a_directory_keeps_its_name_against_a_file() {
    let base = start();
    let left = base.of("l", 10).directory(10, "n");
    let right = base.of("r", 20).file(20, "n", "text");
    let result = merged(&base, &left, &right).shown();
    let file = "n (conflict 1970-01-01 00-00-20 r) 20 text";
    assert_eq!(result[4..], ["n 10", file]);
}

#[test]
fn a_file_saved_by_replacing_it_meets_an_edit_in_place() {
    let base = start();
    let saved = base.of("l", 30).remove("g.txt").file(9, "g.txt", "saved");
    let edited = base.of("r", 20).write("g.txt", "edited");
    let result = merged(&base, &saved, &edited).shown();
    let copy = "g (conflict 1970-01-01 00-00-20 r).txt 4 edited";
    assert_eq!(result[3..], [copy, "g.txt 9 saved"]);
}

#[test]
fn names_that_a_rename_frees_are_free() {
    let base = start().file(5, "a", "A").file(6, "b", "B");
    let chain = base.of("l", 10).rename("b", "c").rename("a", "b");
    let edits = base.of("r", 20).write("a", "A2").write("b", "B2");
    let result = merged(&base, &chain, &edits).shown();
    assert_eq!(result[..2], ["b 5 A2", "c 6 B2"]);

    let swap = base
        .of("l", 10)
        .rename("a", "t")
        .rename("b", "a")
        .rename("t", "b");
    let result = merged(&base, &swap, &edits).shown();
    assert_eq!(result[..2], ["a 6 B2", "b 5 A2"]);
}

#[test]
fn a_directory_that_was_made_a_file_stays_one_and_the_file_gets_its_own_name() {
    let base = start();
    let mut left = base.of("l", 10);
    let mut placed = left.at("d");
    placed.entry.kind = file("no directory");
    left.put(placed);
    let changes = base.tree.diff(&left.tree);
    let result = merge(&base.tree, &changes, &Changes::new()).unwrap();
    let mut tree = base.tree.clone();
    tree.apply(&result).unwrap();
    tree.check().unwrap();
    assert!(tree.iter().any(|p| bytes(p) == Some(b"no directory")));
}

#[test]
fn changes_that_are_not_of_a_tree_still_give_one() {
    let base = start();
    let lost = |number: u8, parent: u8| {
        let entry = Entry {
            id: id(number),
            kind: Kind::Directory,
            ..base.at("d").entry
        };
        let after = Some(Placed {
            parent: id(parent),
            name: name("lost"),
            entry,
        });
        (
            id(number),
            Change {
                before: None,
                after,
            },
        )
    };
    let left = Changes::from_iter([lost(50, 99), lost(51, 52), lost(52, 51), lost(53, 53)]);
    let right = Changes::from_iter([lost(54, 4)]);
    let result = merge(&base.tree, &left, &right).unwrap();
    let mut tree = base.tree.clone();
    tree.apply(&result).unwrap();
    tree.check().unwrap();
}
