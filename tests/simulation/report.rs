//! What one run, or several, came to.

use crate::world::Counts;
use delugefs_core::ids::CommitId;
use std::fmt;

/// What one run, or several, came to.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) counts: Counts,
    pub(crate) checks: u64,
    pub(crate) conflicts: u64,
    pub(crate) entries: u64,
    /// The head in which the last run ended.
    pub(crate) head: Option<CommitId>,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.checks += other.checks;
        self.conflicts += other.conflicts;
        self.entries += other.entries;
        let (sum, new) = (&mut self.counts, &other.counts);
        sum.acts += new.acts;
        sum.refused += new.refused;
        sum.commits += new.commits;
        sum.rebases += new.rebases;
        sum.pulls += new.pulls;
        sum.failed_pulls += new.failed_pulls;
        sum.kills += new.kills;
        sum.power_cuts += new.power_cuts;
        sum.wipes += new.wipes;
        sum.restores += new.restores;
        sum.renewals += new.renewals;
        sum.copies += new.copies;
        sum.reaped += new.reaped;
        sum.records += new.records;
        sum.cuts += new.cuts;
        sum.imports += new.imports;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            acts,
            refused,
            commits,
            rebases,
            pulls,
            failed_pulls,
            kills,
            power_cuts,
            wipes,
            restores,
            renewals,
            copies,
            reaped,
            records,
            cuts,
            imports,
            ..
        } = self.counts;
        let (runs, checks, entries, conflicts) =
            (self.runs, self.checks, self.entries, self.conflicts);
        write!(
            f,
            "{runs} runs: {acts} acts ({refused} refused) in {commits} commits, {rebases} rebases, {pulls} pulls \
             ({failed_pulls} failed), {kills} ends ({power_cuts} by power cuts), {wipes} lost disks, {restores} restored ones ({renewals} found out), {copies} copies, {reaped} reaped, {records} boundaries, {cuts} cuts of history, {imports} that came back from before; \
             {checks} looks, {entries} entries in the end, {conflicts} of them conflict copies"
        )
    }
}
