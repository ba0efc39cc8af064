//! `tidemill deploy`, `deployments` and `undeploy`.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use tidemill_store::Database;

use super::bundle;
use crate::cli::Target;
use crate::client::{Client, encoded};
use crate::deploy_args::{BundleArgs, DeploymentArgs};
use crate::exit::Code;
use crate::output;
use crate::session::Session;

/// What `deploy` was asked.
pub struct Args<'a> {
    pub target: &'a Target,
    pub what: &'a str,
    pub name: Option<&'a str>,
    pub bundle: &'a BundleArgs,
    pub serving: &'a DeploymentArgs,
}

pub async fn run(args: Args<'_>, json: bool) -> Result<Code> {
    // Before a server is looked for: most mistakes are in what is packed.
    let ready = bundle::ready(args.what, args.name, args.bundle)?;
    let serving = bundle::serving(args.serving)?;
    let session = Session::open_tracking(args.target, &Database::default()).await?;
    let deployed = send(&session.client, &ready, args.name, &serving).await;
    let base = session.client.base().to_owned();
    session.close().await?;
    let deployed = deployed?;
    if json {
        println!("{deployed}");
    } else {
        let name = deployed["name"].as_str().unwrap_or_default();
        println!("`{name}` version {} answers at {base}", deployed["version"]);
        println!("  {base}/v2/models/{name}/infer  ·  {base}/invocations/{name}");
    }
    Ok(Code::Success)
}

/// Sends what is ready; returns the deployment once it answers.
pub async fn send(
    client: &Client,
    ready: &bundle::Ready,
    name: Option<&str>,
    serving: &Map<String, Value>,
) -> Result<Value> {
    match ready {
        bundle::Ready::Registered { source, python } => {
            let mut body = json!({ "source": source });
            for (key, value) in python {
                body[key] = value.clone();
            }
            if let Some(name) = name {
                body["name"] = name.into();
            }
            if !serving.is_empty() {
                body["serving"] = Value::Object(serving.clone());
            }
            client.post("/api/v1/deployments", &body).await
        }
        bundle::Ready::Graph { name: own, graph } => {
            let mut body = json!({ "graph": graph, "name": name.unwrap_or(own) });
            if !serving.is_empty() {
                body["serving"] = Value::Object(serving.clone());
            }
            client.post("/api/v1/deployments", &body).await
        }
        bundle::Ready::Archive { path, .. } => upload(client, path, name, serving).await,
    }
}

async fn upload(
    client: &Client,
    path: &Path,
    name: Option<&str>,
    serving: &Map<String, Value>,
) -> Result<Value> {
    let file = tokio::fs::File::open(path)
        .await
        .with_context(|| format!("cannot open `{}`", path.display()))?;
    let mut query = Vec::new();
    if let Some(name) = name {
        query.push(format!("name={}", encoded(name, false)));
    }
    if !serving.is_empty() {
        let text = Value::Object(serving.clone()).to_string();
        query.push(format!("serving={}", encoded(&text, false)));
    }
    let mark = if query.is_empty() { "" } else { "?" };
    let address = format!("/api/v1/deployments{mark}{}", query.join("&"));
    client.post_bytes(&address, file.into()).await
}

/// `tidemill deployments`
pub async fn list(target: &Target, json: bool) -> Result<Code> {
    let session = Session::open_tracking(target, &Database::default()).await?;
    let answer: Value = session.client.get("/api/v1/deployments").await?;
    session.close().await?;
    if json {
        println!("{answer}");
        return Ok(Code::Success);
    }
    let mut table = output::table(&[
        "deployment",
        "version",
        "state",
        "replicas",
        "what",
        "deployed",
        "from",
    ]);
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    for item in items {
        let newest = item["versions"]
            .as_array()
            .and_then(|versions| versions.last())
            .cloned()
            .unwrap_or_default();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        table.add_row([
            text(&item["name"]),
            text(&item["version"]),
            text(&item["state"]),
            text(&item["replicas"]),
            text(&newest["manifest"]["model"]["kind"]),
            text(&newest["created_at"]),
            text(&newest["source"]),
        ]);
    }
    if items.is_empty() {
        println!("nothing is deployed; `tidemill deploy app.py:predict` deploys a function");
    } else {
        println!("{table}");
    }
    Ok(Code::Success)
}

/// `tidemill undeploy NAME`
pub async fn remove(target: &Target, name: &str, json: bool) -> Result<Code> {
    let session = Session::open_tracking(target, &Database::default()).await?;
    let removed = session
        .client
        .delete(&format!("/api/v1/deployments/{}", encoded(name, false)))
        .await;
    session.close().await?;
    removed?;
    if json {
        println!("{}", json!({ "removed": name }));
    } else {
        println!("`{name}` is gone");
    }
    Ok(Code::Success)
}
