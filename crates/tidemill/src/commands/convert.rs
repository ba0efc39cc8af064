//! `tidemill convert`: a model that needs Python becomes one that does not, where that answers alike.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use tidemill_core::deployments::{Deploying, DeploymentEngine as _};
use tidemill_core::spec::ServingSpec;
use tidemill_models::{Conversion, Deployer};

use super::bundle;
use crate::compose::default_python;
use crate::deploy_args::BundleArgs;
use crate::exit::{Code, bad_input};

/// Unpickles in a process of its own; nothing is written to `to` unless samples are answered as the original answers them.
pub async fn run(what: &str, args: &BundleArgs, to: &Path, json: bool) -> Result<Code> {
    if to.exists() {
        bad_input!("`{}` is there already; name a folder that is not", to.display());
    }
    if let Some(parent) = to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create `{}`", parent.display()))?;
    }
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let archive = work.path().join("bundle.tidemill");
    bundle::write(what, None, args, &archive)?;
    let engine = Deployer::new(&work.path().join("data"), default_python());
    let folder = work.path().join("unpacked");
    let deploying = Deploying {
        name: "convert".to_owned(),
        manifest: engine.unpack(&archive, &folder).await?,
        folder,
        serving: ServingSpec::default(),
    };
    if deploying.manifest.python.is_none() {
        bad_input!("`{what}` needs no Python: deploy it as it is");
    }
    // An environment, if a lock was named.
    engine.prepare(&deploying).await?;
    let out: PathBuf = std::path::absolute(to).with_context(|| format!("cannot find `{}`", to.display()))?;
    let outcome = engine.convert(&deploying, &out).await?;
    let (samples, refused) = match outcome {
        Conversion::Native { samples } => (samples, None),
        Conversion::Refused(why) => {
            let _ = std::fs::remove_dir_all(&out);
            (0, Some(why))
        }
    };
    if json {
        println!(
            "{}",
            json!({ "converted": refused.is_none(), "to": to, "samples": samples, "why": refused })
        );
    }
    match refused {
        None => {
            if !json {
                println!(
                    "`{}` answers {samples} samples as `{what}` does; deploy it: `tidemill deploy {0}`",
                    to.display()
                );
            }
            Ok(Code::Success)
        }
        Some(why) => {
            if !json {
                eprintln!(
                    "`{what}` is not converted: {why}. It can be deployed as it is, and is then answered by Python"
                );
            }
            Ok(Code::Refused)
        }
    }
}
