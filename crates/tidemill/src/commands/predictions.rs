//! `tidemill predictions`: what is recorded, and its replay.

use anyhow::Result;
use serde_json::{Value, json};
use tidemill_control::predictions::Replay;
use tidemill_store::Database;

use crate::cli::{PredictionsCommand, Target};
use crate::exit::Code;
use crate::session::Session;

pub async fn run(action: PredictionsCommand, json: bool) -> Result<Code> {
    match action {
        PredictionsCommand::Show {
            target,
            prediction_id,
        } => show(&target, &prediction_id).await,
        PredictionsCommand::Replay {
            target,
            prediction_id,
        } => replay(&target, &prediction_id, json).await,
    }
}

async fn show(target: &Target, id: &str) -> Result<Code> {
    let session = Session::open_tracking(target, &Database::default()).await?;
    let shown: Value = session.client.get(&format!("/api/v1/predictions/{id}")).await?;
    session.close().await?;
    println!("{}", serde_json::to_string_pretty(&shown)?);
    Ok(Code::Success)
}

/// Exits with 0 where both answers are the same.
async fn replay(target: &Target, id: &str, as_json: bool) -> Result<Code> {
    let session = Session::open_tracking(target, &Database::default()).await?;
    let path = format!("/api/v1/predictions/{id}/replay");
    let replay: Replay = session.client.post(&path, &json!({})).await?;
    session.close().await?;
    if as_json {
        println!("{}", serde_json::to_string(&replay)?);
    } else {
        let (endpoint, version) = (&replay.endpoint, replay.version);
        println!("version {version} of {endpoint} was asked again");
        println!("recorded  {}", replay.recorded);
        println!("again     {}", replay.again);
        for note in &replay.notes {
            println!("note: {note}");
        }
        for difference in &replay.differences {
            println!("differs: {difference}");
        }
        println!(
            "{}",
            if replay.same {
                "the same, bit by bit"
            } else {
                "not the same"
            }
        );
    }
    Ok(if replay.same { Code::Success } else { Code::Refused })
}
