//! What was predicted, what clients say of it, and the join of both.

pub(crate) mod cache;
pub mod join;
pub mod predictions;
pub mod record;
