//! `tidemill doctor`: what is wrong with this machine, the project or its data folder, and what to do.

use anyhow::Result;
use serde::Serialize;
use tidemill_core::ports::DataEngine;
use tidemill_store::{Store, StoreError};

use super::replay::engine;
use crate::cli::Project;
use crate::compose;
use crate::exit::Code;

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    detail: String,
}

pub async fn run(project: &Project, json: bool) -> Result<Code> {
    let mut findings = Vec::new();
    let mut add = |check, outcome: std::result::Result<String, String>| {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        findings.push(Finding { check, ok, detail });
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    add("cores", Ok(cores.to_string()));
    add("memory", memory());
    match compose::read_project(&project.project, project.data.as_deref()) {
        Err(error) => add("spec", Err(format!("{error:#}"))),
        Ok(files) => {
            add(
                "spec",
                Ok(format!(
                    "{} with {} features",
                    files.spec.name,
                    files.spec.features.len()
                )),
            );
            let engine = engine()?;
            add(
                "data",
                match engine.0.check_spec(&files.root, &files.spec).await {
                    Ok(()) => Ok(format!("`{}` fits the spec", files.spec.data.source)),
                    Err(error) => Err(error.to_string()),
                },
            );
            add("data folder", data_folder(&files.data));
            if let Some(command) = &files.spec.training.run {
                let program = command.split_whitespace().next().unwrap_or_default().to_owned();
                let found = std::env::var_os("PATH")
                    .is_some_and(|p| std::env::split_paths(&p).any(|d| d.join(&program).is_file()))
                    || files.root.join(&program).is_file();
                add(
                    "training command",
                    if found {
                        Ok(program)
                    } else {
                        Err(format!("`{program}` of `training.run` is not on PATH"))
                    },
                );
            }
        }
    }
    let bad = findings.iter().any(|f| !f.ok);
    if json {
        println!("{}", serde_json::to_string(&findings)?);
    } else {
        for f in &findings {
            println!(
                "{} {:17} {}",
                if f.ok { "ok  " } else { "FAIL" },
                f.check,
                f.detail
            );
        }
    }
    Ok(if bad { Code::Refused } else { Code::Success })
}

fn memory() -> std::result::Result<String, String> {
    let text =
        std::fs::read_to_string("/proc/meminfo").map_err(|e| format!("cannot read /proc/meminfo: {e}"))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))
        .unwrap_or("0 kB")
        .trim();
    let kib: u64 = line.trim_end_matches(" kB").trim().parse().unwrap_or(0);
    let mib = kib / 1_024;
    if mib < 512 {
        Err(format!("{mib} MB free; training wants 512 MB or more"))
    } else {
        Ok(format!("{mib} MB free"))
    }
}

fn data_folder(path: &std::path::Path) -> std::result::Result<String, String> {
    if !path.exists() {
        return Ok(format!("{} does not exist yet and will be made", path.display()));
    }
    match Store::open(path) {
        Ok(_) => Ok(format!("{} opens", path.display())),
        Err(StoreError::Locked { .. }) => Ok(format!("{} is in use by a running server", path.display())),
        Err(error) => Err(error.to_string()),
    }
}
