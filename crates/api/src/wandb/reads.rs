//! What W&B's `Api` asks to read: projects, runs, their histories and files.

use serde_json::{Map, Value, json};
use tidemill_control::tracking::TrackingError;
use tidemill_control::tracking::wandb::{HistoryQuery, HistoryRow, MOST_ROWS, RunsQuery, name_of};
use tidemill_store::wandb::runs::{WandbName, WandbRun};

use super::{Data, Operation, opaque, project, time};

/// How many rows a sample of a history has where nothing is said.
const SAMPLES: u64 = 500;
/// How many items a page has at most.
const PAGE: u64 = 1_000;
/// How many samples one question asks for at most.
const MOST_SPECS: usize = 100;

pub(super) async fn answer(op: &Operation<'_>, name: &str) -> Option<Data> {
    Some(match name {
        "Run" => one(op).await,
        "Runs" => many(op).await,
        "RunHistoryKeys" => history_keys(op).await,
        "RunSampledHistory" | "SampledHistoryPage" => sampled_history(op).await,
        "RunFullHistory" => full_history(op).await,
        "HistoryPage" => history_page(op).await,
        "RunParquetHistory" => parquet_history(op).await,
        "RunFiles" => files(op).await,
        "RunConsoleLogPage" | "RunConsoleLogTail" => console(op).await,
        "DeleteRun" => delete(op).await,
        "GetProjects" => projects(op).await,
        "GetProject" => the_project(op).await,
        _ => return None,
    })
}

/// The run that an operation names; its clients call the variable one way or the other.
fn at(op: &Operation<'_>) -> WandbName {
    let name = op
        .text("run")
        .or_else(|| op.text("runName"))
        .or_else(|| op.text("name"))
        .unwrap_or_default();
    name_of(op.caller, op.text("entity"), op.text("project"), name)
}

async fn node(op: &Operation<'_>, run: &WandbRun, experiment: i64) -> Result<Value, TrackingError> {
    let last = op.tracking.wandb_last_step(op.caller, &run.run_id).await?;
    Ok(json!({
        "__typename": "Run",
        "id": run.run_id,
        // A number in a text: the client reads it as one.
        "projectId": experiment.to_string(),
        "name": run.at.name,
        "displayName": run.display_name,
        "description": run.notes,
        "notes": run.notes,
        "tags": run.tags,
        "sweepName": run.sweep,
        "state": run.state,
        "config": run.config.to_string(),
        "summaryMetrics": run.summary.to_string(),
        "systemMetrics": last_events(run),
        "group": if run.group.is_empty() { Value::Null } else { json!(run.group) },
        "jobType": if run.job_type.is_empty() { Value::Null } else { json!(run.job_type) },
        "commit": null,
        "readOnly": false,
        "createdAt": time(run.created_ms),
        "heartbeatAt": time(run.heartbeat_ms),
        "historyLineCount": run.history_lines,
        "logLineCount": run.log_lines,
        "user": { "name": run.at.entity, "username": run.at.entity },
        "historyKeys": { "lastStep": last.unwrap_or(-1), "sets": [], "keys": {} },
        "project": project(&run.at.entity, &run.at.project),
    }))
}

/// The last system metrics, JSON in a text.
fn last_events(run: &WandbRun) -> String {
    let line: Option<Map<String, Value>> = serde_json::from_str(&run.events_tail).ok();
    json!(line.unwrap_or_default()).to_string()
}

async fn one(op: &Operation<'_>) -> Data {
    let Some((run, experiment)) = op.tracking.wandb_live_run(at(op)).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    Ok(json!({ "project": { "run": node(op, &run, experiment).await? } }))
}

fn number(op: &Operation<'_>, name: &str) -> Option<u64> {
    op.variables.get(name).and_then(Value::as_u64)
}

/// Where a page begins: cursors count what came before.
fn offset(op: &Operation<'_>, name: &str) -> Result<usize, TrackingError> {
    match op.text(name) {
        None => Ok(0),
        Some(cursor) => cursor
            .parse()
            .map_err(|_| TrackingError::invalid(format!("`{cursor}` is no cursor of this server"))),
    }
}

fn page_info(end: usize, total: usize) -> Value {
    json!({ "__typename": "PageInfo", "endCursor": end.to_string(), "hasNextPage": end < total })
}

