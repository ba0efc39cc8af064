//! Windows over served traffic, the numbers they give, and the alerts these raise.

pub(crate) mod alerts;
pub mod signals;
pub(crate) mod windows;
