//! `tidemill promote`, `rollback` and `feedback`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tidemill_control::view::Status;

use crate::cli::Target;
use crate::exit::{Code, bad_input};
use crate::session::Session;

async fn endpoint_of(session: &Session) -> Result<String> {
    let status: Status = session.client.get("/api/v1/status").await?;
    status
        .endpoints
        .first()
        .map(|e| e.name.to_string())
        .context("this server has no endpoint")
}

fn who() -> String {
    std::env::var("USER").unwrap_or_else(|_| "cli".into())
}

pub async fn promote(target: &Target, version: u32, why: &str, json: bool) -> Result<Code> {
    let (session, _) = Session::open(target).await?;
    let path = format!("/api/v1/endpoints/{}/promote", endpoint_of(&session).await?);
    let answer: Value = session
        .client
        .post(&path, &json!({ "version": version, "why": why, "by": who() }))
        .await?;
    session.close().await?;
    print(&answer, &format!("version {version} is champion"), json);
    Ok(Code::Success)
}

pub async fn rollback(target: &Target, why: &str, json: bool) -> Result<Code> {
    let (session, _) = Session::open(target).await?;
    let path = format!("/api/v1/endpoints/{}/rollback", endpoint_of(&session).await?);
    let answer: Value = session
        .client
        .post(&path, &json!({ "why": why, "by": who() }))
        .await?;
    session.close().await?;
    let text = match answer.get("champion") {
        Some(version) => format!("back to version {version}"),
        None => format!("the rollout of version {} was taken back", answer["rolled_back"]),
    };
    print(&answer, &text, json);
    Ok(Code::Success)
}

fn print(answer: &Value, text: &str, json: bool) {
    if json {
        println!("{answer}");
    } else {
        println!("{text}");
    }
}

pub async fn feedback(
    target: &Target,
    id: Option<String>,
    value: Option<String>,
    input: Option<PathBuf>,
    json: bool,
) -> Result<Code> {
    let items: Vec<Value> = match (id, value, input) {
        (Some(id), Some(value), None) => {
            // `true`, `3.5` and `"late"` are JSON; a bare word is a class.
            let value: Value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            vec![json!({ "prediction_id": id, "value": value, "source": "cli" })]
        }
        (None, None, Some(path)) => {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            text.lines()
                .enumerate()
                .filter(|(_, line)| !line.trim().is_empty())
                .map(|(i, line)| {
                    serde_json::from_str(line)
                        .with_context(|| format!("{}:{}: not a JSON object", path.display(), i + 1))
                })
                .collect::<Result<_>>()?
        }
        _ => bad_input!("give a prediction id and a value, or `--input FILE`"),
    };
    let (session, _) = Session::open(target).await?;
    let mut outcomes = Vec::new();
    for part in items.chunks(1_000) {
        let answer: Value = session
            .client
            .post("/api/v1/feedback", &json!({ "feedback": part }))
            .await?;
        outcomes.extend(answer["outcomes"].as_array().cloned().unwrap_or_default());
    }
    session.close().await?;
    let conflicts = outcomes.iter().filter(|o| o["outcome"] == "conflict").count();
    if json {
        println!("{}", json!({ "outcomes": outcomes }));
    } else {
        let count = |what: &str| outcomes.iter().filter(|o| o["outcome"] == what).count();
        let waiting = outcomes.iter().filter(|o| o["joined"] == false).count();
        println!(
            "{} stored, {} known already, {} corrected, {conflicts} in conflict; {waiting} wait for their prediction",
            count("created"),
            count("repeated"),
            count("corrected")
        );
    }
    Ok(if conflicts > 0 {
        Code::Refused
    } else {
        Code::Success
    })
}
