//! Models and functions in Python, by a real interpreter: `TIDEMILL_PYTHON`, or the environment that `scripts/test-venv.sh` makes.

mod faults;
mod functions;
mod harness;
mod models;
