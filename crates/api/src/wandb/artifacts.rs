//! Operations on artifacts.

use serde_json::{Map, Value, json};
use tidemill_control::tracking::TrackingError;
use tidemill_control::tracking::wandb::{ArtifactView, NewArtifact, NewFile, name_of};
use tidemill_store::wandb::artifacts::{Collection, Direction};

use super::{Data, Operation, key_of, opaque, project, text_of, time};

/// How many files a page of URLs has at most.
const PAGE: u32 = 5_000;

pub(super) async fn answer(op: &Operation<'_>, name: &str) -> Option<Data> {
    Some(match name {
        "CreateArtifact" => create(op).await,
        "CreateArtifactManifest" => create_manifest(op).await,
        "UpdateArtifactManifest" => update_manifest(op).await,
        "CreateArtifactFiles" => create_files(op).await,
        "CommitArtifact" => commit(op).await,
        "UseArtifact" => use_artifact(op).await,
        "ClientIDMapping" => client_id(op).await,
        "ArtifactType" => artifact_type(op).await,
        "FetchArtifactDigestAlgorithm" => digest_algorithm(op).await,
        "ArtifactByID" => by_id(op).await,
        "ArtifactManifest" | "FetchArtifactManifest" => manifest(op).await,
        "GetArtifactMembershipFileUrls" | "ArtifactMembershipFiles" => membership_files(op).await,
        "ArtifactFileURLsByManifestEntries" => files_by_entries(op).await,
        "UpdateArtifact" => update(op).await,
        "AddAliases" | "DeleteAliases" => aliases(op, name == "AddAliases").await,
        "RunInputArtifacts" => of_run(op, Direction::Input).await,
        "RunOutputArtifacts" => of_run(op, Direction::Output).await,
        _ => return None,
    })
}

fn artifact_id(number: i64) -> String {
    opaque("Artifact", &number.to_string())
}

/// The number in an id of an artifact or of its manifest.
pub(super) fn number(id: &str) -> Result<i64, TrackingError> {
    let key = key_of("Artifact", id).or_else(|| key_of("ArtifactManifest", id));
    let number = key.and_then(|key| key.parse().ok());
    number.ok_or_else(|| TrackingError::not_found(format!("artifact `{id}` not found")))
}

pub(super) fn collection(of: &Collection) -> Value {
    let kind = if of.is_portfolio {
        "ArtifactPortfolio"
    } else {
        "ArtifactSequence"
    };
    json!({
        "__typename": kind,
        "id": opaque("ArtifactCollection", &of.number.to_string()),
        "name": of.name,
        "project": project(&of.entity, &of.project),
    })
}

fn alias_list(view: &ArtifactView) -> Vec<Value> {
    view.aliases
        .iter()
        .map(|alias| {
            json!({
                "__typename": "ArtifactAlias",
                "id": opaque("ArtifactAlias", &format!("{}/{alias}", view.collection.number)),
                "alias": alias,
                "artifactCollection": collection(&view.collection),
            })
        })
        .collect()
}

pub(super) fn artifact(view: &ArtifactView) -> Value {
    let it = &view.artifact;
    let tags: Vec<Value> = view
        .tags
        .iter()
        .map(|tag| json!({ "__typename": "Tag", "id": opaque("Tag", tag), "name": tag }))
        .collect();
    json!({
        "__typename": "Artifact",
        "id": artifact_id(it.number),
        "artifactSequence": collection(&view.collection),
        "versionIndex": it.version,
        "artifactType": { "name": view.collection.kind },
        "description": it.description,
        "metadata": it.metadata.to_string(),
        "ttlDurationSeconds": view.ttl_s.unwrap_or(-1),
        "ttlIsInherited": view.ttl_s.is_none(),
        "tags": tags,
        "historyStep": null,
        "state": it.state,
        "size": it.size,
        "digest": it.digest,
        "digestAlgorithm": "MANIFEST_MD5",
        "commitHash": it.digest,
        "fileCount": it.file_count,
        "createdAt": time(it.created_ms),
        "updatedAt": time(it.updated_ms),
        "aliases": alias_list(view),
    })
}

/// What a client says of the end of a version, in seconds.
fn said_ttl(input: &Map<String, Value>) -> Option<i64> {
    input.get("ttlDurationSeconds").and_then(Value::as_i64)
}

/// After how many seconds a version goes: -1 stands for the project's, which is for ever, and -2 for ever.
fn lasting(seconds: i64) -> Option<i64> {
    (seconds > 0).then_some(seconds)
}

