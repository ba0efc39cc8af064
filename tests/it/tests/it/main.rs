//! Integration tests: each starts the real `tidemill` binary on a free port and a temporary folder, and talks to it as a user does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test that cannot go on fails
#![allow(clippy::print_stdout, clippy::print_stderr)] // a failed test shows what the server said
#![allow(clippy::disallowed_methods)] // the tests stand outside the house, where time is the machine's own

mod architecture;
mod bad_input;
mod batch;
mod commands;
mod faults;
mod full_disk;
mod init;
mod kill;
mod retraining;
mod sweep;
mod util;
