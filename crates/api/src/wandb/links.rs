//! Versions of artifacts under their names, in their own collections and in portfolios.

use serde_json::{Value, json};
use tidemill_control::tracking::TrackingError;
use tidemill_control::tracking::wandb::{Membership, NewLink, name_of};

use super::artifacts::{alias_names, artifact, collection, number};
use super::{Data, Operation, key_of, opaque, text_of, time};

pub(super) async fn answer(op: &Operation<'_>, name: &str) -> Option<Data> {
    Some(match name {
        "ArtifactMembershipByName" => by_name(op).await,
        "LinkArtifact" => link(op).await,
        "UnlinkArtifact" => unlink(op).await,
        "FetchLinkedArtifacts" => linked(op).await,
        _ => return None,
    })
}

fn shown(of: &Membership) -> Value {
    let named = collection(&of.collection);
    let aliases: Vec<Value> = of
        .aliases
        .iter()
        .map(|alias| {
            json!({
                "__typename": "ArtifactAlias",
                "id": opaque("ArtifactAlias", &format!("{}/{alias}", of.collection.number)),
                "alias": alias,
                "artifactCollection": named,
            })
        })
        .collect();
    let mut node = artifact(&of.view);
    if of.is_link {
        // What it is called here, not where it comes from.
        node["aliases"] = json!(aliases);
    }
    json!({
        "__typename": "ArtifactCollectionMembership",
        "id": opaque("ArtifactCollectionMembership", &format!("{}/{}", of.collection.number, of.view.artifact.number)),
        "versionIndex": of.version,
        "createdAt": time(of.created_ms),
        "aliases": aliases,
        "artifactCollection": named,
        "artifact": node,
    })
}

async fn by_name(op: &Operation<'_>) -> Data {
    let at = name_of(op.caller, op.text("entity"), op.text("project"), "");
    let found = op
        .tracking
        .wandb_membership(at, op.text("name").unwrap_or_default())
        .await?;
    Ok(json!({ "project": { "artifactCollectionMembership": found.as_ref().map(shown) } }))
}

/// The core of the client sends it flat, its Python part under `input`; what is not sent yet is named by the client's own id.
async fn link(op: &Operation<'_>) -> Data {
    let input = op.input();
    let id = ["artifactID", "artifactId"]
        .into_iter()
        .map(|name| text_of(input, name))
        .find(|id| !id.is_empty());
    let artifact = match id {
        Some(id) => number(id)?,
        None => {
            let client_id = ["clientID", "clientId"]
                .into_iter()
                .map(|name| text_of(input, name))
                .find(|id| !id.is_empty())
                .unwrap_or_default();
            let found = op.tracking.wandb_artifact_of_client(op.caller, client_id).await?;
            let found =
                found.ok_or_else(|| TrackingError::not_found(format!("artifact `{client_id}` not found")))?;
            found.artifact.number
        }
    };
    let new = NewLink {
        at: name_of(
            op.caller,
            Some(text_of(input, "entityName")),
            Some(text_of(input, "projectName")),
            "",
        ),
        portfolio: text_of(input, "artifactPortfolioName").to_owned(),
        artifact,
        aliases: alias_names(input),
    };
    let made = op.tracking.wandb_link(new).await?;
    let linked = json!({ "versionIndex": made.version, "artifactMembership": shown(&made) });
    Ok(json!({ "result": linked, "linkArtifact": linked }))
}

async fn unlink(op: &Operation<'_>) -> Data {
    let input = op.input();
    let portfolio = key_of("ArtifactCollection", text_of(input, "artifactPortfolioID"));
    let portfolio = portfolio
        .and_then(|key| key.parse().ok())
        .ok_or_else(|| TrackingError::not_found("there is no such portfolio"))?;
    let artifact = number(text_of(input, "artifactID"))?;
    op.tracking.wandb_unlink(op.caller, portfolio, artifact).await?;
    Ok(json!({ "result": { "success": true } }))
}

async fn linked(op: &Operation<'_>) -> Data {
    let number = number(op.text("artifactID").unwrap_or_default())?;
    let found = op.tracking.wandb_links(op.caller, number).await?;
    let edges: Vec<Value> = found.iter().map(|one| json!({ "node": shown(one) })).collect();
    Ok(json!({ "artifact": { "artifactMemberships": { "edges": edges } } }))
}
