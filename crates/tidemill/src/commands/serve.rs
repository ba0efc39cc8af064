//! `tidemill serve`: a server with nothing but what is named.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Map, json};

use super::{bundle, deploy, up};
use crate::cli::Listen;
use crate::client::Client;
use crate::compose::{self, Settings};
use crate::deploy_args::{BundleArgs, DeploymentArgs};
use crate::exit::{Code, bad_input};

/// What `serve` was asked.
pub struct Args<'a> {
    pub what: &'a [String],
    pub listen: &'a Listen,
    pub data: Option<PathBuf>,
    pub no_auth: bool,
    pub bundle: &'a BundleArgs,
    pub serving: &'a DeploymentArgs,
}

pub async fn run(args: Args<'_>, json: bool) -> Result<Code> {
    if !args.listen.host.is_loopback() && !args.no_auth {
        bad_input!(
            "anybody who reaches {} could use this server, which asks nobody who they are: say `--no-auth` if that is meant",
            args.listen.host
        );
    }
    let serving = bundle::serving(args.serving)?;
    let mut ready = Vec::new();
    for what in args.what {
        if what.starts_with("models:/") {
            bad_input!(
                "`{what}` is in the registry of another server, which serves it: `tidemill deploy {what}`"
            );
        }
        ready.push(bundle::ready(what, None, args.bundle)?);
    }
    let temporary = tempfile::tempdir()?;
    let data = args.data.clone().unwrap_or_else(|| temporary.path().to_owned());
    let app = compose::open_without_project(&data, &Settings::default()).await?;
    let address = SocketAddr::from((args.listen.host, args.listen.port));
    let running = compose::serve(app, address, true).await?;
    let deployed = deploy_all(&running.url(), &ready, &serving).await;
    let names = match deployed {
        Ok(names) => names,
        Err(error) => {
            running.stop().await?;
            return Err(error);
        }
    };
    if json {
        println!(
            "{}",
            json!({ "url": running.url(), "deployments": names, "pid": std::process::id() })
        );
    } else {
        println!(
            "tidemill serves {} at {}  (Ctrl-C stops)",
            names.join(", "),
            running.url()
        );
    }
    up::stop_signal().await;
    running.stop().await?;
    Ok(Code::Success)
}

async fn deploy_all(
    url: &str,
    ready: &[bundle::Ready],
    serving: &Map<String, serde_json::Value>,
) -> Result<Vec<String>> {
    let client = Client::new(url)?;
    let mut names = Vec::new();
    for bundle in ready {
        let deployed = deploy::send(&client, bundle, None, serving).await?;
        names.push(deployed["name"].as_str().unwrap_or_default().to_owned());
    }
    Ok(names)
}