async fn create(op: &Operation<'_>) -> Data {
    let input = op.input();
    let at = name_of(
        op.caller,
        Some(text_of(input, "entityName")),
        Some(text_of(input, "projectName")),
        text_of(input, "runName"),
    );
    let names = input
        .get("artifactCollectionNames")
        .and_then(Value::as_array)
        .and_then(|names| names.first());
    let name = names
        .and_then(Value::as_str)
        .or_else(|| input.get("artifactCollectionName").and_then(Value::as_str));
    let Some(name) = name else {
        return Err(TrackingError::invalid(
            "an artifact needs the name of its collection",
        ));
    };
    let mut called = Vec::new();
    for alias in input
        .get("aliases")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        called.extend(alias.get("alias").and_then(Value::as_str).map(str::to_owned));
    }
    let new = NewArtifact {
        at,
        collection: name.to_owned(),
        kind: text_of(input, "artifactTypeName").to_owned(),
        digest: text_of(input, "digest").to_owned(),
        client_id: text_of(input, "clientID").to_owned(),
        description: text_of(input, "description").to_owned(),
        metadata: serde_json::from_str(text_of(input, "metadata")).unwrap_or_else(|_| json!({})),
        aliases: called,
        ttl_s: said_ttl(input).map(lasting),
    };
    let view = op.tracking.wandb_create_artifact(new).await?;
    let newest = op.tracking.wandb_newest(view.collection.number).await?;
    let mut made = artifact(&view);
    made["artifactSequence"]["latestArtifact"] =
        newest.map_or(Value::Null, |newest| json!({ "id": artifact_id(newest) }));
    Ok(json!({ "createArtifact": { "artifact": made } }))
}

async fn manifest_of(op: &Operation<'_>, number: i64) -> Data {
    let token = op.tracking.wandb_manifest_upload(op.caller, number).await?;
    let id = opaque("ArtifactManifest", &number.to_string());
    let url = token.map(|token| format!("{}/wandb/upload/{token}", op.origin));
    Ok(
        json!({ "artifactManifest": { "id": id, "file": { "id": id, "uploadUrl": url, "uploadHeaders": [] } } }),
    )
}

async fn create_manifest(op: &Operation<'_>) -> Data {
    let id = number(op.text("artifactID").unwrap_or_default())?;
    match op.text("manifestType") {
        None | Some("FULL") => {}
        Some("INCREMENTAL") => {
            let base = op.text("baseArtifactID").map(number).transpose()?;
            op.tracking.wandb_add_to(op.caller, id, base).await?;
        }
        Some(_) => {
            return Err(TrackingError::NotImplemented(
                "an artifact is written by one run here: not from several at once".to_owned(),
            ));
        }
    }
    let manifest = manifest_of(op, id).await?;
    Ok(json!({ "createArtifactManifest": manifest }))
}

async fn update_manifest(op: &Operation<'_>) -> Data {
    let manifest = manifest_of(op, number(op.text("artifactManifestID").unwrap_or_default())?).await?;
    Ok(json!({ "updateArtifactManifest": manifest }))
}

async fn create_files(op: &Operation<'_>) -> Data {
    let listed = op
        .input()
        .get("artifactFiles")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut files = Vec::with_capacity(listed.len());
    for file in listed.iter().filter_map(Value::as_object) {
        let (artifact, md5) = (
            number(text_of(file, "artifactID"))?,
            text_of(file, "md5").to_owned(),
        );
        files.push(NewFile { artifact, md5 });
    }
    let numbers: Vec<i64> = files.iter().map(|file| file.artifact).collect();
    let tokens = op.tracking.wandb_artifact_uploads(op.caller, files).await?;
    let mut edges = Vec::with_capacity(tokens.len());
    for ((file, number), token) in listed.iter().zip(numbers).zip(tokens) {
        let name = file.get("name").and_then(Value::as_str).unwrap_or_default();
        edges.push(json!({ "node": {
            "id": opaque("File", name),
            "name": name,
            "displayName": name,
            "storagePath": null,
            "uploadUrl": token.map(|token| format!("{}/wandb/upload/{token}", op.origin)),
            "uploadHeaders": [],
            "uploadMultipartUrls": null,
            "artifact": { "id": artifact_id(number) },
        }}));
    }
    Ok(json!({ "createArtifactFiles": { "files": { "edges": edges } } }))
}

