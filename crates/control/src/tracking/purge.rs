//! Deletion for good: what was deleted long enough ago goes with all its rows and artifacts, and its name is free again.

use tidemill_store::tracking::purges::{self, Candidate, Purge, PurgeKind};
use tidemill_store::tracking::{Lifecycle, experiments};

use super::artifacts::{Place, cut};
use super::experiments::no_experiment;
use super::runs::no_run;
use super::{Caller, Result, Tracking, TrackingError, validate};

/// So many runs are taken away at once.
const CHUNK: u32 = 500;
/// So many points are cleared at once.
const POINTS: u32 = 20_000;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// What is to be purged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PurgeRequest {
    /// Only what was deleted at least so long ago, such as `30d` or `1d12h`; 30 days where nothing is said, no time at all where ids
    /// are given.
    pub older_than: Option<String>,
    /// Only these experiments, and what is in them.
    pub experiment_ids: Vec<String>,
    /// Only these runs.
    pub run_ids: Vec<String>,
    /// Counts, and changes nothing.
    pub dry_run: bool,
}

/// What was purged, or would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Purged {
    /// Experiments.
    pub experiments: u64,
    /// Runs, those of the experiments among them.
    pub runs: u64,
    /// Logged models, those of the experiments among them.
    pub logged_models: u64,
    /// Bytes of artifacts that were freed. In a dry run: those under the names that would go, counted once a name.
    pub bytes: u64,
    /// Artifact folders that this server does not reach, such as those in a bucket that it was not given: they stay.
    pub artifacts_elsewhere: u64,
}

impl Purged {
    fn count(&mut self, kind: PurgeKind, number: u64) {
        match kind {
            PurgeKind::Run => self.runs += number,
            PurgeKind::Model => self.logged_models += number,
        }
    }
}

/// Reads a length of time: numbers, each with `d`, `h`, `m` or `s`.
fn milliseconds(text: &str) -> Result<i64> {
    let wrong = || {
        TrackingError::invalid(format!(
            "Invalid value '{text}' for parameter 'older_than' supplied: expected a length of time such as '30d' or '1d12h30m'"
        ))
    };
    let mut total: i64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = match rest.as_bytes()[end] {
            b'd' => DAY_MS,
            b'h' => 3_600_000,
            b'm' => 60_000,
            b's' => 1_000,
            _ => return Err(wrong()),
        };
        total = total.saturating_add((number * unit as f64) as i64);
        rest = &rest[end + 1..];
    }
    Ok(total)
}

/// The part of a location that is a thing's own, so that nobody else's artifacts go with it: it has the thing's id in it.
fn own_part(uri: &str, id: &str) -> Option<String> {
    let path = cut(uri).0.trim_end_matches('/');
    let folder = path.strip_suffix("/artifacts").unwrap_or(path);
    folder.ends_with(&format!("/{id}")).then(|| folder.to_owned())
}

impl Tracking {
    /// Deletes for good what was deleted, in steps that each are small. One that is stopped half-way is finished by the next.
    pub async fn purge(&self, caller: &Caller, request: &PurgeRequest) -> Result<Purged> {
        let named = !request.experiment_ids.is_empty() || !request.run_ids.is_empty();
        let older_than = match &request.older_than {
            Some(text) => milliseconds(text)?,
            None if named => 0,
            None => 30 * DAY_MS,
        };
        let cutoff_ms = self.now_ms().saturating_sub(older_than);
        let mut purged = Purged::default();
        for candidate in self
            .experiments_to_purge(caller, request, named, cutoff_ms)
            .await?
        {
            self.purge_experiment_into(caller, &candidate, false, request.dry_run, &mut purged)
                .await?;
        }
        for run_id in &request.run_ids {
            let candidate = self.deleted_run(caller, run_id).await?;
            self.take_all(
                caller,
                PurgeKind::Run,
                vec![candidate],
                false,
                request.dry_run,
                &mut purged,
            )
            .await?;
        }
        if !named {
            for kind in [PurgeKind::Run, PurgeKind::Model] {
                self.take_deleted(caller, kind, cutoff_ms, request.dry_run, &mut purged)
                    .await?;
            }
        }
        if !request.dry_run {
            self.clear_pending(caller, &mut purged).await?;
            if !named {
                purged.bytes += self.sweep_artifacts().await?.bytes;
            }
        }
        Ok(purged)
    }

