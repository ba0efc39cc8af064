//! Tests of what W&B's client and tables need of the store, on both databases.

use serde_json::json;

use super::artifacts::{self, Artifact, ArtifactFile, ArtifactState, Blob, Collection, Direction};
use super::runs::{self, WandbName, WandbRun, WandbState};
use super::{links, retired};
use crate::testing::{digest, temp_store};
use crate::tracking::artifacts::{ArtifactRow, has_name, put, remove_some, unreferenced};
use crate::tracking::experiments::{self, NewExperiment};
use crate::tracking::metrics::{self, KnownKeys, NewMetric, Point};
use crate::tracking::runs::{RunHead, RunKey, RunStatus};
use crate::tracking::tables::{self, StoredTable};
use crate::tracking::{Lifecycle, history, runs as tracked};
use crate::{StoreError, Tx};

fn collection(tx: &mut Tx<'_>, name: &str) -> Result<Collection, StoreError> {
    let wanted = Collection {
        number: 0,
        workspace: "default".to_owned(),
        entity: "ada".to_owned(),
        project: "p".to_owned(),
        name: name.to_owned(),
        kind: "dataset".to_owned(),
        created_ms: 1,
        is_portfolio: false,
    };
    artifacts::ensure_collection(tx, &wanted)
}

fn version(tx: &mut Tx<'_>, collection: i64, md5: &str) -> Result<Artifact, StoreError> {
    let mut artifact = Artifact {
        number: 0,
        collection,
        version: Some(artifacts::take_version(tx, collection)?),
        state: ArtifactState::Committed,
        digest: md5.to_owned(),
        client_id: md5.to_owned(),
        description: String::new(),
        metadata: json!({}),
        aliases: json!([]),
        run_id: None,
        manifest: None,
        size: 1,
        file_count: 1,
        created_ms: 1_000,
        updated_ms: 1_000,
    };
    artifact.number = artifacts::insert(tx, &artifact)?;
    let file = ArtifactFile {
        path: "f".to_owned(),
        md5: md5.to_owned(),
        size: 1,
        reference: None,
    };
    artifacts::put_files(tx, artifact.number, &[file])?;
    let blob = Blob {
        digest: digest(md5),
        size: 1,
    };
    artifacts::put_blob(tx, "default", md5, blob)?;
    artifacts::set_alias(tx, collection, "latest", artifact.number)?;
    Ok(artifact)
}

