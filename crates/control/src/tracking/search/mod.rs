//! Searches: MLflow's filter strings and orders read into a typed tree, and page tokens. SQL is the store's.
//!
//! The grammar: clauses joined by AND, each `name operator value`, `name [NOT] IN ('a', 'b')` or `name IS [NOT] NULL`. A name is
//! `entity.key` or an attribute; a key with odd signs stands in backticks or double quotes. There is no OR, no NOT, and there are no
//! parentheses around clauses. What MLflow takes, this takes; it also takes `/`, `-`, `@`, `:` in a key without quotes.

mod calls;
mod lexer;
mod list;
mod order;
mod parser;
#[cfg(test)]
mod parser_tests;
mod target;
mod token;

pub use calls::{Found, Search};
pub use order::{ModelOrder, parse_model_order, parse_order};
pub use parser::parse_filter;
pub use target::Target;
pub(crate) use token::Searched;
