//! Users, tokens, roles and workspaces through the router.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::fake::{ADMIN_PASSWORD, App, Reply};

const PASSWORD: &str = "a password of ours";

/// `name:password` in Base64, by hand: the tests need no more of it.
pub fn base64(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut group = [0u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    out
}

pub struct As<'a> {
    pub app: &'a App,
    pub authorization: String,
}

pub fn user<'a>(app: &'a App, name: &str) -> As<'a> {
    let password = if name == "admin" { ADMIN_PASSWORD } else { PASSWORD };
    As {
        app,
        authorization: format!("Basic {}", base64(&format!("{name}:{password}"))),
    }
}

impl As<'_> {
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        self.send_in(method, path, body, "").await
    }

    pub async fn send_in(&self, method: &str, path: &str, body: Option<Value>, workspace: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("authorization", &self.authorization);
        if !workspace.is_empty() {
            request = request.header("x-mlflow-workspace", workspace);
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.app.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, Some(body)).await
    }
}

pub async fn house(default_permission: &str, users: &[&str]) -> App {
    let app = App::with_users(default_permission).await;
    add_users(&app, users).await;
    app
}

pub async fn add_users(app: &App, users: &[&str]) {
    for name in users {
        let body = json!({ "username": name, "password": PASSWORD });
        let reply = user(app, "admin")
            .post("/api/2.0/mlflow/users/create", body)
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
}

#[tokio::test]
async fn who_says_nothing_hears_401_everywhere_but_where_probes_ask() {
    let app = house("READ", &["ada"]).await;
    let closed = [
        "/",
        "/api/v1/status",
        "/metrics",
        "/v2",
        "/api/3.0/mlflow/workspaces",
        "/api/v1/nothing",
        "/page.js",
        "/ajax-api/2.0/mlflow/users/list",
        "/signup",
        "/api/v1/events/stream",
    ];
    for path in closed {
        let reply = app.get(path).await;
        assert_eq!(reply.status, 401, "{path}");
        assert_eq!(
            reply.header("www-authenticate"),
            "Basic realm=\"mlflow\"",
            "{path}"
        );
    }
    for path in [
        "/health",
        "/version",
        "/ping",
        "/v2/health/ready",
        "/docs/errors/unauthenticated",
    ] {
        assert_eq!(app.get(path).await.status, 200, "{path}");
    }
    let mlflow = app.get("/api/2.0/mlflow/users/list").await;
    assert!(
        mlflow
            .text
            .starts_with("You are not authenticated. Please see https://www.mlflow.org/")
    );
    let own = app.get("/api/v1/status").await.json();
    assert_eq!(own["error"]["code"], "unauthenticated");
    let wrong = As {
        app: &app,
        authorization: format!("Basic {}", base64("ada:another password")),
    };
    assert_eq!(wrong.get("/api/v1/status").await.status, 401);
    assert_eq!(user(&app, "ada").get("/api/v1/status").await.status, 200);
}

#[tokio::test]
async fn what_changes_the_loop_needs_a_role_and_users_are_for_administrators() {
    let app = house("READ", &["ada"]).await;
    let (ada, admin) = (user(&app, "ada"), user(&app, "admin"));
    let start = || json!({ "reason": "r" });
    let denied = ada.post("/api/v1/runs", start()).await;
    assert_eq!(denied.status, 403);
    assert_eq!(denied.json()["error"]["code"], "permission_denied");
    let role = json!({ "username": "ada", "role": "editor" });
    let path = "/api/3.0/mlflow/users/update-role";
    let own = ada.send("PATCH", path, Some(role.clone())).await;
    assert_eq!(
        (own.status.as_u16(), own.text.as_str()),
        (403, "Permission denied")
    );
    assert_eq!(admin.send("PATCH", path, Some(role)).await.status, 200);
    assert_eq!(ada.post("/api/v1/runs", start()).await.status, 201);
    assert_eq!(ada.get("/api/2.0/mlflow/users/list").await.status, 403);
    assert_eq!(
        ada.post("/api/v1/clock/advance", json!({"to": "2013-06-01T00:00:00Z"}))
            .await
            .status,
        403
    );
    let names = admin.get("/ajax-api/2.0/mlflow/users/list").await.json();
    assert_eq!(names["users"][1]["username"], "ada");
    assert!(!names.to_string().contains("argon2"));
}

#[tokio::test]
async fn a_user_sees_and_changes_themselves_only() {
    let app = house("READ", &["ada", "bob"]).await;
    let (ada, admin) = (user(&app, "ada"), user(&app, "admin"));
    let own = ada.get("/api/2.0/mlflow/users/get?username=ada").await.json();
    assert_eq!(own["user"]["is_admin"], false);
    assert_eq!(own["user"]["experiment_permissions"], json!([]));
    assert_eq!(
        ada.get("/api/2.0/mlflow/users/get?username=bob").await.status,
        403
    );
    assert_eq!(
        ada.get("/api/2.0/mlflow/users/current").await.json()["user"]["username"],
        "ada"
    );
    let change = |name: &str| json!({ "username": name, "password": "some other password" });
    let path = "/api/2.0/mlflow/users/update-password";
    assert_eq!(ada.send("PATCH", path, Some(change("bob"))).await.status, 403);
    assert_eq!(ada.send("PATCH", path, Some(change("ada"))).await.status, 200);
    assert_eq!(
        ada.get("/api/v1/status").await.status,
        401,
        "the old password is gone"
    );
    let missing = admin.get("/api/2.0/mlflow/users/get?username=nobody").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["message"], "User with username=nobody not found");
    let delete = "/api/2.0/mlflow/users/delete";
    assert_eq!(
        admin
            .send("DELETE", delete, Some(json!({"username": "bob"})))
            .await
            .status,
        200
    );
    assert_eq!(
        admin
            .send("DELETE", delete, Some(json!({"username": "admin"})))
            .await
            .status,
        400
    );
    let short = json!({ "username": "c", "password": "short" });
    assert_eq!(
        admin.post("/api/2.0/mlflow/users/create", short).await.status,
        400
    );
}

