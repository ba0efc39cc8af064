//! One file a command, or a few that belong together.

mod backtest;
mod bundle;
mod convert;
mod demo;
mod deploy;
mod doctor;
mod import;
mod init;
mod inspect;
mod operate;
pub mod predict;
mod predictions;
mod replay;
mod serve;
mod train;
mod up;
mod validate;

use anyhow::Result;
use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::exit::Code;

/// Runs the command.
pub async fn run(cli: Cli) -> Result<Code> {
    let json = cli.json;
    match cli.command {
        Command::Init {
            source,
            output,
            label,
            name,
            force,
        } => {
            init::run(
                init::Args {
                    source,
                    output,
                    label,
                    name,
                    force,
                },
                json,
            )
            .await
        }
        Command::Up {
            project,
            listen,
            serving,
            tracking,
            virtual_clock,
            wall_clock,
        } => {
            let choice = up::choice(virtual_clock, wall_clock);
            up::run(&project, &listen, &serving, &tracking, choice, json).await
        }
        Command::Demo {
            project,
            listen,
            data,
            from,
            to,
            exit,
        } => {
            demo::run(
                demo::Args {
                    project,
                    listen,
                    data,
                    from,
                    to,
                    exit,
                },
                json,
            )
            .await
        }
        Command::Validate { project } => validate::run(&project, json).await,
        Command::Train { target, reason } => train::run(&target, &reason, json).await,
        Command::Evaluate { target, version } => train::evaluate(&target, version, json).await,
        Command::Reproduce { target, version } => train::reproduce(&target, &version, json).await,
        Command::Promote { target, version, why } => operate::promote(&target, version, &why, json).await,
        Command::Rollback { target, why } => operate::rollback(&target, &why, json).await,
        Command::Predict {
            target,
            input,
            output,
            endpoint,
            part_rows,
            format,
            job,
            detach,
        } => {
            let asked = predict::Args {
                target: &target,
                input: &input,
                output: output.as_deref(),
                endpoint: endpoint.as_deref(),
                part_rows,
                format,
            };
            if job {
                return predict::job::start(&asked, detach, json).await;
            }
            predict::run(asked, json).await
        }
        Command::BatchJobs {
            target,
            id,
            wait,
            cancel,
        } => {
            let about = predict::job::About {
                target: &target,
                id: id.as_deref(),
                wait,
                cancel,
            };
            predict::job::about(&about, json).await
        }
        Command::Feedback {
            target,
            prediction_id,
            value,
            input,
        } => operate::feedback(&target, prediction_id, value, input, json).await,
        Command::Replay {
            target,
            from,
            to,
            speed,
            patience,
        } => replay::run(&target, replay::Range { from, to }, &speed, patience, json).await,
        Command::Backtest {
            project,
            from,
            to,
            policies,
        } => backtest::run(&project, replay::Range { from, to }, &policies, json).await,
        Command::Lineage {
            target,
            prediction_id,
        } => inspect::lineage(&target, &prediction_id, json).await,
        Command::Predictions { action } => predictions::run(action, json).await,
        Command::Import { source } => import::run(source, json).await,
        Command::Deploy {
            target,
            what,
            name,
            bundle,
            serving,
        } => {
            let args = deploy::Args {
                target: &target,
                what: &what,
                name: name.as_deref(),
                bundle: &bundle,
                serving: &serving,
            };
            deploy::run(args, json).await
        }
        Command::Deployments { target } => deploy::list(&target, json).await,
        Command::Undeploy { target, name } => deploy::remove(&target, &name, json).await,
        Command::Bundle {
            what,
            name,
            output,
            bundle,
            serving,
        } => bundle::run(&what, name.as_deref(), &bundle, &serving, &output, json),
        Command::Convert { what, to, bundle } => convert::run(&what, &bundle, &to, json).await,
        Command::Serve {
            what,
            listen,
            data,
            no_auth,
            bundle,
            serving,
        } => {
            let args = serve::Args {
                what: &what,
                listen: &listen,
                data,
                no_auth,
                bundle: &bundle,
                serving: &serving,
            };
            serve::run(args, json).await
        }
        Command::Status { target } => inspect::status(&target, json).await,
        Command::Doctor { project } => doctor::run(&project, json).await,
        Command::Schema => {
            println!(
                "{}",
                serde_json::to_string_pretty(&tidemill_core::spec::json_schema())?
            );
            Ok(Code::Success)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tidemill", &mut std::io::stdout());
            Ok(Code::Success)
        }
    }
}
