//! An order: one text a key.

use tidemill_store::search::{OrderKey, Subject};

use super::lexer::{Kind, tokens};
use super::parser::{Named, named};
use super::target::{Target, find, names};
use crate::tracking::{Result, TrackingError};

/// Reads `order_by`.
pub fn parse_order(target: Target, order_by: &[String]) -> Result<Vec<OrderKey>> {
    let mut keys: Vec<OrderKey> = Vec::new();
    for text in order_by {
        let key = order_key(target, text)?;
        let is_named = keys.iter().any(|known| known.subject == key.subject);
        if is_named && target != Target::Experiments {
            let texts: Vec<String> = order_by.iter().map(|text| format!("'{text}'")).collect();
            return Err(TrackingError::invalid(format!(
                "`order_by` contains duplicate fields: [{}]",
                texts.join(", ")
            )));
        }
        if !is_named {
            keys.push(key);
        }
    }
    Ok(keys)
}

fn order_key(target: Target, text: &str) -> Result<OrderKey> {
    let unreadable =
        || TrackingError::invalid(format!("Invalid order_by clause '{text}'. Could not be parsed."));
    if text.contains('\0') {
        return Err(unreadable());
    }
    let tokens = tokens(text);
    let (name, ascending) = match tokens.as_slice() {
        [name] if name.kind == Kind::Name => (name.raw, true),
        [name, direction] if name.kind == Kind::Name && direction.kind == Kind::Name => {
            let ascending = match direction.raw.to_ascii_lowercase().as_str() {
                "asc" => true,
                "desc" => false,
                _ => {
                    return Err(TrackingError::invalid(format!(
                        "Invalid ordering key in order_by clause '{text}'."
                    )));
                }
            };
            (name.raw, ascending)
        }
        _ => return Err(unreadable()),
    };
    if target == Target::RegisteredModels && find(target.ordered(), name).is_none() {
        return Err(TrackingError::invalid(format!(
            "Invalid order by key '{name}' specified. Valid keys are '{}'",
            names(target.ordered())
        )));
    }
    let subject = match named(target, name, target.ordered())? {
        Named::Attribute(known) => Subject::Attribute(known.attribute),
        Named::Subject(subject @ (Subject::Metric(_) | Subject::Param(_))) => subject,
        Named::Subject(subject @ Subject::Tag(_)) if target == Target::Runs => subject,
        Named::Subject(subject) => {
            let entity = if matches!(subject, Subject::Tag(_)) {
                "tag"
            } else {
                "dataset"
            };
            return Err(TrackingError::invalid(format!(
                "Invalid order_by entity: {entity}"
            )));
        }
    };
    Ok(OrderKey::by(subject, ascending))
}

/// One key of the order of logged models, as a request has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModelOrder {
    /// `metrics.NAME` or an attribute.
    pub field_name: Option<String>,
    /// Whether small comes first; so it is unless the request says otherwise.
    pub ascending: Option<bool>,
    /// Only values on the dataset of this name.
    pub dataset_name: Option<String>,
    /// Only values on the dataset of this digest.
    pub dataset_digest: Option<String>,
}

/// Reads the order of logged models.
pub fn parse_model_order(order_by: &[ModelOrder]) -> Result<Vec<OrderKey>> {
    let invalid = |message: String| Err(TrackingError::invalid(message));
    let mut keys = Vec::new();
    for order in order_by {
        let Some(field) = order.field_name.as_deref().map(str::trim) else {
            return invalid("`field_name` in the `order_by` clause must be specified.".to_owned());
        };
        let subject = match field.split_once('.') {
            Some(("metrics", name)) => Subject::Metric(name.trim_matches('`').to_owned()),
            Some(("attributes", name)) if find(Target::LoggedModels.ordered(), name).is_some() => {
                attribute(name)?
            }
            Some(_) => {
                return invalid(format!(
                    "Invalid order by field name: {field}. Only metrics are supported."
                ));
            }
            None => attribute(field)?,
        };
        keys.push(OrderKey {
            subject,
            ascending: order.ascending.unwrap_or(true),
            dataset_name: order.dataset_name.clone(),
            dataset_digest: order.dataset_digest.clone(),
        });
    }
    Ok(keys)
}

fn attribute(name: &str) -> Result<Subject> {
    let known = find(Target::LoggedModels.ordered(), name);
    known
        .map(|known| Subject::Attribute(known.attribute))
        .ok_or_else(|| TrackingError::invalid(format!("Invalid order by field name: {name}")))
}