#[tokio::test]
async fn a_token_stands_for_its_user_until_it_is_revoked() {
    let app = house("READ", &["ada"]).await;
    let ada = user(&app, "ada");
    let made = ada
        .post("/api/v1/tokens", json!({ "name": "ci", "expires_in_days": 30 }))
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let token = made.json()["token"].as_str().unwrap().to_owned();
    let by_token = As {
        app: &app,
        authorization: format!("Bearer {token}"),
    };
    assert_eq!(
        by_token.get("/api/2.0/mlflow/users/current").await.json()["user"]["username"],
        "ada"
    );
    let listed = ada.get("/api/v1/tokens").await;
    assert_eq!(listed.json()["tokens"][0]["name"], "ci");
    assert!(!listed.text.contains(&token));
    let id = &made.json()["id"];
    assert_eq!(
        user(&app, "admin")
            .send("DELETE", &format!("/api/v1/tokens/{id}"), None)
            .await
            .status,
        404
    );
    assert_eq!(
        ada.send("DELETE", &format!("/api/v1/tokens/{id}"), None)
            .await
            .status,
        204
    );
    assert_eq!(by_token.get("/api/v1/status").await.status, 401);
}

#[tokio::test]
async fn grants_are_made_by_those_who_manage_and_answered_in_mlflows_words() {
    let app = house("READ", &["ada", "bob"]).await;
    let (ada, admin) = (user(&app, "ada"), user(&app, "admin"));
    let base = "/api/2.0/mlflow/experiments/permissions";
    let body =
        |permission: &str| json!({ "experiment_id": "77", "username": "bob", "permission": permission });
    assert_eq!(
        ada.post(&format!("{base}/create"), body("EDIT")).await.status,
        403
    );
    let made = admin.post(&format!("{base}/create"), body("EDIT")).await.json();
    assert_eq!(made["experiment_permission"]["permission"], "EDIT");
    let again = admin.post(&format!("{base}/create"), body("EDIT")).await.json();
    assert_eq!(again["error_code"], "RESOURCE_ALREADY_EXISTS");
    let bad = admin
        .send("PATCH", &format!("{base}/update"), Some(body("ALL")))
        .await;
    assert!(
        bad.json()["message"]
            .as_str()
            .unwrap()
            .starts_with("Invalid permission 'ALL'")
    );
    assert_eq!(
        admin
            .send("PATCH", &format!("{base}/update"), Some(body("MANAGE")))
            .await
            .status,
        200
    );
    let bob = user(&app, "bob");
    let seen = bob
        .get(&format!("{base}/get?experiment_id=77&username=bob"))
        .await;
    assert_eq!(seen.json()["experiment_permission"]["permission"], "MANAGE");
    let gone = json!({ "experiment_id": "77", "username": "bob" });
    assert_eq!(
        bob.send("DELETE", &format!("{base}/delete"), Some(gone))
            .await
            .status,
        200
    );
    let missing = admin
        .get(&format!("{base}/get?experiment_id=77&username=bob"))
        .await;
    assert_eq!(
        missing.json()["message"],
        "Experiment permission with experiment_id=77 and username=bob not found"
    );
}

