//! Which packs become one: pure.
//!
//! Packs are kept in geometric order: each has more than twice the objects of all smaller ones together. What breaks
//! the order is joined, so that there are few packs, and each object is copied a number of times that grows only with
//! the logarithm of all.

/// Loose objects, from which on they are packed: each is a file, and a directory of many is slow.
pub(in super::super) const LOOSE_MAX: usize = 4096;

/// Packs, from which on some are joined: each is looked into for each object that is not there.
pub(in super::super) const PACKS_MAX: usize = 32;

/// Objects that are joined at most: about 70 bytes of memory each.
pub(super) const JOINED_MAX: u64 = 4_000_000;

/// A pack is left alone when it has more objects than the smaller ones together, times this.
const FACTOR: u64 = 2;

/// Unreachable objects are looked for when at least this part of all objects is copied anyway.
const SWEEP_PART: u64 = 4;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Plan {
    /// The packs to join, by their place in the list, the largest first; loose objects always.
    pub(in super::super) packs: Vec<usize>,
    /// Whether to look for objects that nothing reaches.
    pub(in super::super) sweep: bool,
}

/// What to do about packs of so many objects each, and loose ones; nothing as long as there are few.
pub(in super::super) fn plan(packs: &[u64], loose: usize) -> Option<Plan> {
    if loose < LOOSE_MAX && packs.len() < PACKS_MAX {
        return None;
    }
    let mut ascending: Vec<usize> = (0..packs.len()).collect();
    ascending.sort_by_key(|pack| packs[*pack]);
    let (mut taken, mut sum, mut joined) = (0, loose as u64, loose as u64);
    for (number, pack) in ascending.iter().enumerate() {
        let breaks = packs[*pack] <= sum * FACTOR;
        sum += packs[*pack];
        if breaks && sum <= JOINED_MAX {
            (taken, joined) = (number + 1, sum);
        }
    }
    let all = loose as u64 + packs.iter().sum::<u64>();
    let joins = taken > 1 || (taken > 0 && loose > 0) || loose >= LOOSE_MAX;
    joins.then(|| Plan {
        packs: ascending[..taken].iter().rev().copied().collect(),
        sweep: joined * SWEEP_PART >= all,
    })
}

/// Joins everything that may be, and looks for what nothing reaches.
pub(in super::super) fn all(packs: &[u64], loose: usize) -> Plan {
    let mut ascending: Vec<usize> = (0..packs.len()).collect();
    ascending.sort_by_key(|pack| packs[*pack]);
    let mut sum = loose as u64;
    ascending.retain(|pack| {
        sum += packs[*pack];
        sum <= JOINED_MAX
    });
    ascending.reverse();
    Plan {
        packs: ascending,
        sweep: true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn join(packs: &mut Vec<u64>, loose: &mut usize) -> u64 {
        let Some(plan) = plan(packs, *loose) else {
            return 0;
        };
        let sum = *loose as u64 + plan.packs.iter().map(|pack| packs[*pack]).sum::<u64>();
        let mut number = 0;
        packs.retain(|_| {
            number += 1;
            !plan.packs.contains(&(number - 1))
        });
        packs.push(sum);
        *loose = 0;
        sum
    }

    #[test]
    fn packs_stay_few_and_copies_rare() {
        for each in [1usize, 5, 300, 5000] {
            let (mut packs, mut loose, mut copied) = (Vec::new(), 0, 0);
            let turns = 2_000_000 / each as u64;
            for turn in 0..turns {
                // commits leave loose objects, pulls a pack
                if turn % 2 == 0 {
                    loose += each;
                } else {
                    packs.push(each as u64);
                }
                copied += join(&mut packs, &mut loose);
                assert!(packs.len() <= PACKS_MAX && loose <= LOOSE_MAX + each);
            }
            assert!(packs.iter().sum::<u64>() + loose as u64 == turns * each as u64);
            assert!(
                copied < 2_000_000 * 16,
                "{copied} objects copied, {each} each"
            );
        }
    }

    #[test]
    fn one_pack_is_not_copied_for_itself() {
        assert_eq!(plan(&[7; 3], 100), None);
        assert_eq!(plan(&[1_000_000], LOOSE_MAX).unwrap().packs, [0; 0]);
        let mut packs: Vec<u64> = vec![1];
        packs.extend([10; 40]);
        assert_eq!(plan(&packs, 0).unwrap().packs.len(), 41);
    }

    #[test]
    fn what_is_too_much_for_memory_is_left_alone() {
        let plan = all(&[3_000_000, 3_000_000, 10], 5);
        assert_eq!(plan.packs.len(), 2);
        assert!(plan.sweep);
    }
}
