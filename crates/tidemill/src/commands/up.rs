//! `tidemill up`: the server.

use std::net::SocketAddr;

use anyhow::Result;
use tidemill_core::clock::Timestamp;

use crate::cli::{Listen, Project};
use crate::compose::{self, ClockChoice, Running};
use crate::exit::Code;

/// The clock that the flags ask for.
pub fn choice(virtual_clock: Option<Timestamp>, wall_clock: bool) -> ClockChoice {
    match virtual_clock {
        Some(start) => ClockChoice::Virtual(start),
        None if wall_clock => ClockChoice::Wall,
        None => ClockChoice::AsStored,
    }
}

pub async fn run(project: &Project, listen: &Listen, choice: ClockChoice, json: bool) -> Result<Code> {
    let files = compose::read_project(&project.project, project.data.as_deref())?;
    if !listen.host.is_loopback() {
        eprintln!(
            "warning: listening on {} without authentication; anybody who reaches this port can use it",
            listen.host
        );
    }
    let app = compose::open(&files, choice).await?;
    let virtual_time = app.control.clock().as_virtual().is_some();
    let running = compose::serve(app, SocketAddr::from((listen.host, listen.port)), !virtual_time).await?;
    announce(&running, &files.spec.name, json);
    stop_signal().await;
    running.stop().await?;
    Ok(Code::Success)
}

/// Says where the server is. The first line is for programs that started it.
pub fn announce(running: &Running, project: &str, json: bool) {
    if json {
        println!(
            "{}",
            serde_json::json!({ "url": running.url(), "project": project, "pid": std::process::id() })
        );
    } else {
        println!(
            "tidemill serves `{project}` at {}  (page, API under /api/v1, Ctrl-C stops)",
            running.url()
        );
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
