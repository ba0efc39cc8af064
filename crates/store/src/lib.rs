//! What Tidemill remembers: metadata in a database, bytes in an object store, both in one data folder.
//!
//! - [`Store`] opens the folder; closures given to it read ([`ReadTx`]) or change ([`Tx`]) the metadata. A change, its events and
//!   everything else in the same closure are stored together, durably, or not at all.
//! - [`objects::Objects`] keeps bytes under an [`objects::ObjectKey`]; most are named by their digest, and checked against it.
//! - One module per noun: its struct and its queries, as free functions over a transaction.
//! - The event log ([`events`]) is part of every change and is announced once that is durable.
//!
//! Deliberately absent: decisions (a query returns what is stored, `control` judges it), the clock (times are arguments), HTTP,
//! Arrow. Nothing outside this crate knows SQL, and no type of the SQL driver appears in a public signature.

mod column;
mod db;
mod error;
mod lock;
#[cfg(test)]
mod noun_tests;
#[cfg(test)]
mod plans;
mod reader;
mod store;
#[cfg(test)]
mod store_tests;
#[cfg(test)]
mod testing;
mod tx;
mod writer;

pub mod alerts;
pub mod automations;
pub mod bandits;
pub mod batch_jobs;
pub mod decisions;
pub mod deployments;
pub mod endpoints;
pub mod events;
pub mod foreign;
pub mod labels;
pub mod meta;
pub mod models;
pub mod objects;
pub mod predictions;
pub mod registry;
pub mod rollouts;
pub mod runs;
pub mod sealing;
pub mod search;
pub mod snapshots;
pub mod specs;
pub mod steps;
pub mod sweeps;
pub mod tracking;
pub mod users;
pub mod wandb;
pub mod webhooks;
pub mod windows;
pub mod workspaces;

pub use column::UnknownWord;
pub use db::{Database, Dialect};
pub use error::StoreError;
pub use events::Event;
pub use objects::{ContentKind, ObjectKey, Objects};
pub use store::Store;
pub use tx::{ReadTx, Tx};