async fn many(op: &Operation<'_>) -> Data {
    let named = name_of(op.caller, op.text("entity"), op.text("project"), "");
    let filters = match op.text("filters") {
        None => Value::Null,
        Some(text) => serde_json::from_str(text)
            .map_err(|e| TrackingError::invalid(format!("the filters are no JSON: {e}")))?,
    };
    let from = offset(op, "cursor")?;
    let query = RunsQuery {
        filters,
        order: op.owned("order").unwrap_or_default(),
        offset: from,
        limit: number(op, "perPage").unwrap_or(50).clamp(1, PAGE) as usize,
    };
    let Some(page) = op.tracking.wandb_runs(named, query).await? else {
        return Ok(json!({ "project": null }));
    };
    let mut edges = Vec::with_capacity(page.runs.len());
    for (i, run) in page.runs.iter().enumerate() {
        let node = node(op, run, page.experiment).await?;
        edges.push(json!({ "node": node, "cursor": (from + i + 1).to_string() }));
    }
    Ok(json!({ "project": {
        "internalId": opaque("ProjectInternalId", &page.experiment.to_string()),
        "runCount": page.total,
        "readOnly": false,
        "runs": { "edges": edges, "pageInfo": page_info(from + page.runs.len(), page.total), "totalCount": page.total },
    }}))
}

async fn history_keys(op: &Operation<'_>) -> Data {
    let Some((run, _)) = op.tracking.wandb_live_run(at(op)).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    let last = op.tracking.wandb_last_step(op.caller, &run.run_id).await?;
    Ok(json!({ "project": { "run": { "historyKeys": { "lastStep": last.unwrap_or(-1) } } } }))
}

/// The rows of a run's history, if there is the run.
async fn rows(op: &Operation<'_>, query: HistoryQuery) -> Result<Option<Vec<HistoryRow>>, TrackingError> {
    let Some((run, _)) = op.tracking.wandb_live_run(at(op)).await? else {
        return Ok(None);
    };
    let rows = op.tracking.wandb_history(op.caller, &run.run_id, query).await?;
    Ok(Some(rows))
}

fn most(asked: Option<u64>, default: u64) -> usize {
    usize::try_from(asked.unwrap_or(default)).unwrap_or(MOST_ROWS)
}

fn lines(rows: &[HistoryRow]) -> Vec<Value> {
    rows.iter()
        .map(|row| {
            // The client's own lines have Python's constants.
            let text = json!(row.to_map()).to_string();
            let bare = ["NaN", "Infinity", "-Infinity"]
                .into_iter()
                .fold(text, |text, word| {
                    text.replace(&format!(":\"{word}\""), &format!(":{word}"))
                });
            Value::String(bare)
        })
        .collect()
}

async fn full_history(op: &Operation<'_>) -> Data {
    // One operation for two fields.
    let system = op.query.contains("events(");
    let query = HistoryQuery {
        from: i64::MIN,
        until: i64::MAX,
        system,
        keys: Vec::new(),
        most: most(number(op, "samples"), SAMPLES),
        sample: true,
    };
    let Some(rows) = rows(op, query).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    let field = if system { "events" } else { "history" };
    Ok(json!({ "project": { "run": { field: lines(&rows) } } }))
}

async fn history_page(op: &Operation<'_>) -> Data {
    let step = |name: &str| op.variables.get(name).and_then(Value::as_i64);
    let query = HistoryQuery {
        from: step("minStep").unwrap_or(0),
        until: step("maxStep").unwrap_or(i64::MAX),
        system: false,
        keys: Vec::new(),
        most: most(number(op, "pageSize"), MOST_ROWS as u64),
        sample: false,
    };
    let Some(rows) = rows(op, query).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    Ok(json!({ "project": { "run": { "history": lines(&rows) } } }))
}

/// Each row that has every key that is asked for.
async fn sampled_history(op: &Operation<'_>) -> Data {
    let specs = match op.variables.get("specs").and_then(Value::as_array) {
        Some(specs) => specs.clone(),
        None => op.variables.get("spec").cloned().into_iter().collect(),
    };
    if specs.len() > MOST_SPECS {
        return Err(TrackingError::invalid(format!(
            "at most {MOST_SPECS} things are sampled at once"
        )));
    }
    let Some((run, _)) = op.tracking.wandb_live_run(at(op)).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    let mut answers = Vec::with_capacity(specs.len());
    for spec in &specs {
        let spec: Value = serde_json::from_str(spec.as_str().unwrap_or_default())
            .map_err(|e| TrackingError::invalid(format!("what to sample is no JSON: {e}")))?;
        let keys: Vec<&str> = spec["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let query = HistoryQuery {
            from: spec["minStep"].as_i64().unwrap_or(i64::MIN),
            // Here the client counts the last step in, on pages of whole rows it does not.
            until: spec["maxStep"]
                .as_i64()
                .map_or(i64::MAX, |last| last.saturating_add(1)),
            system: false,
            // These two every row has.
            keys: keys
                .iter()
                .filter(|key| !["_step", "_timestamp"].contains(*key))
                .map(|key| (*key).to_owned())
                .collect(),
            most: most(spec["samples"].as_u64(), SAMPLES),
            sample: true,
        };
        let found = op.tracking.wandb_history(op.caller, &run.run_id, query).await?;
        let rows = found.iter().map(|row| {
            let mut map = row.to_map();
            map.retain(|key, _| keys.is_empty() || keys.contains(&key.as_str()));
            Value::Object(map)
        });
        answers.push(Value::Array(rows.collect()));
    }
    Ok(json!({ "project": { "run": { "sampledHistory": answers } } }))
}

