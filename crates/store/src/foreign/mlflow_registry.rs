//! MLflow's logged models and its registry.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::ToSql;

use super::Mlflow;
use crate::column::{Fields, bind};
use crate::error::StoreError;
use crate::tracking::import::{LoggedModel, Metric, ModelMetric, Pair, RegisteredModel, Version};

/// A registered model with its versions and aliases.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ForeignModel {
    /// The model.
    pub model: RegisteredModel,
    /// By number.
    pub versions: Vec<Version>,
    /// Alias and version.
    pub aliases: Vec<(String, i64)>,
}

/// The stage in which MLflow keeps the rows of deleted versions.
const DELETED: &str = "Deleted_Internal";

impl Mlflow {
    /// Logged models of an experiment with an id above `after`, in the order of their ids.
    pub fn logged_models(
        &self,
        experiment: i64,
        after: &str,
        limit: u32,
    ) -> Result<Vec<LoggedModel>, StoreError> {
        if !self.has("logged_models") {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT model_id, name, coalesce(model_type, ''), coalesce(source_run_id, ''), artifact_location, status, status_message, \
             coalesce(lifecycle_stage, 'active'), creation_timestamp_ms, last_updated_timestamp_ms \
             FROM logged_models WHERE experiment_id = ?1 AND model_id > ?2 ORDER BY model_id LIMIT {limit}"
        );
        let conn = self.conn();
        let mut found: BTreeMap<String, LoggedModel> = BTreeMap::new();
        conn.rows(&sql, bind![experiment, after], |row| {
            let mut fields = Fields::of(row);
            let model_id: String = fields.next()?;
            let mut model = LoggedModel {
                model_id: model_id.clone(),
                name: fields.next()?,
                model_type: fields.next()?,
                source_run_id: fields.next()?,
                artifact_location: fields.next()?,
                ..LoggedModel::default()
            };
            let status = match fields.next::<i64>()? {
                1 => "PENDING",
                2 => "READY",
                3 => "FAILED",
                _ => "UNSPECIFIED",
            };
            status.clone_into(&mut model.status);
            model.status_message = fields.next()?;
            model.lifecycle = fields.next()?;
            model.created_ms = fields.next()?;
            model.updated_ms = fields.next()?;
            found.insert(model_id, model);
            Ok(())
        })?;
        let ids: Vec<String> = found.keys().cloned().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let values: Vec<&dyn ToSql> = ids.iter().map(|id| id as &dyn ToSql).collect();
        let marks = vec!["?"; ids.len()].join(", ");
        for (table, key, value) in [
            ("logged_model_params", "param_key", "param_value"),
            ("logged_model_tags", "tag_key", "tag_value"),
        ] {
            let sql = format!(
                "SELECT model_id, {key}, {value} FROM {table} WHERE model_id IN ({marks}) ORDER BY model_id, {key}"
            );
            conn.rows(&sql, &values, |row| {
                let mut fields = Fields::of(row);
                if let Some(model) = found.get_mut(&fields.next::<String>()?) {
                    let pair = (fields.next()?, fields.next()?);
                    if table == "logged_model_tags" {
                        model.tags.push(pair);
                    } else {
                        model.params.push(pair);
                    }
                }
                Ok(())
            })?;
        }
        // That a value is NaN stands in the run's own metrics only.
        let sql = format!(
            "SELECT l.model_id, l.metric_name, l.metric_step, l.metric_timestamp_ms, coalesce(l.metric_value, 0), l.run_id, \
             coalesce(l.dataset_name, ''), coalesce(l.dataset_digest, ''), \
             EXISTS (SELECT 1 FROM metrics m WHERE m.run_uuid = l.run_id AND m.key = l.metric_name AND m.step = l.metric_step \
                 AND m.timestamp = l.metric_timestamp_ms AND {is_nan} AND l.metric_value = 0) \
             FROM logged_model_metrics l WHERE l.model_id IN ({marks}) \
             ORDER BY l.model_id, l.metric_name, l.metric_step, l.metric_timestamp_ms, l.run_id",
            is_nan = match conn.dialect() {
                crate::db::Dialect::Sqlite => "m.is_nan = 1",
                crate::db::Dialect::Postgres => "m.is_nan",
            }
        );
        conn.rows(&sql, &values, |row| {
            let mut fields = Fields::of(row);
            if let Some(model) = found.get_mut(&fields.next::<String>()?) {
                let mut metric = Metric {
                    key: fields.next()?,
                    step: fields.next()?,
                    at_ms: fields.next()?,
                    value: fields.next()?,
                    is_nan: false,
                };
                let (run_id, dataset_name, dataset_digest) = (fields.next()?, fields.next()?, fields.next()?);
                metric.is_nan = fields.next()?;
                model.metrics.push(ModelMetric {
                    metric,
                    run_id,
                    dataset_name,
                    dataset_digest,
                });
            }
            Ok(())
        })?;
        Ok(found.into_values().collect())
    }

