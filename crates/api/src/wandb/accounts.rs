//! Who the client is, and what the server can do: questions that are answered without looking anything up.

use serde_json::{Value, json};

use super::{Operation, opaque};

/// A user as W&B shows one.
pub(super) fn user(entity: &str) -> Value {
    json!({
        "id": opaque("User", entity),
        "entity": entity,
        "username": entity,
        "name": entity,
        "email": "",
        "admin": false,
        "flags": "{}",
        "deletedAt": null,
        "apiKeys": { "edges": [] },
        "teams": { "edges": [] },
    })
}

pub(super) fn answer(op: &Operation<'_>, name: &str) -> Option<Value> {
    let entity = op.entity();
    Some(match name {
        "Viewer" | "GetViewer" | "GetDefaultEntity" => json!({ "viewer": user(&entity) }),
        // No feature by name: the client then keeps to its oldest ways, which are the ones served here.
        "ServerFeaturesQuery" => json!({ "serverInfo": { "features": [] } }),
        "OrgFeatureFlags" => json!({ "organization": null }),
        "OrganizationCoreWeaveOrganizationID" => json!({ "entity": { "organization": null, "user": null } }),
        // There are no organizations: each entity is its own, and keeps its own registries.
        "FetchOrgEntityFromEntity" | "FetchOrgInfoFromEntity" => {
            let name = op.text("entity").unwrap_or(&entity);
            let own = json!({ "name": name, "orgEntity": { "name": name } });
            json!({ "entity": { "organization": own, "user": null } })
        }
        "XXHashDigestsEnabled" => json!({ "entity": { "xxhashDigestsEnabled": false } }),
        "IsProjectReadOnly" => json!({ "project": { "readOnly": false } }),
        _ => return None,
    })
}
