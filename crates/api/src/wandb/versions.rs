//! Artifacts in lists: types and collections of a project, versions of a collection, who wrote and read one; and how one goes.

use serde_json::{Value, json};
use tidemill_control::tracking::TrackingError;
use tidemill_control::tracking::wandb::name_of;
use tidemill_store::wandb::artifacts::{Collection, Direction};
use tidemill_store::wandb::runs::{WandbName, WandbRun};

use super::artifacts::{artifact, collection, number};
use super::{Data, Operation, opaque, project, text_of};

pub(super) async fn answer(op: &Operation<'_>, name: &str) -> Option<Data> {
    Some(match name {
        "ProjectArtifacts" => versions(op).await,
        "ProjectArtifactCollections" => collections(op).await,
        "ArtifactTypeArtifactCollections" => collections_of_type(op).await,
        "ProjectArtifactCollection" => one_collection(op).await,
        "ProjectArtifactTypes" => types(op).await,
        "ProjectArtifactType" => one_type(op).await,
        "ArtifactCreatedBy" => created_by(op).await,
        "ArtifactUsedBy" => used_by(op).await,
        "DeleteArtifact" => delete(op).await,
        _ => return None,
    })
}

fn at(op: &Operation<'_>) -> WandbName {
    name_of(op.caller, op.text("entity"), op.text("project"), "")
}

/// A page of all items, by how many come before.
fn page(op: &Operation<'_>, items: Vec<Value>) -> Result<Value, TrackingError> {
    let total = items.len();
    let from: usize = match op.text("cursor") {
        None => 0,
        Some(cursor) => cursor
            .parse()
            .map_err(|_| TrackingError::invalid(format!("`{cursor}` is no cursor of this server")))?,
    };
    let asked = op.variables.get("perPage").and_then(Value::as_u64);
    let limit = asked.unwrap_or(50).clamp(1, 1_000) as usize;
    let edges: Vec<Value> = items.into_iter().skip(from).take(limit).collect();
    let end = from + edges.len();
    Ok(json!({
        "totalCount": total,
        "pageInfo": { "__typename": "PageInfo", "endCursor": end.to_string(), "hasNextPage": end < total },
        "edges": edges,
    }))
}

async fn versions(op: &Operation<'_>) -> Data {
    let wanted = op.text("collection").unwrap_or_default();
    let Some(found) = op.tracking.wandb_collection(at(op), wanted).await? else {
        return Ok(json!({ "project": { "artifactType": null } }));
    };
    let mut views = op.tracking.wandb_versions(found.clone()).await?;
    if op.text("order").is_some_and(|order| order.starts_with('+')) {
        views.reverse();
    }
    let edges = views
        .iter()
        .map(|(version, view)| json!({ "version": format!("v{version}"), "node": artifact(view) }))
        .collect();
    let artifacts = page(op, edges)?;
    Ok(json!({ "project": { "artifactType": { "artifactCollection": {
        "__typename": collection(&found)["__typename"],
        "artifacts": artifacts,
    }}}}))
}

fn whole(of: &Collection) -> Value {
    let mut node = collection(of);
    node["description"] = Value::Null;
    node["createdAt"] = json!(super::time(of.created_ms));
    node["updatedAt"] = Value::Null;
    node["type"] = json!({ "name": of.kind });
    node["tags"] = json!({ "edges": [] });
    node
}

async fn listed(op: &Operation<'_>, kind: Option<String>) -> Data {
    let found = op.tracking.wandb_collections(at(op), kind).await?;
    page(
        op,
        found.iter().map(|one| json!({ "node": whole(one) })).collect(),
    )
}

async fn collections(op: &Operation<'_>) -> Data {
    Ok(json!({ "project": { "artifactCollections": listed(op, None).await? } }))
}

async fn collections_of_type(op: &Operation<'_>) -> Data {
    let listed = listed(op, op.owned("type")).await?;
    Ok(json!({ "project": { "artifactType": { "artifactCollections": listed } } }))
}

async fn one_collection(op: &Operation<'_>) -> Data {
    let wanted = op.text("name").unwrap_or_default();
    let found = op.tracking.wandb_collection(at(op), wanted).await?;
    let found = found.filter(|one| op.text("type").is_none_or(|kind| kind == one.kind));
    Ok(json!({ "project": { "artifactType": { "artifactCollection": found.as_ref().map(whole) } } }))
}

fn kind(name: &str, created_ms: i64) -> Value {
    json!({
        "__typename": "ArtifactType",
        "id": opaque("ArtifactType", name),
        "name": name,
        "description": null,
        "createdAt": super::time(created_ms),
    })
}

/// Types with the time of their first collection, by name.
async fn kinds(op: &Operation<'_>) -> Result<Vec<(String, i64)>, TrackingError> {
    let mut found: Vec<(String, i64)> = Vec::new();
    for one in op.tracking.wandb_collections(at(op), None).await? {
        match found.iter_mut().find(|(name, _)| *name == one.kind) {
            Some((_, created_ms)) => *created_ms = one.created_ms.min(*created_ms),
            None => found.push((one.kind, one.created_ms)),
        }
    }
    found.sort();
    Ok(found)
}

async fn types(op: &Operation<'_>) -> Data {
    let edges = kinds(op).await?;
    let edges = edges
        .iter()
        .map(|(name, created_ms)| json!({ "node": kind(name, *created_ms) }))
        .collect();
    Ok(json!({ "project": { "artifactTypes": page(op, edges)? } }))
}

async fn one_type(op: &Operation<'_>) -> Data {
    let wanted = op.text("type").unwrap_or_default();
    let found = kinds(op).await?.into_iter().find(|(name, _)| name == wanted);
    let found = found.map(|(name, created_ms)| kind(&name, created_ms));
    Ok(json!({ "project": { "artifactType": found } }))
}

fn run_node(run: &WandbRun) -> Value {
    json!({
        "__typename": "Run",
        "id": run.run_id,
        "name": run.at.name,
        "project": project(&run.at.entity, &run.at.project),
    })
}

async fn created_by(op: &Operation<'_>) -> Data {
    let number = number(op.text("id").unwrap_or_default())?;
    let runs = op
        .tracking
        .wandb_runs_of(op.caller, number, Direction::Output)
        .await?;
    Ok(json!({ "artifact": { "createdBy": runs.first().map(run_node) } }))
}

async fn used_by(op: &Operation<'_>) -> Data {
    let number = number(op.text("id").unwrap_or_default())?;
    let runs = op
        .tracking
        .wandb_runs_of(op.caller, number, Direction::Input)
        .await?;
    let edges: Vec<Value> = runs.iter().map(|run| json!({ "node": run_node(run) })).collect();
    Ok(json!({ "artifact": { "usedBy": { "edges": edges } } }))
}

async fn delete(op: &Operation<'_>) -> Data {
    let input = op.input();
    let id = text_of(input, "artifactID");
    let with_aliases = input.get("deleteAliases").and_then(Value::as_bool) == Some(true);
    op.tracking
        .wandb_delete_artifact(op.caller, number(id)?, with_aliases)
        .await?;
    Ok(json!({ "result": { "artifact": { "id": id } } }))
}