#[tokio::test]
async fn roles_of_mlflow_3_17_are_made_given_and_looked_at() {
    let app = house("READ", &["ada", "bob"]).await;
    let (ada, admin) = (user(&app, "ada"), user(&app, "admin"));
    let made = admin
        .post(
            "/api/3.0/mlflow/roles/create",
            json!({ "workspace": "default", "name": "leads", "description": "d" }),
        )
        .await
        .json();
    let role = made["role"]["id"].clone();
    let add = |kind: &str, pattern: &str, permission: &str| {
        json!({
            "role_id": role, "resource_type": kind, "resource_pattern": pattern, "permission": permission,
        })
    };
    let path = "/api/3.0/mlflow/roles/permissions/add";
    let added = admin.post(path, add("workspace", "*", "MANAGE")).await.json();
    assert_eq!(added["role_permission"]["permission"], "MANAGE");
    assert_eq!(admin.post(path, add("trace", "1", "READ")).await.status, 400);
    assert_eq!(
        ada.get(&format!("/api/3.0/mlflow/roles/get?role_id={role}"))
            .await
            .status,
        403
    );
    let assign = |name: &str| json!({ "username": name, "role_id": role });
    let path = "/api/3.0/mlflow/roles/assign";
    assert_eq!(ada.post(path, assign("ada")).await.status, 403);
    assert_eq!(admin.post(path, assign("ada")).await.status, 200);
    assert_eq!(
        ada.post(path, assign("bob")).await.status,
        200,
        "who governs a workspace gives its roles"
    );
    let roles = ada
        .get("/api/3.0/mlflow/users/roles/list?username=bob")
        .await
        .json();
    assert_eq!(roles["roles"][0]["permissions"][0]["resource_type"], "workspace");
    let listed = ada
        .get("/api/3.0/mlflow/roles/list?workspace=default")
        .await
        .json();
    assert_eq!(listed["roles"].as_array().unwrap().len(), 1);
    assert_eq!(
        ada.get("/api/3.0/mlflow/roles/list").await.status,
        403,
        "all workspaces"
    );
    let all_told =
        "/api/3.0/mlflow/users/permissions/get?username=bob&resource_type=registered_model&resource_id=m";
    assert_eq!(
        admin.get(all_told).await.json(),
        json!({ "allowed": true, "permission": "MANAGE" })
    );
    let grant = json!({
        "username": "bob", "resource_type": "registered_model", "resource_id": "m", "permission": "DENY",
    });
    assert_eq!(
        admin
            .post("/api/3.0/mlflow/users/permissions/grant", grant.clone())
            .await
            .status,
        200
    );
    assert_eq!(admin.get(all_told).await.json()["permission"], "DENY");
    assert_eq!(
        admin
            .post("/api/3.0/mlflow/users/permissions/revoke", grant)
            .await
            .status,
        200
    );
    assert_eq!(admin.get(all_told).await.json()["permission"], "MANAGE");
}