async fn commit(op: &Operation<'_>) -> Data {
    let number = number(op.text("artifactID").unwrap_or_default())?;
    let view = op.tracking.wandb_commit_artifact(op.caller, number).await?;
    Ok(json!({ "commitArtifact": { "artifact": artifact(&view) } }))
}

async fn use_artifact(op: &Operation<'_>) -> Data {
    let input = op.input();
    let at = name_of(
        op.caller,
        Some(text_of(input, "entityName")),
        Some(text_of(input, "projectName")),
        text_of(input, "runName"),
    );
    let view = op
        .tracking
        .wandb_use_artifact(op.caller, number(text_of(input, "artifactID"))?, at)
        .await?;
    Ok(json!({ "useArtifact": { "artifact": artifact(&view) } }))
}

async fn client_id(op: &Operation<'_>) -> Data {
    let found = op
        .tracking
        .wandb_artifact_of_client(op.caller, op.text("clientID").unwrap_or_default())
        .await?;
    let mapping = found.map(|view| json!({ "serverID": artifact_id(view.artifact.number) }));
    Ok(json!({ "clientIDMapping": mapping }))
}

async fn artifact_type(op: &Operation<'_>) -> Data {
    let at = name_of(op.caller, op.text("entity"), op.text("project"), "");
    let found = op
        .tracking
        .wandb_find_artifact(at, op.text("name").unwrap_or_default())
        .await?;
    let found = found.map(|view| json!({ "artifactType": { "name": view.collection.kind } }));
    Ok(json!({ "project": { "artifact": found } }))
}

async fn digest_algorithm(op: &Operation<'_>) -> Data {
    let at = name_of(op.caller, op.text("entityName"), op.text("projectName"), "");
    let found = op
        .tracking
        .wandb_collection(at, op.text("artifactCollectionName").unwrap_or_default())
        .await?;
    let found = found.map(|_| json!({ "__typename": "ArtifactSequence", "digestAlgorithm": "MANIFEST_MD5" }));
    Ok(json!({ "project": { "artifactType": { "artifactCollection": found } } }))
}

async fn by_id(op: &Operation<'_>) -> Data {
    let view = op
        .tracking
        .wandb_artifact(op.caller, number(op.text("id").unwrap_or_default())?)
        .await?;
    Ok(json!({ "artifact": artifact(&view) }))
}

async fn manifest(op: &Operation<'_>) -> Data {
    let id = op
        .text("id")
        .or_else(|| op.text("artifact_id"))
        .unwrap_or_default();
    let token = op
        .tracking
        .wandb_manifest_download(op.caller, number(id)?)
        .await?;
    let file = token
        .map(|token| json!({ "file": { "directUrl": format!("{}/wandb/download/{token}", op.origin) } }));
    Ok(json!({ "artifact": { "currentManifest": file } }))
}

async fn files_page(op: &Operation<'_>, number: i64) -> Data {
    let limit = op
        .variables
        .get("perPage")
        .and_then(Value::as_u64)
        .map_or(PAGE, |n| n.clamp(1, PAGE.into()) as u32);
    let after = op.owned("cursor").unwrap_or_default();
    let files = op
        .tracking
        .wandb_artifact_downloads(op.caller, number, after, limit)
        .await?;
    let more = files.len() == limit as usize;
    let end = files.last().map(|(file, _)| file.path.clone());
    let edges: Vec<Value> = files
        .into_iter()
        .map(|(file, token)| {
            let url = match (&file.reference, token) {
                (Some(reference), _) => reference.clone(),
                (None, Some(token)) => format!("{}/wandb/download/{token}", op.origin),
                (None, None) => String::new(),
            };
            json!({ "node": {
                "__typename": "File",
                "id": opaque("File", &format!("{number}/{}", file.path)),
                "name": file.path,
                "displayName": file.path,
                "url": url,
                "directUrl": url,
                "sizeBytes": file.size,
                "storagePath": null,
                "mimetype": null,
                "updatedAt": null,
                "digest": file.md5,
                "md5": file.md5,
            }})
        })
        .collect();
    Ok(json!({
        "totalCount": edges.len(),
        "pageInfo": { "__typename": "PageInfo", "endCursor": end, "hasNextPage": more },
        "edges": edges,
    }))
}

async fn membership_files(op: &Operation<'_>) -> Data {
    let at = name_of(op.caller, op.text("entity"), op.text("project"), "");
    let full = format!(
        "{}:{}",
        op.text("collection").unwrap_or_default(),
        op.text("alias").unwrap_or_default()
    );
    let Some(view) = op.tracking.wandb_find_artifact(at, &full).await? else {
        return Ok(json!({ "project": { "artifactCollection": null } }));
    };
    let files = files_page(op, view.artifact.number).await?;
    Ok(json!({ "project": { "artifactCollection": {
        "__typename": "ArtifactSequence",
        "artifactMembership": { "files": files },
    }}}))
}

