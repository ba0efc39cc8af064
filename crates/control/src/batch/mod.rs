//! Batch jobs: rows of files are predicted into files, in the background, by the models that answer online.
//!
//! - [`rows`]: our own shape, the rows with their answers beside them; the command line shares it. [`folder`] is where its files go.
//! - `transform`: `SageMaker`'s shape, a file with answers for each file of records; `vertex`: Vertex AI's, instances with their predictions;
//!   `invoke`: `SageMaker`'s asynchronous inference, one body at a time.
//! - [`jobs`]: jobs are asked for, looked at and stopped. [`work`](Jobs::work) does them, a few at a time, again after a crash.
//! - [`places`]: where a job may read and write.
//! - [`ask`]: the port to whoever answers, with patience where the models are busy.
//!
//! Deliberately absent: files' formats (behind `core::batches`), models and protocols (behind [`ask::Asks`]).

mod answers;
pub mod ask;
mod attempts;
mod error;
pub mod folder;
mod invoke;
pub mod jobs;
mod jsonpath;
mod ledger;
mod lines;
mod origins;
pub mod places;
pub mod rows;
mod shape;
mod shelf;
mod transform;
mod vertex;
mod worker;

pub use answers::{Answer, joined};
pub use ask::{AskBody, Asking, Asks, Given};
pub use error::BatchError;
pub use invoke::Invoke;
pub use jobs::Jobs;
pub use places::{Place, PlaceOptions, Places};
pub use shape::{JobView, NewJob, Shape};
pub use transform::Transform;
pub use vertex::{Vertex, VertexInstances};
