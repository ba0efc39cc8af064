//! The way that all prediction protocols share. A name is resolved to what stands behind it ([`Target`]): an endpoint of the loop, which
//! takes rows of a table, or a deployment, which takes tensors or a body.
//!
//! - [`predict`]: rows in, the loop's endpoint asked, one answer a row out; [`fast`]: its short way for plain numbers.
//! - [`ask`]: tensors in, either asked, tensors out; [`table`]: what a table's answer is in tensors.
//! - [`explain`]: rows in a body, what each input contributed to the answers out.
//! - [`score`]: rows in a body, either asked; [`forms`]: the forms in which bodies hold rows.
//! - [`describe`]: what either takes and gives.

pub(crate) mod ask;
mod cell;
pub(crate) mod classify;
pub(crate) mod describe;
pub(crate) mod explain;
pub(crate) mod fast;
pub(crate) mod forms;
pub(crate) mod score;
pub(crate) mod settings;
pub(crate) mod shared;
pub(crate) mod table;
pub(crate) mod target;
pub(crate) mod tensors;
mod values;

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::clock::Stopwatch;
use tidemill_core::frame::{FeatureKind, FeatureSchema, Frame, Scores};
use tidemill_core::ids::VersionNumber;
use tidemill_core::servable::Deadline;
use tidemill_serving::{
    Finding, InferRequest, InferResponse, MAX_FINDINGS, RawColumn, Route, SchemaError, ServeError, coerce_by,
};

pub(crate) use cell::{Cell, Cells, FlatCells, Record};
pub(crate) use target::Target;

use crate::control_plane::App;
use crate::edge;
use crate::error::ApiError;

/// Bodies longer than this are parsed on a blocking thread, so that they do not hold up small ones.
pub(crate) const HEAVY_BYTES: usize = 256 * 1024;
/// The longest id of a request that is kept.
const MAX_REQUEST_ID: usize = 200;

/// A named column as a client wrote it.
pub(crate) struct CellColumn {
    pub name: String,
    pub cells: Vec<Cell>,
}

/// Which endpoint is asked, and how.
pub(crate) struct Call {
    pub route: Arc<Route>,
    /// The column that carries each row's key.
    pub key: Option<String>,
    pub version: Option<VersionNumber>,
    pub received: Stopwatch,
}

impl Call {
    /// A request to what stands behind an endpoint.
    pub(crate) fn over(
        app: &App,
        route: Arc<Route>,
        version: Option<VersionNumber>,
        received: Stopwatch,
    ) -> Self {
        // A key that is a feature too is both.
        let key = app.key_column(&route.endpoint);
        Self {
            route,
            key,
            version,
            received,
        }
    }

    /// Whether this column carries keys and is no feature.
    pub(crate) fn is_key_only(&self, column: &str) -> bool {
        self.key.as_deref() == Some(column) && self.route.schema.index_of(column).is_none()
    }
}

/// Rows of a table, as far as a protocol has brought them.
pub(crate) enum Rows {
    /// Named columns, to be checked.
    Columns(Vec<CellColumn>),
    /// Rows in the schema of the route.
    Frame(Frame),
}

/// What a protocol read from a body.
pub(crate) struct Reading<E> {
    pub rows: Rows,
    /// The caller's id of the request.
    pub request_id: Option<String>,
    /// How long the caller waits, as far as the body or the protocol says it.
    pub timeout: Option<Duration>,
    /// What else the protocol needs for its answer.
    pub rest: E,
}

/// What a protocol writes its answer from.
pub(crate) struct Answer<E> {
    pub route: Arc<Route>,
    pub response: InferResponse,
    pub rest: E,
}

/// Reads a body into columns, checks them, and asks the hot path.
pub(crate) async fn predict<R, E>(
    app: &App,
    call: Call,
    body_len: usize,
    read: R,
) -> Result<Answer<E>, ApiError>
where
    R: FnOnce(&Call) -> Result<Reading<E>, ApiError> + Send + 'static,
    E: Send + 'static,
{
    let (route, request, rest) = prepared(call, body_len, read).await?;
    let response = app.serving().predict(request).await?;
    Ok(Answer {
        route,
        response,
        rest,
    })
}

/// Reads a body into rows of the route's schema.
async fn prepared<R, E>(
    call: Call,
    body_len: usize,
    read: R,
) -> Result<(Arc<Route>, InferRequest, E), ApiError>
where
    R: FnOnce(&Call) -> Result<Reading<E>, ApiError> + Send + 'static,
    E: Send + 'static,
{
    let waits = edge::timeout()?;
    let prepare = move || -> Result<(Arc<Route>, InferRequest, E), ApiError> {
        let Reading {
            rows,
            request_id,
            timeout,
            rest,
        } = read(&call)?;
        check_request_id(request_id.as_deref())?;
        let (keys, rows) = match rows {
            Rows::Frame(frame) => (Keys::new(), frame),
            Rows::Columns(columns) => {
                let (keys, columns) = split_keys(&call, columns)?;
                let frame =
                    coerce_by(call.route.inputs, &call.route.schema, columns).map_err(ServeError::from)?;
                (keys, frame)
            }
        };
        let request = InferRequest {
            endpoint: call.route.endpoint.clone(),
            request_id: request_id.filter(|id| !id.is_empty()),
            rows,
            keys,
            received: call.received,
            version: call.version,
            deadline: shortest(timeout, waits).map(|timeout| Deadline::after(call.received, timeout)),
        };
        Ok((call.route, request, rest))
    };
    if body_len > HEAVY_BYTES {
        off_thread(prepare).await
    } else {
        prepare()
    }
}