#[test]
fn a_version_goes_with_its_names_and_the_bytes_that_only_it_kept() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let own = collection(tx, "data")?;
            let (first, second) = (version(tx, own.number, "a")?, version(tx, own.number, "b")?);
            let portfolio = collection(tx, "best")?;
            assert!(!portfolio.is_portfolio);
            links::make_portfolio(tx, portfolio.number)?;
            assert!(artifacts::collection(tx, portfolio.number)?.is_portfolio);
            links::link(tx, portfolio.number, first.number, 4)?;
            let link = links::link(tx, portfolio.number, second.number, 5)?;
            assert_eq!(links::link(tx, portfolio.number, second.number, 6)?, link);
            assert_eq!(links::by_version(tx, portfolio.number, 1)?, Some(link));
            artifacts::set_alias(tx, portfolio.number, "prod", second.number)?;
            artifacts::set_alias(tx, portfolio.number, "latest", second.number)?;
            assert_eq!(
                links::aliases(tx, portfolio.number, second.number)?,
                ["latest", "prod"]
            );
            assert_eq!(retired::held(tx, &second)?, ["best:prod"]);
            artifacts::link(tx, "run", Direction::Input, second.number, 1)?;
            retired::add_tag(tx, second.number, "gold")?;
            retired::add_tag(tx, second.number, "gold")?;
            assert_eq!(retired::tags(tx, second.number)?, ["gold"]);
            retired::set_ttl(tx, &second, Some(60))?;
            assert_eq!(retired::ttl(tx, second.number)?, Some(60));
            assert!(retired::ended(tx, 60_999, 10)?.is_empty());
            // What stands in a portfolio, or has an alias, does not go by itself.
            assert!(retired::ended(tx, 61_000, 10)?.is_empty());
            let names: Vec<String> = retired::collections(tx, "default", "ada", "p", None)?
                .into_iter()
                .map(|one| one.name)
                .collect();
            assert_eq!(names, ["best", "data"]);
            assert!(retired::collections(tx, "default", "ada", "p", Some("model"))?.is_empty());

            retired::remove(tx, &second)?;
            assert_eq!(artifacts::get(tx, second.number)?, None);
            let left: Vec<i64> = links::versions(tx, portfolio.number)?
                .iter()
                .map(|link| link.artifact)
                .collect();
            assert_eq!(left, [first.number]);
            let latest = artifacts::by_alias(tx, portfolio.number, "latest")?;
            assert_eq!(latest.map(|latest| latest.number), Some(first.number));
            assert!(retired::ended(tx, 61_000, 10)?.is_empty());
            let latest = artifacts::by_alias(tx, own.number, "latest")?;
            assert_eq!(latest.map(|latest| latest.number), Some(first.number));
            assert_eq!(retired::forget_blobs(tx, 1 << 50)?, [digest("b")]);
            assert!(retired::forget_blobs(tx, 1 << 50)?.is_empty());
            assert!(artifacts::blob(tx, "default", "a")?.is_some());
            // Its number is not given again.
            assert_eq!(version(tx, own.number, "c")?.version, Some(2));
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_version_whose_time_is_over_waits_until_nobody_holds_it() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let own = collection(tx, "data")?;
            let only = version(tx, own.number, "a")?;
            retired::set_ttl(tx, &only, Some(60))?;
            assert_eq!(retired::ended(tx, 61_000, 10)?, [only.number]);
            artifacts::set_alias(tx, own.number, "prod", only.number)?;
            assert!(retired::ended(tx, 61_000, 10)?.is_empty());
            artifacts::remove_alias(tx, own.number, "prod", only.number)?;
            assert_eq!(retired::ended(tx, 61_000, 10)?, [only.number]);

            let portfolio = collection(tx, "best")?;
            links::make_portfolio(tx, portfolio.number)?;
            links::link(tx, portfolio.number, only.number, 5)?;
            assert!(retired::ended(tx, 61_000, 10)?.is_empty());
            links::unlink(tx, portfolio.number, only.number)?;
            assert_eq!(retired::ended(tx, 61_000, 10)?, [only.number]);

            let mut sent = only.clone();
            sent.state = ArtifactState::Pending;
            artifacts::update(tx, &sent)?;
            assert!(retired::ended(tx, 61_000, 10)?.is_empty());
            Ok(())
        })
        .unwrap();
}

#[test]
fn parquet_goes_with_the_file_that_it_was_made_of() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let row = ArtifactRow {
                digest: digest("file"),
                size: 1,
                modified_at: crate::testing::at(1),
            };
            assert!(put(tx, "1/run/artifacts/t.json", &row)?.is_ok());
            let mut table = StoredTable {
                source: digest("file"),
                format: "csv".to_owned(),
                by_place: false,
                parquet: Some(digest("parquet")),
                rows: 3,
                columns: json!([{ "name": "a", "type": "text" }]),
                problem: String::new(),
                used_ms: 5,
            };
            tables::put(tx, &table)?;
            assert_eq!(tables::get(tx, digest("file"), "csv")?.as_ref(), Some(&table));
            assert!(has_name(tx, digest("parquet"))?);
            assert!(unreferenced(tx, &[digest("file"), digest("parquet")])?.is_empty());
            remove_some(tx, "1/run", 10)?;
            let tabs = StoredTable {
                format: "tsv".to_owned(),
                parquet: Some(digest("tabs")),
                ..table.clone()
            };
            tables::put(tx, &tabs)?;
            assert_eq!(tables::get(tx, digest("file"), "tsv")?.as_ref(), Some(&tabs));
            let mut both = vec![digest("file"), digest("parquet"), digest("tabs")];
            both.sort_unstable();
            assert_eq!(unreferenced(tx, &[digest("file")])?, both);
            assert_eq!(tables::get(tx, digest("file"), "csv")?, None);
            assert_eq!(tables::get(tx, digest("file"), "tsv")?, None);

            table.by_place = true;
            tables::put(tx, &table)?;
            tables::touch(tx, digest("file"), 50)?;
            assert!(tables::forget_unused(tx, 50, 10)?.is_empty());
            assert_eq!(tables::forget_unused(tx, 51, 10)?, [digest("parquet")]);
            Ok(())
        })
        .unwrap();
}

