//! The `tidemill` binary: parses the command line, puts the crates together, and turns outcomes into exit codes.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line tool talks through these

mod allocator;
mod cli;
mod client;
mod commands;
mod compose;
mod deploy_args;
mod exit;
mod output;
mod plane;
mod player;
mod session;
mod webhooks;

use std::io::IsTerminal;

use clap::Parser;

fn main() -> std::process::ExitCode {
    end_with_the_reader();
    allocator::give_memory_back();
    webhooks::choose_tls();
    let cli = cli::Cli::parse();
    init_tracing(cli.verbose);
    // As many connections as the machine allows; where it allows no more than there are, these have to do.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return exit::Code::Failure.into();
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            exit::code_of(&error).into()
        }
    }
}

/// `tidemill … | head`: once nobody reads any more there is nothing left to say, and that is no failure. `println!` knows only to panic.
fn end_with_the_reader() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let unread = panic.payload_as_str().is_some_and(|text| {
            text.starts_with("failed printing to stdout") && text.contains("Broken pipe")
        });
        if unread {
            std::process::exit(0);
        }
        told(panic);
    }));
}

fn init_tracing(verbose: u8) {
    let default = match verbose {
        // The trainer says at each capped training that the cap was reached, which is what a cap is for.
        0 => "warn,perpetual=error",
        1 => "info,datafusion=warn,perpetual=error",
        _ => "debug,datafusion=info,hyper=info",
    };
    let filter =
        tracing_subscriber::EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