/// The shorter of two times, where there are two.
pub(crate) fn shortest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Runs what takes long where it holds up nobody.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let caller = shared::caller();
    tokio::task::spawn_blocking(move || shared::blocking_for(caller, work))
        .await
        .map_err(|error| ApiError::internal("internal", format!("reading the request failed: {error}")))?
}

pub(crate) fn check_request_id(id: Option<&str>) -> Result<(), ApiError> {
    let length = id.map_or(0, str::len);
    if length > MAX_REQUEST_ID {
        return Err(ApiError::bad_request(
            "bad_request_id",
            format!("the request's id has {length} bytes, expected at most {MAX_REQUEST_ID}"),
        ));
    }
    Ok(())
}

type Keys = Vec<Option<Arc<str>>>;

/// Takes the keys out; everything else becomes what the guard reads.
fn split_keys(call: &Call, columns: Vec<CellColumn>) -> Result<(Keys, Vec<RawColumn>), ApiError> {
    let mut keys = Keys::new();
    let mut raw = Vec::with_capacity(columns.len());
    let mut findings = Findings::default();
    for column in columns {
        for (row, cell) in column.cells.iter().enumerate() {
            if matches!(cell, Cell::Nested) {
                findings.value(
                    &column.name,
                    row,
                    "an array or object",
                    "a number, a text, a boolean or null",
                );
            }
        }
        if call.key.as_deref() == Some(&column.name) {
            keys = column.cells.iter().map(Cell::to_key).collect();
        }
        if !call.is_key_only(&column.name) {
            let schema = &call.route.schema;
            let kind = schema
                .index_of(&column.name)
                .map_or(FeatureKind::Numeric, |i| schema.features[i].kind);
            raw.push(RawColumn {
                name: column.name,
                values: column.cells.into_iter().map(|cell| cell.into_raw(kind)).collect(),
            });
        }
    }
    findings.finish()?;
    Ok((keys, raw))
}

/// Collects what does not fit, up to [`MAX_FINDINGS`].
#[derive(Default)]
pub(crate) struct Findings(SchemaError);

impl Findings {
    fn push(&mut self, finding: Finding) {
        if self.0.findings.len() < MAX_FINDINGS {
            self.0.findings.push(finding);
        } else {
            self.0.omitted += 1;
        }
    }

    /// A value that does not fit.
    pub(crate) fn value(&mut self, field: &str, row: usize, shown: &str, expected: &str) {
        let shown: String = shown.chars().take(80).collect();
        self.push(Finding {
            field: field.to_owned(),
            row: Some(row),
            message: format!("field `{field}` row {row}: `{shown}` is not {expected}"),
            value: Some(shown),
            expected: expected.to_owned(),
        });
    }

    /// A row that does not fit.
    pub(crate) fn row(&mut self, field: &str, row: usize, got: &str, expected: String) {
        self.push(Finding {
            field: field.to_owned(),
            row: Some(row),
            value: Some(got.to_owned()),
            message: format!("`{field}` row {row} is {got}, expected {expected}"),
            expected,
        });
    }

    /// A field that does not fit as a whole.
    pub(crate) fn field(&mut self, field: &str, got: &str, expected: String) {
        self.push(Finding {
            field: field.to_owned(),
            row: None,
            value: Some(got.to_owned()),
            message: format!("field `{field}`: {got}, expected {expected}"),
            expected,
        });
    }

    /// An error if anything was found.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.0.findings.is_empty() {
            return Ok(());
        }
        Err(ServeError::Schema(self.0).into())
    }
}

/// Whether every feature is a number.
pub(crate) fn all_numeric(schema: &FeatureSchema) -> bool {
    schema
        .features
        .iter()
        .all(|feature| feature.kind == FeatureKind::Numeric)
}

/// The most probable class, one a row, `None` where nobody answered; `None` in all where the task is another.
pub(crate) fn labels(scores: &Scores) -> Option<Vec<Option<&str>>> {
    matches!(scores, Scores::Multiclass { .. })
        .then(|| (0..scores.rows()).map(|row| scores.label(row)).collect())
}

/// Whether any row was not answered as it should have been.
pub(crate) fn any_degraded(response: &InferResponse) -> bool {
    response.degraded.iter().any(Option::is_some)
}