/// There is no export: the client then reads the rows a page at a time.
async fn parquet_history(op: &Operation<'_>) -> Data {
    let run = op.tracking.wandb_live_run(at(op)).await?;
    let none = run.map(|_| json!({ "parquetHistory": { "parquetUrls": [], "liveData": [] } }));
    Ok(json!({ "project": { "run": none } }))
}

/// Whether a name fits a pattern in which `%` stands for any text and `_` for any character. If a piece does not fit, only the last `%`
/// takes in more, so that the time grows with name times pattern at most.
fn fits(name: &[char], pattern: &[char]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Where the pattern goes on after the last `%`, and how far the name was taken in by it.
    let mut any: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(next) {
            Some('%') => {
                next += 1;
                any = Some((next, at));
            }
            Some(one) if *one == '_' || *one == name[at] => {
                at += 1;
                next += 1;
            }
            _ => match &mut any {
                Some((after, taken)) => {
                    *taken += 1;
                    (at, next) = (*taken, *after);
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|one| *one == '%')
}

async fn files(op: &Operation<'_>) -> Data {
    let Some((run, experiment)) = op.tracking.wandb_live_run(at(op)).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    let mut files = op.tracking.wandb_files(op.caller, &run.run_id).await?;
    let names = op.texts("fileNames");
    if !names.is_empty() {
        files.retain(|file| names.contains(&file.name));
    }
    if let Some(pattern) = op.text("pattern") {
        let pattern: Vec<char> = pattern.chars().collect();
        files.retain(|file| fits(&file.name.chars().collect::<Vec<_>>(), &pattern));
    }
    let (total, from) = (files.len(), offset(op, "fileCursor")?);
    let limit = number(op, "fileLimit").unwrap_or(50).clamp(1, PAGE) as usize;
    let edges: Vec<Value> = files
        .iter()
        .enumerate()
        .skip(from)
        .take(limit)
        .map(|(i, file)| {
            let url = match &file.token {
                Some(token) => format!("{}/wandb/download/{token}", op.origin),
                None => {
                    let query = serde_urlencoded::to_string([("run_id", &run.run_id), ("path", &file.name)]);
                    format!("{}/get-artifact?{}", op.origin, query.unwrap_or_default())
                }
            };
            json!({ "cursor": (i + 1).to_string(), "node": {
                "id": opaque("File", &format!("{}/{}", run.run_id, file.name)),
                "name": file.name,
                "url": url,
                "directUrl": url,
                "sizeBytes": file.size,
                "mimetype": null,
                "updatedAt": null,
                "md5": null,
            }})
        })
        .collect();
    let end = (from + edges.len()).min(total);
    Ok(json!({ "project": {
        "internalId": opaque("ProjectInternalId", &experiment.to_string()),
        "run": { "fileCount": total, "files": { "edges": edges, "pageInfo": page_info(end, total) } },
    }}))
}

/// Level, time and text of a line of the console: the client writes `ERROR 2026-01-31T12:00:00.5 text`, the first word only for what went to
/// standard error.
fn taken_apart(line: &str) -> (&'static str, Option<&str>, &str) {
    let (level, rest) = line
        .strip_prefix("ERROR ")
        .map_or(("", line), |rest| ("error", rest));
    let (stamp, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_time = stamp.len() >= 19
        && stamp.bytes().enumerate().all(|(i, byte)| match i {
            4 | 7 => byte == b'-',
            10 => byte == b'T',
            13 | 16 => byte == b':',
            19 => byte == b'.' || byte == b'Z',
            _ => byte.is_ascii_digit() || (i > 19 && byte == b'Z'),
        });
    if is_time {
        (level, Some(stamp), text)
    } else {
        ("", None, line)
    }
}

async fn console(op: &Operation<'_>) -> Data {
    let Some((run, _)) = op.tracking.wandb_live_run(at(op)).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    let total = run.log_lines.max(0) as usize;
    let (from, limit) = match number(op, "last") {
        Some(last) => (total.saturating_sub(last as usize), last),
        None => (offset(op, "after")?, number(op, "first").unwrap_or(PAGE)),
    };
    let limit = limit.clamp(1, 10_000) as u32;
    let lines = op
        .tracking
        .wandb_console(op.caller, &run.run_id, from as i64, limit)
        .await?;
    let end = lines.last().map_or(from, |(line, _)| *line as usize + 1);
    let edges: Vec<Value> = lines
        .into_iter()
        .map(|(number, line)| {
            let (level, timestamp, text) = taken_apart(&line);
            json!({ "node": { "number": number, "timestamp": timestamp, "level": level, "label": "", "line": text } })
        })
        .collect();
    Ok(json!({ "project": { "run": {
        "logLineCount": total,
        "logLines": { "edges": edges, "pageInfo": page_info(end, total) },
    }}}))
}

async fn delete(op: &Operation<'_>) -> Data {
    let id = op
        .text("id")
        .ok_or_else(|| TrackingError::invalid("the run to delete must be named"))?;
    op.tracking.delete_run(op.caller, id).await?;
    Ok(json!({ "deleteRun": { "clientMutationId": null } }))
}

fn project_node(op: &Operation<'_>, entity: &str, name: &str, created_ms: i64) -> Value {
    let mut node = project(entity, name);
    node["__typename"] = json!("Project");
    node["createdAt"] = json!(time(created_ms));
    node["isBenchmark"] = json!(false);
    node["user"] = super::accounts::user(&op.entity());
    node
}

async fn projects(op: &Operation<'_>) -> Data {
    let entity = op.owned("entity").unwrap_or_else(|| op.entity());
    let found = op.tracking.wandb_projects(op.caller, &entity).await?;
    let (total, from) = (found.len(), offset(op, "cursor")?);
    let limit = number(op, "perPage").unwrap_or(50).clamp(1, PAGE) as usize;
    let edges: Vec<Value> = found
        .iter()
        .skip(from)
        .take(limit)
        .map(|one| json!({ "node": project_node(op, &entity, &one.name, one.created_ms) }))
        .collect();
    let end = (from + edges.len()).min(total);
    Ok(json!({ "models": { "edges": edges, "pageInfo": page_info(end, total) } }))
}

async fn the_project(op: &Operation<'_>) -> Data {
    let entity = op.owned("entity").unwrap_or_else(|| op.entity());
    let found = op.tracking.wandb_projects(op.caller, &entity).await?;
    let wanted = op.text("name").unwrap_or_default();
    let node = found
        .iter()
        .find(|one| one.name == wanted)
        .map(|one| project_node(op, &entity, &one.name, one.created_ms));
    Ok(json!({ "project": node }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_console_is_taken_apart() {
        let line = "ERROR 2026-01-31T12:00:00.123456 went wrong";
        assert_eq!(
            taken_apart(line),
            ("error", Some("2026-01-31T12:00:00.123456"), "went wrong")
        );
        assert_eq!(
            taken_apart("2026-01-31T12:00:00 said"),
            ("", Some("2026-01-31T12:00:00"), "said")
        );
        assert_eq!(taken_apart("ERROR in line 3"), ("", None, "ERROR in line 3"));
        assert_eq!(taken_apart("äöü äöü äöü äöü"), ("", None, "äöü äöü äöü äöü"));
    }

    #[test]
    fn a_pattern_of_names_is_sqls() {
        let fits = |name: &str, pattern: &str| {
            fits(
                &name.chars().collect::<Vec<_>>(),
                &pattern.chars().collect::<Vec<_>>(),
            )
        };
        assert!(fits("media/table/x.table.json", "%.json"));
        assert!(fits("output.log", "output.___"));
        assert!(!fits("output.log", "%.json"));
        assert!(fits("", "%") && !fits("a", ""));
        assert!(fits("a%b_c", "a%c") && fits("abcabd", "%ab_") && !fits("abcabd", "ab_"));
        assert!(!fits("ab", "ab_") && fits("ab", "%%ab%%"));
    }

    #[test]
    fn a_pattern_with_many_gaps_takes_no_time() {
        let name = vec!['a'; 300];
        let pattern: Vec<char> = "%a%a%a%a%a%a%a%b".chars().collect();
        assert!(!fits(&name, &pattern));
        let pattern: Vec<char> = "%a".repeat(300).chars().collect();
        assert!(fits(&name, &pattern));
    }
}