    /// Deletes one experiment for good, with all that is in it, whether it was deleted before or not.
    pub async fn purge_experiment(&self, caller: &Caller, id: &str) -> Result<Purged> {
        let number = validate::experiment_id(id)?;
        let workspace = caller.workspace.clone();
        let head = self
            .store()
            .read(move |tx| experiments::head(tx, &workspace, number))
            .await?
            .ok_or_else(|| no_experiment(number))?;
        if head.lifecycle == Lifecycle::Active {
            // From here on nothing can be added to it.
            self.delete_experiment(caller, id).await?;
        }
        let candidate = Candidate {
            number,
            id: head.name,
            artifact_uri: head.artifact_location,
        };
        let mut purged = Purged::default();
        self.purge_experiment_into(caller, &candidate, false, false, &mut purged)
            .await?;
        self.clear_pending(caller, &mut purged).await?;
        Ok(purged)
    }

    /// Deletes one run for good, whether it was deleted before or not.
    pub async fn purge_run(&self, caller: &Caller, run_id: &str) -> Result<Purged> {
        let (candidate, _) = self.find_run(caller, run_id).await?;
        let mut purged = Purged::default();
        self.take_all(caller, PurgeKind::Run, vec![candidate], true, false, &mut purged)
            .await?;
        self.clear_pending(caller, &mut purged).await?;
        Ok(purged)
    }

    async fn experiments_to_purge(
        &self,
        caller: &Caller,
        request: &PurgeRequest,
        named: bool,
        cutoff_ms: i64,
    ) -> Result<Vec<Candidate>> {
        let workspace = caller.workspace.clone();
        if !named {
            let found = self
                .store()
                .read(move |tx| purges::deleted_experiments(tx, &workspace, cutoff_ms))
                .await?;
            return Ok(found);
        }
        let mut candidates = Vec::new();
        for id in &request.experiment_ids {
            let (number, workspace) = (validate::experiment_id(id)?, workspace.clone());
            let head = self
                .store()
                .read(move |tx| experiments::head(tx, &workspace, number))
                .await?
                .ok_or_else(|| no_experiment(number))?;
            if head.lifecycle == Lifecycle::Active {
                return Err(TrackingError::invalid(format!(
                    "Experiment with id {number} is not in `deleted` lifecycle stage. Only experiments in `deleted` lifecycle \
                     stage can be purged."
                )));
            }
            if head.updated_ms > cutoff_ms {
                return Err(TrackingError::invalid(format!(
                    "Experiment with id {number} is not older than the required age."
                )));
            }
            candidates.push(Candidate {
                number,
                id: head.name,
                artifact_uri: head.artifact_location,
            });
        }
        Ok(candidates)
    }

    async fn find_run(&self, caller: &Caller, run_id: &str) -> Result<(Candidate, bool)> {
        let (workspace, id) = (caller.workspace.clone(), run_id.to_owned());
        let found = self
            .store()
            .read(move |tx| purges::find(tx, PurgeKind::Run, &workspace, &id))
            .await?;
        found.ok_or_else(|| no_run(run_id))
    }

    async fn deleted_run(&self, caller: &Caller, run_id: &str) -> Result<Candidate> {
        match self.find_run(caller, run_id).await? {
            (candidate, true) => Ok(candidate),
            _ => Err(TrackingError::invalid(format!(
                "Run `{run_id}` is not in `deleted` lifecycle stage. Only runs in `deleted` lifecycle stage can be purged."
            ))),
        }
    }

    async fn take_deleted(
        &self,
        caller: &Caller,
        kind: PurgeKind,
        cutoff_ms: i64,
        dry_run: bool,
        purged: &mut Purged,
    ) -> Result<()> {
        let mut after = 0;
        loop {
            let workspace = caller.workspace.clone();
            let found = self
                .store()
                .read(move |tx| purges::deleted(tx, kind, &workspace, cutoff_ms, after, CHUNK))
                .await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.number;
            self.take_all(caller, kind, found, false, dry_run, purged).await?;
        }
    }

    async fn take_all(
        &self,
        caller: &Caller,
        kind: PurgeKind,
        candidates: Vec<Candidate>,
        whatever: bool,
        dry_run: bool,
        purged: &mut Purged,
    ) -> Result<()> {
        if dry_run {
            purged.count(kind, candidates.len() as u64);
            for candidate in &candidates {
                match self
                    .own_place(caller, &candidate.artifact_uri, &candidate.id)
                    .await?
                {
                    Some(place) => purged.bytes += self.size_of_place(&place).await?,
                    None => purged.artifacts_elsewhere += 1,
                }
            }
            return Ok(());
        }
        let workspace = caller.workspace.clone();
        let taken = self
            .store()
            .write(move |tx| purges::take(tx, kind, &workspace, &candidates, whatever))
            .await;
        // Another of its id may come, elsewhere.
        self.forget_places();
        let taken = taken?;
        purged.count(kind, taken);
        Ok(())
    }

