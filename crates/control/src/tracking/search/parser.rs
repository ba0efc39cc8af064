//! A filter string becomes a tree. Clauses are told apart first; only when every piece belongs to one is their meaning read, so that
//! a filter with a piece too many is refused for that.

use tidemill_store::search::{Attribute, Clause, Compare, DatasetField, Subject, Test};

use super::lexer::{Kind, Token, tokens};
use super::list;
use super::target::{Known, Target, find, names};
use crate::tracking::{Result, TrackingError};

/// More clauses than anyone writes; what databases take has a limit.
const CLAUSES: usize = 400;

/// Patterns longer than this are none that a database would match.
const PATTERN_BYTES: usize = 20_000;

/// Reads a filter string.
pub fn parse_filter(target: Target, text: &str) -> Result<Vec<Clause>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if text.contains('\0') {
        return Err(TrackingError::invalid(
            "Invalid filter: it holds a zero byte, which no name and no value does.",
        ));
    }
    let tokens = tokens(text);
    if tokens.is_empty() {
        return Err(TrackingError::invalid(format!(
            "Invalid filter '{text}'. Could not be parsed."
        )));
    }
    let semicolon = tokens.iter().position(|token| token.raw == ";");
    if semicolon.is_some_and(|at| at + 1 < tokens.len()) {
        return Err(TrackingError::invalid(if target == Target::LoggedModels {
            format!("Invalid filter string: '{text}'. Expected a single SQL expression.")
        } else {
            format!("Search filter contained multiple expression '{text}'. Provide AND-ed expression list.")
        }));
    }
    let parts = parts(target, text, &tokens)?;
    if parts.len() > CLAUSES {
        return Err(TrackingError::invalid(format!(
            "Invalid filter: it has {} clauses; at most {CLAUSES} are allowed.",
            parts.len()
        )));
    }
    parts.iter().map(|part| clause(target, part)).collect()
}

/// A clause before its meaning is read.
struct Part<'t> {
    left: Token<'t>,
    operator: String,
    right: Option<Token<'t>>,
}

fn is_operand(token: &Token<'_>) -> bool {
    matches!(
        token.kind,
        Kind::Name | Kind::Number | Kind::Text | Kind::Parenthesis
    )
}

/// Tells the clauses apart. As in MLflow, AND may be missing, doubled, or at an end.
fn parts<'t>(target: Target, text: &str, tokens: &[Token<'t>]) -> Result<Vec<Part<'t>>> {
    let mut parts = Vec::new();
    let mut invalid = Vec::new();
    let mut rest = tokens;
    while let Some((first, after)) = rest.split_first() {
        if first.is("AND") {
            rest = after;
        } else if let Some((part, length)) = part(*first, after) {
            parts.push(part);
            rest = &rest[length..];
        } else {
            invalid.push(first.raw);
            rest = after;
        }
    }
    if invalid.is_empty() {
        return Ok(parts);
    }
    Err(TrackingError::invalid(match target {
        Target::LoggedModels => format!(
            "Invalid filter string: '{text}'. Expected a list of comparisons separated by 'AND' \
             (e.g. 'metrics.loss > 0.1 AND params.lr = 0.01')."
        ),
        Target::Runs => {
            let invalid: Vec<String> = invalid.iter().map(|raw| format!("'{raw}'")).collect();
            format!("Invalid clause(s) in filter string: {}", invalid.join(", "))
        }
        _ => format!("Invalid clause(s) in filter string: {}", invalid.join(", ")),
    }))
}

