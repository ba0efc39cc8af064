//! `tidemill status` and `lineage`.

use anyhow::Result;
use serde_json::Value;
use tidemill_control::view::{Lineage, Status};

use crate::cli::Target;
use crate::exit::Code;
use crate::session::Session;

pub async fn status(target: &Target, json: bool) -> Result<Code> {
    let (session, _) = Session::open(target).await?;
    let status: Status = session.client.get("/api/v1/status").await?;
    session.close().await?;
    if json {
        println!("{}", serde_json::to_string(&status)?);
        return Ok(Code::Success);
    }
    println!(
        "project {} ({}), clock {}{}",
        status.project,
        status.version,
        status.now,
        if status.virtual_clock { " (virtual)" } else { "" }
    );
    println!(
        "{} predictions, {} labels ({} wait for their prediction), memory {:.0} MB",
        status.predictions, status.labels, status.unmatched_labels, status.rss_mb
    );
    println!(
        "{} open runs, {} open alerts",
        status.open_runs, status.open_alerts
    );
    for e in &status.endpoints {
        let version = |v: Option<tidemill_core::ids::VersionNumber>| {
            v.map_or_else(|| "none".to_owned(), |v| v.to_string())
        };
        println!(
            "endpoint {}: champion {}, previous {}, baseline {}",
            e.name,
            version(e.champion),
            version(e.previous),
            version(e.baseline)
        );
        if let Some((state, to)) = &e.rollout {
            println!("  rollout of version {to}: {state}");
        }
    }
    Ok(Code::Success)
}

pub async fn lineage(target: &Target, id: &str, json: bool) -> Result<Code> {
    let (session, _) = Session::open(target).await?;
    let lineage: Lineage = session
        .client
        .get(&format!("/api/v1/lineage/predictions/{id}"))
        .await?;
    session.close().await?;
    if json {
        println!("{}", serde_json::to_string(&lineage)?);
        return Ok(Code::Success);
    }
    let p = &lineage.prediction;
    println!(
        "prediction  {} at {} by {} {} ({})",
        lineage.prediction_id,
        text(&p["at"]),
        text(&p["endpoint"]),
        text(&p["version"]),
        text(&p["role"])
    );
    println!("  answer    {}", p["scores"]);
    match &lineage.version {
        Some(v) => println!(
            "version     {}/{} ({})",
            text(&v["model"]),
            v["version"],
            text(&v["description"])
        ),
        None => println!("version     none: the endpoint's default answer"),
    }
    if let Some(run) = &lineage.run {
        println!(
            "run         {} ({}: {})",
            text(&run["id"]),
            text(&run["trigger_kind"]),
            text(&run["trigger_reason"])
        );
        println!("  key       {}", text(&run["key"]));
    }
    if let Some(code) = &lineage.code {
        println!("code        {code}");
    }
    if let Some(s) = &lineage.snapshot {
        println!(
            "snapshot    {} ({} rows, {} served)",
            text(&s["digest"]),
            s["rows"],
            s["origin"]["served_rows"]
        );
    }
    if let Some(v) = &lineage.validation {
        println!("validation  success: {}, {}", v["success"], v["statistics"]);
    }
    for label in &lineage.labels {
        println!(
            "label       {} = {} (told {} by {})",
            text(&label["label"]),
            label["value"],
            text(&label["ingest_time"]),
            text(&label["source"])
        );
    }
    for d in &lineage.decisions {
        println!(
            "decision    {} {}: {}",
            text(&d["kind"]),
            text(&d["id"]),
            text(&d["verdict"])
        );
    }
    for s in &lineage.used_by {
        println!("learnt from by snapshot {}", text(&s["snapshot"]));
    }
    Ok(Code::Success)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