    async fn purge_experiment_into(
        &self,
        caller: &Caller,
        experiment: &Candidate,
        whatever: bool,
        dry_run: bool,
        purged: &mut Purged,
    ) -> Result<()> {
        let number = experiment.number;
        for kind in [PurgeKind::Run, PurgeKind::Model] {
            let mut after = 0;
            loop {
                let found = self
                    .store()
                    .read(move |tx| purges::of_experiment(tx, kind, number, after, CHUNK))
                    .await?;
                let Some(last) = found.last() else { break };
                after = last.number;
                self.take_all(caller, kind, found, true, dry_run, purged).await?;
            }
        }
        purged.experiments += 1;
        if dry_run {
            return Ok(());
        }
        // Datasets can go once no run's rows refer to them.
        self.clear_pending(caller, purged).await?;
        let removed = self
            .store()
            .write(move |tx| purges::remove_experiment(tx, number, whatever))
            .await;
        self.forget_places();
        self.users().changed();
        if !removed? {
            purged.experiments -= 1;
            return Ok(());
        }
        if let Some(place) = self
            .own_place(caller, &experiment.artifact_uri, &number.to_string())
            .await?
        {
            purged.bytes += self.remove_place(&place).await?.1.bytes;
        }
        Ok(())
    }

    /// Clears away what was taken, now or by a server that was stopped.
    async fn clear_pending(&self, caller: &Caller, purged: &mut Purged) -> Result<()> {
        loop {
            let workspace = caller.workspace.clone();
            let pending = self
                .store()
                .read(move |tx| purges::pending(tx, &workspace, CHUNK))
                .await?;
            if pending.is_empty() {
                return Ok(());
            }
            for purge in pending {
                match self.own_place(caller, &purge.artifact_uri, &purge.id).await? {
                    Some(place) => purged.bytes += self.remove_place(&place).await?.1.bytes,
                    None => purged.artifacts_elsewhere += 1,
                }
                self.clear(purge).await?;
            }
        }
    }

    async fn clear(&self, purge: Purge) -> Result<()> {
        loop {
            let entry = purge.clone();
            if self
                .store()
                .write(move |tx| purges::clear_some(tx, &entry, POINTS))
                .await?
            {
                return Ok(());
            }
        }
    }

    /// The place that is a thing's own, if this server reaches it.
    async fn own_place(&self, caller: &Caller, uri: &str, id: &str) -> Result<Option<Place>> {
        let Some(own) = own_part(uri, id) else {
            return Ok(None);
        };
        match self.place_of(caller, &own, "").await {
            Ok(place) => Ok(Some(place)),
            Err(TrackingError::Store(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_read() {
        assert_eq!(milliseconds("30d").unwrap(), 30 * DAY_MS);
        assert_eq!(milliseconds("1d12h30m5s").unwrap(), DAY_MS + 45_005_000);
        assert_eq!(milliseconds("0.5d").unwrap(), DAY_MS / 2);
        for wrong in ["", "d", "30", "3w", "1d 2h", "-1d", "1.2.3d"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_what_has_the_things_id_in_it_goes_with_it() {
        assert_eq!(
            own_part("mlflow-artifacts:/0/abc/artifacts", "abc").as_deref(),
            Some("mlflow-artifacts:/0/abc")
        );
        assert_eq!(
            own_part("mlflow-artifacts:/7", "7").as_deref(),
            Some("mlflow-artifacts:/7")
        );
        assert_eq!(own_part("mlflow-artifacts:/shared", "7"), None);
        assert_eq!(own_part("mlflow-artifacts:/", "0"), None);
        assert_eq!(own_part("/srv/x17", "7"), None);
        // What nobody reads is no part of it.
        assert_eq!(own_part("mlflow-artifacts:/#/7", "7"), None);
        assert_eq!(
            own_part("mlflow-artifacts:/5/abc/artifacts#/7/artifacts", "7"),
            None
        );
        assert_eq!(own_part("s3://b/root?/7", "7"), None);
        assert_eq!(
            own_part("s3://b/root/7/artifacts?x=y#z", "7").as_deref(),
            Some("s3://b/root/7")
        );
    }
}