    /// All registered models of the default workspace, with versions, aliases and tags.
    pub fn registered_models(&self) -> Result<Vec<ForeignModel>, StoreError> {
        if !self.has("registered_models") {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT name, coalesce(description, ''), coalesce(creation_time, 0), coalesce(last_updated_time, 0) \
             FROM registered_models WHERE {} ORDER BY name",
            self.own("registered_models")
        );
        let mut found: BTreeMap<String, ForeignModel> = BTreeMap::new();
        self.conn().rows(&sql, &[], |row| {
            let mut fields = Fields::of(row);
            let model = RegisteredModel {
                name: fields.next()?,
                description: fields.next()?,
                created_ms: fields.next()?,
                updated_ms: fields.next()?,
                ..RegisteredModel::default()
            };
            found.insert(
                model.name.clone(),
                ForeignModel {
                    model,
                    ..ForeignModel::default()
                },
            );
            Ok(())
        })?;
        self.versions(&mut found)?;
        self.model_tags(&mut found)?;
        if self.has("registered_model_aliases") {
            let sql = format!(
                "SELECT name, alias, version FROM registered_model_aliases WHERE {} ORDER BY name, alias",
                self.own("registered_model_aliases")
            );
            self.conn().rows(&sql, &[], |row| {
                let mut fields = Fields::of(row);
                if let Some(found) = found.get_mut(&fields.next::<String>()?) {
                    found.aliases.push((fields.next()?, fields.next()?));
                }
                Ok(())
            })?;
        }
        Ok(found.into_values().collect())
    }

    fn versions(&self, models: &mut BTreeMap<String, ForeignModel>) -> Result<(), StoreError> {
        let storage = self.column("model_versions", "storage_location", "NULL");
        let link = self.column("model_versions", "run_link", "NULL");
        let sql = format!(
            "SELECT name, version, coalesce(description, ''), coalesce(creation_time, 0), coalesce(last_updated_time, 0), \
             coalesce(user_id, ''), coalesce(source, ''), CAST({storage} AS TEXT), run_id, CAST({link} AS TEXT), \
             coalesce(current_stage, 'None'), coalesce(status, 'READY'), status_message \
             FROM model_versions WHERE {} ORDER BY name, version",
            self.own("model_versions")
        );
        self.conn().rows(&sql, &[], |row| {
            let mut fields = Fields::of(row);
            let Some(found) = models.get_mut(&fields.next::<String>()?) else {
                return Ok(());
            };
            let mut version = Version {
                version: fields.next()?,
                description: fields.next()?,
                created_ms: fields.next()?,
                updated_ms: fields.next()?,
                user_id: fields.next()?,
                source: fields.next()?,
                storage_location: fields.next()?,
                run_id: fields.next()?,
                run_link: fields.next()?,
                stage: fields.next()?,
                status: fields.next()?,
                status_message: fields.next()?,
                ..Version::default()
            };
            found.model.last_version = found.model.last_version.max(version.version);
            version.run_id = version.run_id.filter(|id| !id.is_empty());
            version.model_id = version
                .source
                .strip_prefix("models:/m-")
                .map(|rest| format!("m-{rest}"));
            if version.stage != DELETED {
                found.versions.push(version);
            }
            Ok(())
        })?;
        if self.has("model_version_tags") {
            let sql = format!(
                "SELECT name, version, key, coalesce(value, '') FROM model_version_tags WHERE {} ORDER BY name, version, key",
                self.own("model_version_tags")
            );
            let mut tags: HashMap<(String, i64), Vec<Pair>> = HashMap::new();
            self.conn().rows(&sql, &[], |row| {
                let mut fields = Fields::of(row);
                let version = (fields.next()?, fields.next()?);
                tags.entry(version)
                    .or_default()
                    .push((fields.next()?, fields.next()?));
                Ok(())
            })?;
            for found in models.values_mut() {
                for version in &mut found.versions {
                    version.tags = tags
                        .remove(&(found.model.name.clone(), version.version))
                        .unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    fn model_tags(&self, models: &mut BTreeMap<String, ForeignModel>) -> Result<(), StoreError> {
        if !self.has("registered_model_tags") {
            return Ok(());
        }
        let sql = format!(
            "SELECT name, key, coalesce(value, '') FROM registered_model_tags WHERE {} ORDER BY name, key",
            self.own("registered_model_tags")
        );
        self.conn().rows(&sql, &[], |row| {
            let mut fields = Fields::of(row);
            if let Some(found) = models.get_mut(&fields.next::<String>()?) {
                found.model.tags.push((fields.next()?, fields.next()?));
            }
            Ok(())
        })?;
        Ok(())
    }
}