async fn files_by_entries(op: &Operation<'_>) -> Data {
    let number = number(op.text("id").unwrap_or_default())?;
    let mut wanted = Vec::new();
    for entry in op
        .variables
        .get("entries")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        wanted.extend(entry.get("name").and_then(Value::as_str).map(str::to_owned));
    }
    let mut page = files_page(op, number).await?;
    if let Some(edges) = page["edges"].as_array_mut().filter(|_| !wanted.is_empty()) {
        edges.retain(|edge| {
            edge["node"]["name"]
                .as_str()
                .is_some_and(|name| wanted.iter().any(|w| w == name))
        });
    }
    Ok(json!({ "artifact": { "filesByManifestEntries": page } }))
}

/// What changes of a version; the core of the client sends it flat, its Python part under `input`.
async fn update(op: &Operation<'_>) -> Data {
    let input = op.input();
    let read = |name: &str| input.get(name).and_then(Value::as_str).map(str::to_owned);
    let metadata = read("metadata").and_then(|text| serde_json::from_str(&text).ok());
    let number = number(text_of(input, "artifactID"))?;
    let aliases = input
        .get("aliases")
        .filter(|aliases| aliases.is_array())
        .map(|_| (alias_names(input), true));
    let mut view = op
        .tracking
        .wandb_update_artifact(op.caller, number, read("description"), metadata, aliases)
        .await?;
    let ttl = said_ttl(input).map(lasting);
    let tags = (tag_names(input, "tagsToAdd"), tag_names(input, "tagsToDelete"));
    if ttl.is_some() || !tags.0.is_empty() || !tags.1.is_empty() {
        view = op
            .tracking
            .wandb_mark_artifact(op.caller, number, tags, ttl)
            .await?;
    }
    let changed = json!({ "artifact": artifact(&view) });
    Ok(json!({ "result": changed, "updateArtifact": changed }))
}

fn tag_names(input: &Map<String, Value>, field: &str) -> Vec<String> {
    let listed = input.get(field).and_then(Value::as_array).into_iter().flatten();
    listed
        .filter_map(|tag| tag.get("tagName").and_then(Value::as_str).map(str::to_owned))
        .collect()
}

pub(super) fn alias_names(input: &Map<String, Value>) -> Vec<String> {
    let listed = input
        .get("aliases")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    listed
        .filter_map(|alias| alias.get("alias").and_then(Value::as_str).map(str::to_owned))
        .collect()
}

async fn aliases(op: &Operation<'_>, add: bool) -> Data {
    let input = op.input();
    let number = number(text_of(input, "artifactID"))?;
    // Each alias says in which collection: one that holds links, or the artifact's own.
    let first = input
        .get("aliases")
        .and_then(|aliases| aliases.get(0))
        .and_then(Value::as_object);
    if let Some(first) = first {
        let named = text_of(first, "artifactCollectionName");
        let at = name_of(
            op.caller,
            Some(text_of(first, "entityName")),
            Some(text_of(first, "projectName")),
            "",
        );
        let aliases = alias_names(input);
        if op
            .tracking
            .wandb_alias_link(at, named, number, aliases, add)
            .await?
        {
            return Ok(json!({ "result": { "success": true } }));
        }
    }
    op.tracking
        .wandb_update_artifact(op.caller, number, None, None, Some((alias_names(input), add)))
        .await?;
    Ok(json!({ "result": { "success": true } }))
}

async fn of_run(op: &Operation<'_>, direction: Direction) -> Data {
    let at = name_of(
        op.caller,
        op.text("entity"),
        op.text("project"),
        op.text("run").unwrap_or_default(),
    );
    let Some(run) = op.tracking.wandb_find_run(at).await? else {
        return Ok(json!({ "project": { "run": null } }));
    };
    let views = op.tracking.wandb_run_artifacts(&run.run_id, direction).await?;
    let edges: Vec<Value> = views
        .iter()
        .map(|view| json!({ "node": artifact(view) }))
        .collect();
    Ok(json!({ "project": { "run": { "artifacts": {
        "totalCount": edges.len(),
        "pageInfo": { "__typename": "PageInfo", "endCursor": null, "hasNextPage": false },
        "edges": edges,
    }}}}))
}
