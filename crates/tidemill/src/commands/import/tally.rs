//! What an import counts, and the table at its end.

use std::collections::BTreeMap;

use serde::Serialize;

use super::source::Broken;
use crate::output;

/// The rows of the table, in order.
pub const KINDS: [&str; 8] = [
    "experiments",
    "runs",
    "metrics",
    "artifacts",
    "logged models",
    "registered models",
    "model versions",
    "aliases",
];

/// How many failures the table names; `--json` has all.
const NAMED: usize = 20;

/// The counts of a kind.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Count {
    /// In the source.
    pub found: u64,
    /// Brought now, new or changed.
    pub imported: u64,
    /// Brought before, or here anyway.
    pub already_there: u64,
    /// Deliberately not brought.
    pub left_out: u64,
    /// Could not be brought.
    pub failed: u64,
}

/// A thing that could not be brought.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// A row of the table.
    pub kind: &'static str,
    /// Which thing.
    pub id: String,
    /// Why.
    pub reason: String,
    /// Whether it is the source that is wrong, rather than something on the way.
    pub source_is_wrong: bool,
}

/// Everything that is counted.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// By kind.
    pub kinds: BTreeMap<&'static str, Count>,
    /// Bytes of artifacts that were sent.
    pub bytes: u64,
    /// What was left out, by reason.
    pub left_out: BTreeMap<String, u64>,
    /// What deserves a word although it worked.
    pub notes: Vec<String>,
    /// What could not be brought.
    pub failures: Vec<Failure>,
}

impl Tally {
    /// The counts of a kind.
    pub fn of(&mut self, kind: &'static str) -> &mut Count {
        self.kinds.entry(kind).or_default()
    }

    /// A thing was found and here is what became of it, in the server's words.
    pub fn outcome(&mut self, kind: &'static str, id: &str, outcome: &str, reason: Option<&str>) {
        let count = self.of(kind);
        count.found += 1;
        match outcome {
            "created" | "updated" | "renumbered" => count.imported += 1,
            "refused" => self.fail(kind, id, reason.unwrap_or("refused"), true),
            _ => count.already_there += 1,
        }
    }

    /// A thing, counted as found, could not be brought.
    pub fn fail(&mut self, kind: &'static str, id: &str, reason: &str, source_is_wrong: bool) {
        self.of(kind).failed += 1;
        self.failures.push(Failure {
            kind,
            id: id.to_owned(),
            reason: reason.to_owned(),
            source_is_wrong,
        });
    }

    /// Things that could not be read.
    pub fn broken(&mut self, broken: Vec<Broken>) {
        for each in broken {
            self.of(each.kind).found += 1;
            self.fail(each.kind, &each.id, &each.reason, true);
        }
    }

    /// Things that are not brought, on purpose.
    pub fn leave(&mut self, kind: &'static str, count: u64, reason: &str) {
        self.of(kind).left_out += count;
        *self.left_out.entry(format!("{kind}: {reason}")).or_default() += count;
    }

    /// The table and what is to be said beside it.
    pub fn print(&self, dry_run: bool) {
        let imported = if dry_run { "would come" } else { "imported" };
        let mut table = output::table(&["", "found", imported, "already there", "left out", "failed"]);
        for kind in KINDS {
            let count = self.kinds.get(kind).cloned().unwrap_or_default();
            table.add_row([
                kind.to_owned(),
                count.found.to_string(),
                count.imported.to_string(),
                count.already_there.to_string(),
                count.left_out.to_string(),
                count.failed.to_string(),
            ]);
        }
        println!("{table}");
        for (reason, count) in &self.left_out {
            println!("left out: {count} × {reason}");
        }
        for note in &self.notes {
            println!("note: {note}");
        }
        for failure in self.failures.iter().take(NAMED) {
            println!("failed: {} {}: {}", failure.kind, failure.id, failure.reason);
        }
        if let Some(more @ 1..) = self.failures.len().checked_sub(NAMED) {
            println!("… and {more} more failures; `--json` names all");
        }
    }
}
