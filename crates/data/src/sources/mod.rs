//! From `data.source` to files, and from files to one table.

mod csv;
mod locate;
mod resolve;
mod schema;
mod table;

pub use csv::{missing as missing_values, reader as csv_reader};
pub use locate::{INFINITE, first_bad_row, first_not_number, first_row_where, first_such_text};
pub use resolve::resolve;
pub use schema::{SchemaCache, corrupt};
pub use table::Source;