#[tokio::test]
async fn a_workspace_is_seen_by_its_members_and_an_unknown_one_is_not_found() {
    let app = house("READ", &["ada", "bob"]).await;
    let (ada, admin) = (user(&app, "ada"), user(&app, "admin"));
    let path = "/api/3.0/mlflow/workspaces";
    assert_eq!(ada.post(path, json!({ "name": "team-a" })).await.status, 403);
    let made = admin
        .post(path, json!({ "name": "team-a", "description": "A" }))
        .await;
    assert_eq!(made.status, 201);
    assert_eq!(
        made.json(),
        json!({ "workspace": { "name": "team-a", "description": "A" } })
    );
    let names = |reply: Reply| -> Vec<String> {
        let list = reply.json()["workspaces"].as_array().unwrap().clone();
        list.iter()
            .map(|w| w["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(ada.get(path).await), ["default"]);
    let member = json!({ "username": "ada", "permission": "MANAGE" });
    let permissions = format!("{path}/team-a/permissions");
    assert_eq!(ada.post(&permissions, member.clone()).await.status, 403);
    assert_eq!(admin.post(&permissions, member).await.status, 200);
    assert_eq!(names(ada.get(path).await), ["default", "team-a"]);
    let other = json!({ "username": "bob", "permission": "READ" });
    assert_eq!(
        ada.post(&permissions, other).await.status,
        200,
        "who governs it lets others in"
    );
    assert_eq!(
        ada.get(&permissions).await.json()["permissions"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let unknown = admin.send_in("GET", path, None, "no-such").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["message"], "Workspace 'no-such' not found");
    let deleted = admin
        .send("DELETE", &format!("{path}/team-a?mode=RESTRICT"), None)
        .await;
    assert_eq!(deleted.status, 204);
    assert_eq!(names(ada.get(path).await), ["default"]);
}

#[tokio::test]
async fn an_administrator_adds_a_user_by_form_and_a_foreign_form_does_nothing() {
    let app = house("READ", &[]).await;
    let admin = user(&app, "admin");
    let page = admin.get("/signup").await;
    let token = page
        .text
        .split("value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let cookie = page.header("set-cookie").split(';').next().unwrap().to_owned();
    let submit = |body: String, cookie: String| {
        let request = Request::post("/api/2.0/mlflow/users/create-ui")
            .header("authorization", &admin.authorization)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("cookie", cookie);
        app.send(request.body(Body::from(body)).unwrap())
    };
    let form = |token: &str| format!("username=%3Cada%3E&password=a+password+of+ours&csrf_token={token}");
    let without = submit("username=ada&password=x".into(), cookie.clone()).await;
    assert!(without.text.contains("The CSRF token is missing"));
    assert_eq!(submit(form("guess"), cookie.clone()).await.status, 400);
    assert_eq!(submit(form(token), String::new()).await.status, 400);
    let done = submit(form(token), cookie).await;
    assert!(
        done.text.contains("Successfully signed up user: &lt;ada&gt;"),
        "{}",
        done.text
    );
}

#[tokio::test]
async fn without_users_their_routes_are_not_there_and_all_else_is_open() {
    let app = App::new();
    for path in [
        "/api/2.0/mlflow/users/list",
        "/signup",
        "/api/v1/tokens",
        "/api/3.0/mlflow/roles/list",
    ] {
        assert_eq!(app.get(path).await.status, 404, "{path}");
    }
    assert_eq!(app.get("/api/3.0/mlflow/workspaces").await.status, 200);
    assert_eq!(app.get("/api/v1/status").await.status, 200);
}
