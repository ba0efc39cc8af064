//! Logged models and the registry on their way.

use std::collections::HashMap;
use std::sync::PoisonError;

use anyhow::Result;
use serde_json::json;
use tidemill_control::tracking::import::{
    LoggedModel, Mark, ModelOutcome, ModelOutcomes, Models, RegisteredModelWithVersions, model_artifacts,
    stays_where_it_is,
};

use super::{Transfer, mark};
use crate::client::is_unreachable;
use crate::commands::import::source::{Place, SourceModel, fingerprint, local_path};

impl Transfer<'_> {
    pub(super) async fn logged_models(&self, experiment: &str, here: i64) -> Result<()> {
        let mut from = None;
        loop {
            let page = match self.source.logged_models(experiment, from).await {
                Ok(page) => page,
                Err(error) => {
                    let reason = format!("its logged models: {error:#}");
                    self.tally().fail("experiments", experiment, &reason, false);
                    return Ok(());
                }
            };
            self.tally().broken(page.broken);
            let print = |model: &SourceModel| {
                let with = if self.options.artifacts {
                    ""
                } else {
                    " without artifacts"
                };
                format!("{}{with}", fingerprint(&model.model))
            };
            let things = page.items.iter().map(|m| (m.model.model_id.clone(), print(m)));
            let known = self.known("logged_model", things.collect()).await?;
            let mut whole = Vec::new();
            for found in page.items {
                let id = found.model.model_id.clone();
                self.bar.set_message(id.clone());
                let target = model_artifacts(here, &id);
                if !matches!(found.files, Place::Remote(_)) {
                    self.note_moved(&id, &found.model.artifact_location, target.clone());
                }
                if let Some(mark) = known.get(&id) {
                    let mut tally = self.tally();
                    tally.outcome("logged models", &id, "present", None);
                    let count = mark.counts["artifacts"].as_u64().unwrap_or(0);
                    tally.of("artifacts").found += count;
                    tally.of("artifacts").already_there += count;
                    continue;
                }
                match self.bring_model(&found, here, &target).await {
                    Ok(Some(files)) => whole.push(mark(&id, &print(&found), json!({ "artifacts": files }))),
                    Ok(None) => {}
                    Err(error) if is_unreachable(&error) => {
                        self.remember("logged_model", whole).await?;
                        return Err(error);
                    }
                    Err(error) => self
                        .tally()
                        .fail("logged models", &id, &format!("{error:#}"), false),
                }
            }
            self.remember("logged_model", whole).await?;
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// How many files it has, if it came whole.
    async fn bring_model(&self, found: &SourceModel, here: i64, target: &str) -> Result<Option<u64>> {
        let model = LoggedModel {
            experiment: here,
            artifact_location: match &found.files {
                Place::Remote(uri) => uri.clone(),
                _ => String::new(),
            },
            ..found.model.clone()
        };
        let id = &model.model_id.clone();
        let body = Models {
            source: self.name.clone(),
            logged_models: vec![model],
            registered_models: Vec::new(),
        };
        let answer: Option<ModelOutcomes> = self.post("models", &body).await?;
        let outcome = answer.and_then(|answer| answer.logged_models.into_iter().next());
        let (word, reason) = match outcome {
            Some(outcome) => (outcome.outcome, outcome.reason),
            None => ("created".to_owned(), None),
        };
        self.tally()
            .outcome("logged models", id, &word, reason.as_deref());
        if word == "refused" {
            return Ok(None);
        }
        let files = self
            .bring_files(id, &found.files, target, word == "created")
            .await?;
        Ok(files.filter(|_| found.model.status != "PENDING" && !self.options.dry_run))
    }

    pub(super) async fn registered_models(&self) -> Result<()> {
        let page = self.source.registered_models().await?;
        self.tally().broken(page.broken);
        let print = |model: &RegisteredModelWithVersions| fingerprint(model);
        let things = page.items.iter().map(|m| (m.model.name.clone(), print(m)));
        let known = self.known("registered_model", things.collect()).await?;
        let mut whole = Vec::new();
        for found in page.items {
            let name = found.model.name.clone();
            self.bar.set_message(name.clone());
            let print = print(&found);
            if known.contains_key(&name) {
                let mut tally = self.tally();
                tally.outcome("registered models", &name, "present", None);
                let counts = [
                    ("model versions", found.versions.len()),
                    ("aliases", found.aliases.len()),
                ];
                for (kind, count) in counts {
                    tally.of(kind).found += count as u64;
                    tally.of(kind).already_there += count as u64;
                }
                continue;
            }
            let body = Models {
                source: self.name.clone(),
                logged_models: Vec::new(),
                registered_models: vec![self.replaced(found)],
            };
            let answer: Option<ModelOutcomes> = match self.post("models", &body).await {
                Ok(answer) => answer,
                Err(error) if is_unreachable(&error) => {
                    self.remember("registered_model", whole).await?;
                    return Err(error);
                }
                Err(error) => {
                    let mut tally = self.tally();
                    tally.of("registered models").found += 1;
                    tally.fail("registered models", &name, &format!("{error:#}"), false);
                    continue;
                }
            };
            let outcome = answer.and_then(|answer| answer.registered_models.into_iter().next());
            let came = match outcome {
                Some(outcome) => self.count_model(&outcome),
                None => self.count_dry(&body.registered_models[0]),
            };
            if came {
                whole.push(Mark {
                    target: name.clone(),
                    ..mark(&name, &print, json!({}))
                });
            }
        }
        self.remember("registered_model", whole).await
    }

    fn count_model(&self, outcome: &ModelOutcome) -> bool {
        let mut tally = self.tally();
        let before = tally.failures.len();
        let kinds = [
            ("registered models", std::slice::from_ref(&outcome.model)),
            ("model versions", outcome.versions.as_slice()),
            ("aliases", outcome.aliases.as_slice()),
        ];
        for (kind, outcomes) in kinds {
            for each in outcomes {
                tally.outcome(kind, &each.id, &each.outcome, each.reason.as_deref());
            }
        }
        tally.failures.len() == before
    }

    fn count_dry(&self, found: &RegisteredModelWithVersions) -> bool {
        let mut tally = self.tally();
        tally.outcome("registered models", &found.model.name, "created", None);
        for _ in &found.versions {
            tally.outcome("model versions", "", "created", None);
        }
        for _ in &found.aliases {
            tally.outcome("aliases", "", "created", None);
        }
        true
    }

    /// With the places that its files have here.
    fn replaced(&self, mut found: RegisteredModelWithVersions) -> RegisteredModelWithVersions {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        for version in &mut found.versions {
            let owners = [version.model_id.as_deref(), version.run_id.as_deref()];
            version.source = new_place(&version.source, &owners, &moved);
            let storage = version.storage_location.take();
            version.storage_location = storage
                .map(|place| new_place(&place, &owners, &moved))
                // What is on a disk elsewhere is nowhere for us; the source may still lead to it.
                .filter(|place| {
                    place != &version.source
                        && (place.starts_with("mlflow-artifacts:/") || stays_where_it_is(place))
                });
        }
        found
    }
}

/// Where something is here that was at `place`, in the files of a run or logged model that came.
fn new_place(place: &str, owners: &[Option<&str>], moved: &HashMap<String, (String, String)>) -> String {
    // `runs:/` and `models:/` mean the same here as there.
    if place.starts_with("runs:/") || place.starts_with("models:/") {
        return place.to_owned();
    }
    let named = owners.iter().flatten().copied();
    for id in named.chain(place.split('/')) {
        let Some((from, to)) = moved.get(id) else { continue };
        for (place, from) in spellings(place, from) {
            let Some(rest) = place.strip_prefix(from.as_str()) else {
                continue;
            };
            if rest.is_empty() || rest.starts_with('/') {
                return format!("{to}{rest}");
            }
        }
        // Another spelling of the root, such as that of a moved folder: what follows the id is the same.
        let tail = format!("/{id}/artifacts");
        if let Some((_, rest)) = place.split_once(&tail)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("{to}{rest}");
        }
    }
    place.to_owned()
}