fn wandb_run(run_id: &str) -> WandbRun {
    WandbRun {
        run_id: run_id.to_owned(),
        at: WandbName {
            workspace: "default".to_owned(),
            entity: "ada".to_owned(),
            project: "p".to_owned(),
            name: run_id.to_owned(),
        },
        display_name: run_id.to_owned(),
        config: json!({}),
        summary: json!({}),
        tags: json!([]),
        notes: String::new(),
        group: String::new(),
        job_type: String::new(),
        sweep: None,
        state: WandbState::Running,
        exit_code: None,
        created_ms: 9,
        heartbeat_ms: 9,
        history_lines: 0,
        events_lines: 0,
        log_lines: 0,
        history_tail: String::new(),
        events_tail: String::new(),
        stop_requested: false,
    }
}

#[test]
fn runs_of_a_project_and_their_histories_are_read_without_the_deleted() {
    let (_dir, store) = temp_store();
    store
        .write_blocking(|tx| {
            let new = NewExperiment {
                workspace: "default",
                name: "p",
                created_ms: 5,
            };
            let experiment = experiments::insert(tx, &new, |id| format!("root/{id}"))?.unwrap();
            let mut numbers = Vec::new();
            for (run_id, lifecycle) in [("here", Lifecycle::Active), ("gone", Lifecycle::Deleted)] {
                let head = RunHead {
                    number: 0,
                    run_id: run_id.to_owned(),
                    experiment,
                    name: run_id.to_owned(),
                    user_id: "ada".to_owned(),
                    status: RunStatus::Running,
                    lifecycle,
                    start_ms: 7,
                    end_ms: None,
                    deleted_ms: None,
                    artifact_uri: String::new(),
                };
                numbers.push(tracked::insert(tx, &head)?);
                runs::put(tx, &wandb_run(run_id))?;
            }
            let mut found = Vec::new();
            runs::each_of_project(tx, &wandb_run("here").at, |run| found.push(run.run_id))?;
            assert_eq!(found, ["here"]);
            let projects = runs::projects(tx, "default", "ada")?;
            assert_eq!(projects.len(), 1);
            assert_eq!((projects[0].name.as_str(), projects[0].created_ms), ("p", 9));

            let key = RunKey {
                number: numbers[0],
                experiment,
                lifecycle: Lifecycle::Active,
            };
            let told = [("loss", 0), ("loss", 1), ("loss", 2), ("system/cpu", 9)];
            let told: Vec<NewMetric> = told
                .into_iter()
                .map(|(key, step)| NewMetric {
                    key: key.to_owned(),
                    point: Point::new(step, step, 0.5),
                    model_id: None,
                    dataset_name: None,
                    dataset_digest: None,
                })
                .collect();
            metrics::log(tx, key, &told, &KnownKeys::default())?;
            assert_eq!(history::last_step(tx, key.number)?, Some(2));
            let names =
                |system| -> Result<Vec<(i64, String)>, StoreError> { history::keys(tx, key.number, system) };
            let (numbers, system) = (names(false)?, names(true)?);
            assert_eq!((numbers.len(), numbers[0].1.as_str()), (1, "loss"));
            assert_eq!((system.len(), system[0].1.as_str()), (1, "system/cpu"));
            let (run, loss) = (key.number, numbers[0].0);
            assert_eq!(history::steps_between(tx, run, loss, (1, 9), None)?, [1, 2]);
            assert_eq!(history::steps_between(tx, run, loss, (0, 9), Some(2))?, [0, 1]);
            let mut steps = Vec::new();
            history::each_at(tx, run, loss, &[0, 2], |point| steps.push(point.step))?;
            assert_eq!(steps, [0, 2]);
            Ok(())
        })
        .unwrap();
}
