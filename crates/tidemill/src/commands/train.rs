//! `tidemill train`, `evaluate` and `reproduce`.

use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tidemill_control::view::Reproduction;
use tidemill_core::clock::real_sleep;

use crate::cli::Target;
use crate::exit::{Code, bad_input};
use crate::output;
use crate::session::Session;

pub async fn run(target: &Target, reason: &str, json: bool) -> Result<Code> {
    let (session, _) = Session::open(target).await?;
    let bar = spinner("training");
    let answer: Value = session
        .client
        .post("/api/v1/runs", &json!({ "reason": reason }))
        .await?;
    let Some(id) = answer["run_id"].as_str().map(str::to_owned) else {
        bail!("the server's answer names no run: {answer}");
    };
    let run: Value = loop {
        let run: Value = session.client.get(&format!("/api/v1/runs/{id}")).await?;
        if !matches!(run["state"].as_str(), Some("queued" | "running")) {
            break run;
        }
        real_sleep(Duration::from_millis(200)).await;
    };
    bar.finish_and_clear();
    let decision: Value = match run["decision"].as_str() {
        Some(decision) => {
            session
                .client
                .get(&format!("/api/v1/decisions/{decision}"))
                .await?
        }
        None => Value::Null,
    };
    session.close().await?;
    Ok(report(&run, &decision, json))
}

fn report(run: &Value, decision: &Value, json: bool) -> Code {
    let failed = run["state"] == "failed";
    let verdict = decision["verdict"].as_str().unwrap_or("none");
    if json {
        println!("{}", json!({ "run": run, "decision": decision }));
    } else if failed {
        eprintln!(
            "run {} failed: {}",
            run["id"].as_str().unwrap_or(""),
            run["error"].as_str().unwrap_or("")
        );
    } else {
        let mut table = output::table(&["metric", "hold-out"]);
        for (name, value) in run["metrics"].as_object().into_iter().flatten() {
            table.add_row([name.clone(), output::number(value.as_f64())]);
        }
        println!("{table}");
        for check in decision["result"]["checks"].as_array().into_iter().flatten() {
            println!(
                "gate {}: {} ({})",
                check["metric"].as_str().unwrap_or(""),
                check["verdict"].as_str().unwrap_or(""),
                check["reason"].as_str().unwrap_or("")
            );
        }
        println!(
            "run {} gave version {}; gate: {verdict}",
            run["id"].as_str().unwrap_or(""),
            run["model_version"]
        );
    }
    match (failed, verdict) {
        (true, _) => Code::Failure,
        (false, "fail") => Code::Refused,
        _ => Code::Success,
    }
}

pub async fn evaluate(target: &Target, version: Option<u32>, json: bool) -> Result<Code> {
    let (session, _) = Session::open(target).await?;
    let bar = spinner("evaluating");
    let control = session.local()?;
    let evaluated = control
        .evaluate(version.map(tidemill_core::ids::VersionNumber))
        .await?;
    bar.finish_and_clear();
    session.close().await?;
    if json {
        println!("{evaluated}");
        return Ok(Code::Success);
    }
    let mut table = output::table(&["metric", "value", "standard error"]);
    for (name, m) in evaluated["metrics"].as_object().into_iter().flatten() {
        table.add_row([
            name.clone(),
            output::number(m["value"].as_f64()),
            output::number(m["std_error"].as_f64()),
        ]);
    }
    println!(
        "version {} on {} labelled rows from {} to {}",
        evaluated["version"], evaluated["rows"], evaluated["from"], evaluated["until"]
    );
    println!("{table}");
    Ok(Code::Success)
}

pub async fn reproduce(target: &Target, name: &str, json: bool) -> Result<Code> {
    let Some((model, version)) = name
        .rsplit_once('/')
        .and_then(|(m, v)| Some((m, v.parse::<u32>().ok()?)))
    else {
        bad_input!("`{name}` is not MODEL/VERSION, such as `flights/3`");
    };
    let (session, _) = Session::open(target).await?;
    let bar = spinner("training again");
    let control = session.local()?;
    let again: Reproduction = control
        .reproduce(&model.into(), tidemill_core::ids::VersionNumber(version))
        .await?;
    bar.finish_and_clear();
    session.close().await?;
    if json {
        println!("{}", serde_json::to_string(&again)?);
    } else {
        for (name, recorded, found) in &again.digests {
            let mark = if recorded == found { "same" } else { "DIFFERS" };
            println!(
                "{mark:8} {name}: {}{}",
                short(recorded),
                if recorded == found {
                    String::new()
                } else {
                    format!(" → {}", short(found))
                }
            );
        }
        println!(
            "{model}/{version}: {}",
            if again.identical {
                "reproduced, bit for bit"
            } else {
                "NOT reproduced"
            }
        );
    }
    Ok(if again.identical {
        Code::Success
    } else {
        Code::Refused
    })
}

fn short(digest: &str) -> String {
    digest.chars().take(16).collect()
}

pub fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
