//! What clients say of predictions, and the join of both.

pub mod join;
pub mod record;