/// As they are written, and as paths.
fn spellings(place: &str, from: &str) -> Vec<(String, String)> {
    let mut found = vec![(place.to_owned(), from.trim_end_matches('/').to_owned())];
    if let (Some(place), Some(from)) = (local_path(place), local_path(from)) {
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        found.push((text(place), text(from)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_follows_its_files() {
        let mut moved = HashMap::new();
        let here = "mlflow-artifacts:/7/r1/artifacts".to_owned();
        moved.insert(
            "r1".to_owned(),
            ("file:///srv/mlruns/0/r1/artifacts".to_owned(), here),
        );
        let place = |place: &str| new_place(place, &[Some("r1")], &moved);
        let model = "mlflow-artifacts:/7/r1/artifacts/model";
        assert_eq!(place("file:///srv/mlruns/0/r1/artifacts/model"), model);
        assert_eq!(place("/srv/mlruns/0/r1/artifacts/model"), model);
        assert_eq!(place("/elsewhere/0/r1/artifacts/model"), model);
        assert_eq!(new_place("/elsewhere/0/r1/artifacts/model", &[], &moved), model);
        assert_eq!(place("runs:/r1/model"), "runs:/r1/model");
        assert_eq!(
            place("/srv/mlruns/0/r1/artifacts-of-others/x"),
            "/srv/mlruns/0/r1/artifacts-of-others/x"
        );
        assert_eq!(place("s3://b/model"), "s3://b/model");
    }
}