/// The clause that tokens begin with, and how many it takes.
fn part<'t>(left: Token<'t>, after: &[Token<'t>]) -> Option<(Part<'t>, usize)> {
    let of = |operator: &str, right: Option<Token<'t>>, length| {
        let operator = operator.to_ascii_uppercase();
        Some((
            Part {
                left,
                operator,
                right,
            },
            length,
        ))
    };
    let is_name = left.kind == Kind::Name;
    match after {
        [operator, right, ..]
            if is_operand(&left) && operator.kind == Kind::Operator && is_operand(right) =>
        {
            of(operator.raw, Some(*right), 3)
        }
        [not, operator, right, ..]
            if is_operand(&left) && not.is("NOT") && operator.kind == Kind::Operator && is_operand(right) =>
        {
            of(&format!("NOT {}", operator.raw), Some(*right), 4)
        }
        [word, list, ..] if is_name && word.is("IN") && list.kind == Kind::Parenthesis => {
            of("IN", Some(*list), 3)
        }
        [not, word, list, ..]
            if is_name && not.is("NOT") && word.is("IN") && list.kind == Kind::Parenthesis =>
        {
            of("NOT IN", Some(*list), 4)
        }
        [is, null, ..] if is_name && is.is("IS") && null.is("NULL") => of("IS NULL", None, 3),
        [is, not, null, ..] if is_name && is.is("IS") && not.is("NOT") && null.is("NULL") => {
            of("IS NOT NULL", None, 4)
        }
        _ => None,
    }
}

/// What a name in a filter or an order stands for.
pub(super) enum Named {
    Subject(Subject),
    Attribute(&'static Known),
}

/// Reads a name.
pub(super) fn named(target: Target, raw: &str, attributes: &'static [Known]) -> Result<Named> {
    let (entity, key) = match raw.split_once('.') {
        Some((entity, key)) => (unquoted(entity, '`'), key),
        None => ("attribute", raw),
    };
    let key = unquoted(unquoted(unquoted(key, '\''), '"'), '`');
    let has_runs_entities = matches!(target, Target::Runs | Target::LoggedModels);
    match entity {
        "attribute" | "attributes" | "attr" | "run" => {
            let known = find(attributes, key);
            known.map(Named::Attribute).ok_or_else(|| {
                TrackingError::invalid(format!(
                    "Invalid attribute key '{key}' specified. Valid keys are '{}'",
                    names(attributes)
                ))
            })
        }
        "tag" | "tags" => Ok(Named::Subject(Subject::Tag(key.to_owned()))),
        "metric" | "metrics" if has_runs_entities => Ok(Named::Subject(Subject::Metric(key.to_owned()))),
        "param" | "params" | "parameter" | "parameters" if has_runs_entities => {
            Ok(Named::Subject(Subject::Param(key.to_owned())))
        }
        "dataset" | "datasets" if target == Target::Runs => match key.parse::<DatasetField>() {
            Ok(field) => Ok(Named::Subject(Subject::Dataset(field))),
            Err(_) => Err(TrackingError::invalid(format!(
                "Invalid dataset key '{key}' specified. Valid keys are '{{'name', 'digest', 'context'}}'"
            ))),
        },
        _ => Err(TrackingError::invalid(match target {
            Target::Runs => format!(
                "Invalid entity type '{entity}'. \
                 Valid values are ['metric', 'parameter', 'tag', 'attribute', 'dataset']"
            ),
            Target::LoggedModels => format!(
                "Invalid entity type: '{entity}'. \
                 Expected one of ['attributes', 'metrics', 'params', 'tags']."
            ),
            _ => {
                format!("Invalid entity type '{entity}'. Valid entity types are ('attribute', 'tag', 'tags')")
            }
        })),
    }
}

/// Without the quotes around it.
fn unquoted(text: &str, quote: char) -> &str {
    text.strip_prefix(quote)
        .and_then(|rest| rest.strip_suffix(quote))
        .unwrap_or(text)
}

fn clause(target: Target, part: &Part<'_>) -> Result<Clause> {
    if part.left.kind != Kind::Name {
        return Err(TrackingError::invalid(format!(
            "Invalid comparison clause. Expected 'Identifier' found '{}'",
            part.left.raw
        )));
    }
    let named = named(target, part.left.raw, target.filtered())?;
    let reading = Reading {
        target,
        operator: &part.operator,
        name: part.left.raw,
    };
    let Some(right) = &part.right else {
        return reading.presence(named);
    };
    if target == Target::LoggedModels {
        reading.check_operator(&named)?;
    }
    match named {
        Named::Attribute(known) => Ok(Clause {
            subject: Subject::Attribute(known.attribute),
            test: reading.of_attribute(known, right)?,
        }),
        Named::Subject(subject) => {
            let test = match &subject {
                Subject::Metric(_) => reading.of_metric(right)?,
                Subject::Dataset(field) => reading.of_dataset(*field, right)?,
                Subject::Param(_) => reading.of_key("parameter", right)?,
                _ => reading.of_key("tag", right)?,
            };
            Ok(Clause { subject, test })
        }
    }
}

const NUMBER_OPERATORS: &str = "{'>', '>=', '!=', '=', '<', '<='}";
const TEXT_OPERATORS: &str = "{'!=', '=', 'LIKE', 'ILIKE'}";
const LIST_OPERATORS: &str = "{'!=', '=', 'LIKE', 'ILIKE', 'IN', 'NOT IN'}";

/// A clause whose name is known.
struct Reading<'p> {
    target: Target,
    operator: &'p str,
    name: &'p str,
}

