//! Models and functions in Python, by a real interpreter: `TIDEMILL_PYTHON`, or the environment that `scripts/test-venv.sh` makes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod faults;
mod functions;
mod harness;
mod models;