impl Reading<'_> {
    fn presence(&self, named: Named) -> Result<Clause> {
        let test = match self.operator {
            "IS NULL" => Test::IsNull,
            _ => Test::IsNotNull,
        };
        let refused = match (self.target, named) {
            (target, Named::Subject(subject @ (Subject::Tag(_) | Subject::Param(_))))
                if target.asks_for_presence() =>
            {
                return Ok(Clause { subject, test });
            }
            (Target::Runs, _) => format!(
                "IS NULL / IS NOT NULL is only supported for tags and params, not for '{}'",
                self.name
            ),
            (Target::Experiments, _) => format!(
                "IS NULL / IS NOT NULL is only supported for tags, not for attribute '{}'",
                self.name
            ),
            _ => format!(
                "Invalid clause(s) in filter string: '{} {}'",
                self.name, self.operator
            ),
        };
        Err(TrackingError::invalid(refused))
    }

    /// Searches of logged models look at the operator before the value.
    fn check_operator(&self, named: &Named) -> Result<()> {
        let is_number = match named {
            Named::Attribute(known) => known.is_number,
            Named::Subject(subject) => matches!(subject, Subject::Metric(_)),
        };
        let is_valid = if is_number {
            self.operator.parse::<Compare>().is_ok()
        } else {
            ["=", "!=", "LIKE", "ILIKE", "IN", "NOT IN"].contains(&self.operator)
        };
        if is_valid {
            return Ok(());
        }
        Err(TrackingError::invalid(format!(
            "Invalid comparison operator for {}: '{}'. Expected one of {}.",
            self.name,
            self.operator,
            if is_number {
                "('<', '<=', '>', '>=', '=', '!=')"
            } else {
                "('=', '!=', 'LIKE', 'ILIKE', 'IN', 'NOT IN')"
            }
        )))
    }

    fn bad_operator(&self, valid: &str) -> TrackingError {
        TrackingError::invalid(format!(
            "Invalid comparator '{}' not one of '{valid}'",
            self.operator
        ))
    }

    fn number_test(&self, raw: &str) -> Result<Test> {
        let compare: Compare = self
            .operator
            .parse()
            .map_err(|_| self.bad_operator(NUMBER_OPERATORS))?;
        let number: f64 = raw
            .parse()
            .map_err(|_| TrackingError::invalid(format!("Invalid number `{raw}` in the filter.")))?;
        // Infinities are stored as the largest numbers.
        Ok(Test::Number(compare, number.clamp(f64::MIN, f64::MAX)))
    }

    fn of_metric(&self, right: &Token<'_>) -> Result<Test> {
        if right.kind != Kind::Number {
            return Err(TrackingError::invalid(format!(
                "Expected numeric value type for metric. Found {}",
                right.raw
            )));
        }
        self.number_test(right.raw)
    }

    fn of_key(&self, entity: &str, right: &Token<'_>) -> Result<Test> {
        match right.kind {
            Kind::Text | Kind::Name => self.text_test(right.raw, TEXT_OPERATORS),
            Kind::Parenthesis if self.target == Target::LoggedModels => self.list_test(right.raw),
            _ => Err(TrackingError::invalid(format!(
                "Expected a quoted string value for {entity} (e.g. 'my-value'). Got value {}",
                right.raw
            ))),
        }
    }

    fn of_dataset(&self, _: DatasetField, right: &Token<'_>) -> Result<Test> {
        match right.kind {
            Kind::Text | Kind::Name => self.text_test(right.raw, LIST_OPERATORS),
            Kind::Parenthesis => self.list_test(right.raw),
            _ => Err(TrackingError::invalid(format!(
                "Expected a quoted string value for dataset attributes. Got value {}",
                right.raw
            ))),
        }
    }

    fn of_attribute(&self, known: &Known, right: &Token<'_>) -> Result<Test> {
        if known.is_number {
            let in_registry = self.target == Target::ModelVersions;
            let raw = match right.kind {
                Kind::Number => right.raw,
                Kind::Text if in_registry => unquoted(right.raw, '\''),
                _ => {
                    return Err(TrackingError::invalid(format!(
                        "Expected numeric value type for numeric attribute: {}. Found {}",
                        known.names[0], right.raw
                    )));
                }
            };
            return self.number_test(raw);
        }
        match right.kind {
            Kind::Text | Kind::Name => self.text_test(right.raw, LIST_OPERATORS),
            Kind::Parenthesis if self.target.takes_list(known.attribute) => self.list_test(right.raw),
            Kind::Parenthesis => Err(TrackingError::invalid(self.no_list())),
            Kind::Number if self.target == Target::ModelVersions => Err(TrackingError::invalid(format!(
                "Only the '{{'version_number'}}' attributes support comparison with numeric values. \
                     Got value {} for {}",
                right.raw, known.names[0]
            ))),
            _ if self.target == Target::RegisteredModels => Err(TrackingError::invalid(format!(
                "Expected a quoted string value or a list of quoted string values for attributes. Got value {}",
                right.raw
            ))),
            _ => Err(TrackingError::invalid(format!(
                "Expected a quoted string value for attributes. Got value {}",
                right.raw
            ))),
        }
    }

    fn no_list(&self) -> String {
        match self.target.lists() {
            [Attribute::RunId] => {
                "Only the 'run_id' attribute supports comparison with a list of quoted string values."
                    .to_owned()
            }
            lists => {
                let names: Vec<String> = lists.iter().map(|name| format!("'{name}'")).collect();
                format!(
                    "Only [{}] attributes support comparison with a list of quoted string values.",
                    names.join(", ")
                )
            }
        }
    }

    fn text_test(&self, raw: &str, valid: &str) -> Result<Test> {
        let is_quoted = raw.len() >= 2
            && ['\'', '"']
                .iter()
                .any(|q| raw.starts_with(*q) && raw.ends_with(*q));
        if !is_quoted {
            return Err(TrackingError::invalid(format!(
                "Parameter value is either not quoted or unidentified quote types used for string value {raw}. \
                 Use either single or double quotes."
            )));
        }
        let text = raw[1..raw.len() - 1].to_owned();
        match self.operator {
            "=" => Ok(Test::Equals(text)),
            "!=" => Ok(Test::Differs(text)),
            "LIKE" | "ILIKE" if text.len() > PATTERN_BYTES => Err(TrackingError::invalid(format!(
                "Invalid pattern in the filter: it has {} bytes; at most {PATTERN_BYTES} are allowed.",
                text.len()
            ))),
            "LIKE" => Ok(Test::Like(text)),
            "ILIKE" => Ok(Test::Ilike(text)),
            _ => Err(self.bad_operator(valid)),
        }
    }

    fn list_test(&self, raw: &str) -> Result<Test> {
        let texts = list::texts(raw)?;
        match self.operator {
            "IN" => Ok(Test::In(texts)),
            "NOT IN" => Ok(Test::NotIn(texts)),
            _ => Err(TrackingError::invalid(format!(
                "Invalid comparator '{}' for a list; use IN or NOT IN.",
                self.operator
            ))),
        }
    }
}
