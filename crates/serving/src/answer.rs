//! Who answers each row, and who steps in when that one fails. No clock, no log, no async: `(route, rows) → answers`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tidemill_core::digest::sticky_position;
use tidemill_core::frame::{Column, Frame, Scores};
use tidemill_core::ids::VersionNumber;
use tidemill_core::ports::{Blame, Model, PortError};
use tidemill_core::predictions::{Role, ShadowScores};
use tidemill_core::servable::Deadline;
use tidemill_core::spec::UnseenPolicy;

use crate::error::ServeError;
use crate::guard::{Finding, SchemaError};
use crate::hosting::routing::conditions::Found;
use crate::inputs::{self, Fitting};
use crate::metrics::{Counter, Counters};
use crate::pressure::Pressure;
use crate::routing::{Deployment, Route, Step};

/// How `degraded` starts for a row that was the canary's and that it failed to answer.
pub const CANARY_FAILED: &str = "canary failed: ";
/// How the part of `degraded` starts that tells of the champion's failure.
pub const CHAMPION_FAILED: &str = "champion failed: ";
/// How the part of `degraded` starts that tells of the previous champion's failure.
pub const PREVIOUS_FAILED: &str = "previous champion failed: ";
/// What `degraded` says of a default answer that was given because the endpoint has no champion yet.
pub const NO_MODEL_YET: &str = "no model yet";
/// How `degraded` starts for a row that a version was not asked, because of its values.
pub const NOT_ASKED: &str = "not asked: ";

/// How the part of `degraded` starts that tells of the failure of a version that the chain names.
const FALLBACK_FAILED: &str = "fallback failed: ";

/// A model is asked for so many rows at once, where there is a deadline.
const PART_ROWS: usize = 16_384;
const LATE: &str = "deadline_passed";

/// What is asked, once the request is checked.
#[derive(Debug)]
pub(crate) struct Ask {
    pub request_id: String,
    pub rows: Frame,
    /// One a row.
    pub keys: Vec<Option<Arc<str>>>,
    pub version: Option<VersionNumber>,
    pub deadline: Option<Deadline>,
}

/// What is answered; one entry a row.
#[derive(Debug)]
pub(crate) struct Answered {
    pub versions: Vec<VersionNumber>,
    pub roles: Vec<Role>,
    pub degraded: Vec<Option<Arc<str>>>,
    pub scores: Scores,
    pub canary_share: f64,
    pub shadows: Vec<ShadowScores>,
}

pub(crate) fn answer(
    route: &Route,
    ask: &Ask,
    counters: &Counters,
    pressure: Pressure,
) -> Result<Answered, ServeError> {
    if ask.deadline.is_some_and(|deadline| deadline.passed()) {
        return Err(late(route, "it was over before a model was asked"));
    }
    let rows = &ask.rows;
    inputs::check_nulls(route.inputs, rows)?;
    let mut sheet = Sheet::new(route, rows, counters, ask.deadline);
    let mut canary_share = 0.0;
    if let Some(version) = ask.version {
        let (deployment, role) = asked_for(route, version)?;
        sheet.fill(
            (0..rows.rows()).collect(),
            Attempt::of(deployment, role, "", None),
        );
    } else {
        let (canary_rows, champion_rows) = split(route, ask);
        // A version that has most of the traffic is no trial any more.
        let trial = route.canary.as_ref().is_some_and(|canary| canary.share < 0.5);
        if pressure >= Pressure::Canary && trial && champion_rows.is_empty() {
            return Err(ServeError::Overloaded {
                endpoint: route.endpoint.clone(),
                why: "this machine is behind, and the units of a version under trial wait first".to_owned(),
            });
        }
        canary_share = route.canary.as_ref().map_or(0.0, |canary| canary.share);
        by_fallbacks(route, &mut sheet, canary_rows, champion_rows);
    }
    let (versions, roles, degraded, scores) = sheet.finish()?;
    let in_time = !ask.deadline.is_some_and(|deadline| deadline.passed());
    Ok(Answered {
        versions,
        roles,
        degraded,
        scores,
        canary_share,
        shadows: if pressure < Pressure::Shadows && in_time {
            shadows(route, rows, counters)
        } else {
            counters.shadows_shed.add(u64::from(!route.shadows.is_empty()));
            Vec::new()
        },
    })
}

fn late(route: &Route, stage: &'static str) -> ServeError {
    ServeError::DeadlinePassed {
        endpoint: route.endpoint.clone(),
        stage,
    }
}

/// The rows of the canary and those of the champion, by each unit's sticky position.
fn split(route: &Route, ask: &Ask) -> (Vec<usize>, Vec<usize>) {
    let rows = 0..ask.rows.rows();
    let Some(canary) = &route.canary else {
        return (Vec::new(), rows.collect());
    };
    rows.partition(|&row| {
        let position = match &ask.keys[row] {
            Some(key) => sticky_position(&canary.salt, key),
            None => sticky_position(&canary.salt, &format!("{}:{row}", ask.request_id)),
        };
        position < canary.share
    })
}

/// Canary → champion → previous → the endpoint's own chain → default: each gets the rows that the one before failed to answer, or was
/// not asked because of their values.
fn by_fallbacks(route: &Route, sheet: &mut Sheet<'_>, canary_rows: Vec<usize>, mut rows: Vec<usize>) {
    let counters = sheet.counters;
    if let Some(canary) = &route.canary {
        let counter = &counters.canary_failed_rows;
        let attempt = Attempt::of(&canary.deployment, Role::Canary, CANARY_FAILED, Some(counter));
        rows.extend(sheet.fill(canary_rows, attempt));
        rows.sort_unstable();
    }
    match &route.champion {
        Some(champion) => {
            let counter = &counters.champion_failed_rows;
            let attempt = Attempt::of(champion, Role::Champion, CHAMPION_FAILED, Some(counter));
            rows = sheet.fill(rows, attempt);
        }
        None => sheet.note(&rows, NO_MODEL_YET),
    }
    let champion = route.champion.as_ref().map(|champion| champion.version);
    let previous = route.previous.as_ref();
    let previous = previous.filter(|previous| Some(previous.version) != champion);
    if let Some(previous) = previous {
        let counter = &counters.previous_failed_rows;
        let attempt = Attempt::of(previous, Role::Previous, PREVIOUS_FAILED, Some(counter));
        rows = sheet.fill(rows, attempt);
    }
    let asked = [champion, previous.map(|previous| previous.version)];
    for step in &route.fallback {
        match step {
            // It was asked before, under another name.
            Step::Version(deployment) if asked.contains(&Some(deployment.version)) => {}
            Step::Version(deployment) => {
                let open = rows.len();
                let attempt = Attempt::of(deployment, Role::Fallback, FALLBACK_FAILED, None);
                rows = sheet.fill(rows, attempt);
                counters.fallback_rows.add((open - rows.len()) as u64);
            }
            Step::Rule(rule) => {
                let column = &sheet.rows.columns()[rule.feature];
                let holds = |row: &usize| value_at(column, *row).is_some_and(|value| value.fits(&rule.when));
                let (answered, left) = rows.into_iter().partition(holds);
                rows = left;
                sheet.fill_fixed(answered, Role::Default, &rule.answer, &counters.rule_rows);
            }
            Step::Abstain => {
                let nothing = vec![f64::NAN; route.width()];
                let open = std::mem::take(&mut rows);
                sheet.fill_fixed(open, Role::Abstained, &nothing, &counters.abstained_rows);
            }
        }
    }
    if let Some(default) = &route.default {
        sheet.fill_fixed(rows, Role::Default, default, &counters.default_rows);
    }
}

/// A row's value, as conditions see it; `None` if it is missing.
fn value_at(column: &Column, row: usize) -> Option<Found<'_>> {
    match column {
        Column::Numeric(values) => Some(values[row])
            .filter(|number| !number.is_nan())
            .map(Found::Number),
        Column::Categorical(values) => values[row]
            .as_deref()
            .map(|text| Found::Text(Cow::Borrowed(text))),
    }
}

/// The deployment of a version asked for by number. A shadow asked for answers as a canary of no share.
fn asked_for(route: &Route, version: VersionNumber) -> Result<(&Arc<Deployment>, Role), ServeError> {
    let canary = route.canary.as_ref().map(|canary| &canary.deployment);
    let champion = route
        .champion
        .iter()
        .map(|deployment| (deployment, Role::Champion));
    let canary = canary.into_iter().map(|deployment| (deployment, Role::Canary));
    let chain = route.fallback.iter().filter_map(|step| match step {
        Step::Version(deployment) => Some((deployment, Role::Fallback)),
        Step::Rule(_) | Step::Abstain => None,
    });
    let previous = route
        .previous
        .iter()
        .map(|deployment| (deployment, Role::Previous));
    let shadows = route.shadows.iter().map(|deployment| (deployment, Role::Canary));
    champion
        .chain(canary)
        .chain(previous)
        .chain(shadows)
        .chain(chain)
        .find(|(deployment, _)| deployment.version == version)
        .ok_or_else(|| ServeError::UnknownVersion {
            endpoint: route.endpoint.clone(),
            version,
            loaded: route.versions(),
        })
}

/// A shadow that fails is absent and counted; it never harms the answer.
fn shadows(route: &Route, rows: &Frame, counters: &Counters) -> Vec<ShadowScores> {
    let mut answers = Vec::with_capacity(route.shadows.len());
    for shadow in &route.shadows {
        match of_shadow(route, shadow, rows) {
            Ok(scores) => answers.extend(scores.map(|scores| ShadowScores {
                version: shadow.version,
                scores,
            })),
            Err(error) => {
                counters.shadow_failures.add(1);
                tracing::warn!(endpoint = %route.endpoint, version = %shadow.version, %error, "a shadow failed");
            }
        }
    }
    answers
}

/// A shadow's scores, NaN for rows that it may not be asked; `None` if that is all of them.
fn of_shadow(route: &Route, shadow: &Deployment, rows: &Frame) -> Result<Option<Scores>, PortError> {
    let all = (0..rows.rows()).collect();
    let fitting = inputs::fitting(route.inputs, rows, all, shadow.model.as_ref());
    if fitting.rows.is_empty() {
        return Ok(None);
    }
    let scores = guarded(route, shadow, &shown(rows, &fitting), None)?;
    if fitting.unfit.is_empty() {
        return Ok(Some(scores));
    }
    let width = route.width();
    let mut values = vec![f64::NAN; rows.rows() * width];
    for (i, &row) in fitting.rows.iter().enumerate() {
        values[row * width..(row + 1) * width].copy_from_slice(scores.row(i));
    }
    Ok(Some(scores.with_values(values)))
}

/// The rows that a version may be asked, as it is shown them.
fn shown<'a>(rows: &'a Frame, fitting: &Fitting) -> Cow<'a, Frame> {
    let mut shown = Cow::Borrowed(rows);
    if !fitting.blanked.is_empty() {
        shown = Cow::Owned(rows.blanked(&fitting.blanked));
    }
    if fitting.rows.len() < rows.rows() {
        shown = Cow::Owned(shown.take(&fitting.rows));
    }
    shown
}

/// One deployment's turn.
struct Attempt<'a> {
    deployment: &'a Deployment,
    role: Role,
    reason: &'static str,
    failures: Option<&'a Counter>,
}

impl<'a> Attempt<'a> {
    fn of(
        deployment: &'a Deployment,
        role: Role,
        reason: &'static str,
        failures: Option<&'a Counter>,
    ) -> Self {
        Self {
            deployment,
            role,
            reason,
            failures,
        }
    }
}

/// The answers so far.
struct Sheet<'a> {
    route: &'a Route,
    rows: &'a Frame,
    counters: &'a Counters,
    deadline: Option<Deadline>,
    /// The deadline has passed while models worked: nobody is asked any more.
    late: bool,
    /// What the endpoint's rules refuse: nobody is asked any more.
    refused: SchemaError,
    /// What does not fit in rows that a version was not asked.
    unfit: BTreeMap<usize, Finding>,
    versions: Vec<VersionNumber>,
    /// `None` where nobody has answered yet.
    roles: Vec<Option<Role>>,
    degraded: Vec<Option<Arc<str>>>,
    values: Vec<f64>,
}

impl<'a> Sheet<'a> {
    fn new(route: &'a Route, rows: &'a Frame, counters: &'a Counters, deadline: Option<Deadline>) -> Self {
        let count = rows.rows();
        Self {
            route,
            rows,
            counters,
            deadline,
            late: false,
            refused: SchemaError::default(),
            unfit: BTreeMap::new(),
            versions: vec![VersionNumber::DEFAULT; count],
            roles: vec![None; count],
            degraded: vec![None; count],
            values: Vec::new(),
        }
    }

    /// Whether nobody is to be asked any more.
    fn stopped(&mut self) -> bool {
        self.late |= self.deadline.is_some_and(|deadline| deadline.passed());
        self.late || !self.refused.findings.is_empty()
    }

    /// Lets a deployment answer `rows`; returns the rows that are still open, in order.
    fn fill(&mut self, rows: Vec<usize>, attempt: Attempt<'_>) -> Vec<usize> {
        if rows.is_empty() || self.stopped() {
            return rows;
        }
        let model = attempt.deployment.model.as_ref();
        let fitting = inputs::fitting(self.route.inputs, self.rows, rows, model);
        let mut open = self.set_aside(&fitting.unfit);
        if fitting.rows.is_empty() || !self.refused.findings.is_empty() {
            return open;
        }
        let shown = shown(self.rows, &fitting);
        let rows = fitting.rows;
        match guarded(self.route, attempt.deployment, &shown, self.deadline) {
            Ok(scores) => {
                let all = rows.len() == self.rows.rows();
                if all {
                    self.values = scores.values().to_vec();
                }
                for (i, &row) in rows.iter().enumerate() {
                    self.versions[row] = attempt.deployment.version;
                    self.roles[row] = Some(attempt.role);
                    if !all {
                        self.set_values(row, scores.row(i));
                    }
                }
                return open;
            }
            Err(error) if error.code == LATE => self.late = true,
            Err(error) => {
                let (endpoint, version) = (&self.route.endpoint, attempt.deployment.version);
                tracing::warn!(%endpoint, %version, role = ?attempt.role, %error, rows = rows.len(), "a deployment failed");
                if let Some(failures) = attempt.failures {
                    failures.add(rows.len() as u64);
                }
                if self.route.keep.redact.is_empty() {
                    self.note(&rows, &format!("{}{error}", attempt.reason));
                } else {
                    // Its message may repeat a value that must not be recorded, and nobody can tell where in it.
                    self.note(&rows, &format!("{}{}", attempt.reason, error.code));
                }
            }
        }
        open.extend(rows);
        open.sort_unstable();
        open
    }

    /// Remembers rows that a version is not asked because of their values.
    fn set_aside(&mut self, unfit: &[(usize, Finding)]) -> Vec<usize> {
        for (row, finding) in unfit {
            if self.route.inputs.unseen == UnseenPolicy::Refuse {
                self.refused.push(finding.clone());
            } else if !self.unfit.contains_key(row) {
                self.counters.unfit_rows.add(1);
                self.note(&[*row], &self.reason(finding));
                self.unfit.insert(*row, finding.clone());
            }
        }
        unfit.iter().map(|(row, _)| *row).collect()
    }

    /// Why a row is not asked, in words that may be recorded. They are the answer's, too: a repeated request gets what was recorded.
    fn reason(&self, finding: &Finding) -> String {
        let (schema, redact) = (&self.route.schema, &self.route.keep.redact);
        let secret = |place: &usize| {
            schema
                .features
                .get(*place)
                .is_some_and(|f| f.name == finding.field)
        };
        if redact.iter().any(secret) {
            let (field, expected) = (&finding.field, &finding.expected);
            return format!("{NOT_ASKED}field `{field}` is not {expected}");
        }
        format!("{NOT_ASKED}{}", finding.message)
    }

    /// Gives rows an answer that no model made.
    fn fill_fixed(&mut self, rows: Vec<usize>, role: Role, answer: &[f64], counter: &Counter) {
        if rows.is_empty() || self.stopped() {
            return;
        }
        if answer.len() != self.route.width() {
            let (got, expected) = (answer.len(), self.route.width());
            self.note(
                &rows,
                &format!("the default answer has {got} numbers, expected {expected}"),
            );
            return;
        }
        counter.add(rows.len() as u64);
        for row in rows {
            self.roles[row] = Some(role);
            self.set_values(row, answer);
        }
    }

    fn set_values(&mut self, row: usize, values: &[f64]) {
        let width = self.route.width();
        self.values.resize(self.rows.rows() * width, 0.0);
        self.values[row * width..(row + 1) * width].copy_from_slice(values);
    }

    /// Adds what went wrong to the rows; rows with the same story share its text.
    fn note(&mut self, rows: &[usize], what: &str) {
        let mut last: Option<(Option<Arc<str>>, Arc<str>)> = None;
        for &row in rows {
            let before = self.degraded[row].take();
            let after = match &last {
                Some((old, new)) if *old == before => Arc::clone(new),
                _ => match &before {
                    Some(before) => Arc::from(format!("{before}; {what}")),
                    None => Arc::from(what),
                },
            };
            self.degraded[row] = Some(Arc::clone(&after));
            last = Some((before, after));
        }
    }

    #[allow(clippy::type_complexity)] // the four columns of the sheet, taken apart once
    fn finish(
        mut self,
    ) -> Result<(Vec<VersionNumber>, Vec<Role>, Vec<Option<Arc<str>>>, Scores), ServeError> {
        if self.stopped() && self.late {
            return Err(late(self.route, "models were at work on its rows"));
        }
        if !self.refused.findings.is_empty() {
            return Err(self.refused.into());
        }
        let endpoint = self.route.endpoint.clone();
        let mut roles = Vec::with_capacity(self.roles.len());
        for (row, role) in self.roles.iter().enumerate() {
            let Some(role) = role else {
                // No rule took it: the caller can do something about it.
                if let Some(finding) = self.unfit.remove(&row) {
                    return Err(SchemaError::of(finding).into());
                }
                let reasons = self.degraded[row].as_deref().unwrap_or_default();
                return Err(if reasons == NO_MODEL_YET {
                    ServeError::NoModel { endpoint }
                } else {
                    let reasons = reasons.to_owned();
                    ServeError::AllFailed { endpoint, reasons }
                });
            };
            roles.push(*role);
        }
        let scores = self.route.scores(self.values);
        Ok((self.versions, roles, self.degraded, scores))
    }
}

/// Asks a deployment, unless it has failed too often of late.
fn guarded(
    route: &Route,
    deployment: &Deployment,
    rows: &Frame,
    deadline: Option<Deadline>,
) -> Result<Scores, PortError> {
    if !deployment.breaker.admits() {
        let version = deployment.version;
        return Err(PortError::internal(
            "model_broken",
            format!("version {version} has failed time and again and is left alone for some seconds"),
        ));
    }
    let answer = checked(route, deployment, rows, deadline);
    match &answer {
        Ok(_) => deployment.breaker.answered(),
        // What the caller sent is nobody else's fault.
        Err(error) if error.blame == Blame::Caller => {}
        Err(_) => {
            if deployment.breaker.failed() {
                let (endpoint, version) = (&route.endpoint, deployment.version);
                tracing::warn!(%endpoint, %version, "a deployment fails time and again and is left alone for some seconds");
            }
        }
    }
    answer
}

/// Calls a model and checks its answer: a panic, another shape or a number that is not finite is a failure like any other.
fn checked(
    route: &Route,
    deployment: &Deployment,
    rows: &Frame,
    deadline: Option<Deadline>,
) -> Result<Scores, PortError> {
    let broken = |message: String| PortError::internal("model_broken", message);
    let version = deployment.version;
    let model = deployment.model.as_ref();
    let scores = catch_unwind(AssertUnwindSafe(|| in_time(model, rows, deadline)))
        .unwrap_or_else(|_| Err(broken(format!("version {version} panicked"))))?;
    if scores.task() != route.task {
        let (got, expected) = (scores.task(), route.task);
        return Err(broken(format!(
            "version {version} answers {got:?}, expected {expected:?}"
        )));
    }
    let scores = match scores {
        Scores::Multiclass {
            classes,
            probabilities,
        } if classes != route.classes => {
            let by_name = in_order_of(&route.classes, &classes, &probabilities);
            by_name.map(|values| route.scores(values)).ok_or_else(|| {
                let known = route.classes.join("`, `");
                broken(format!("version {version} answers classes beyond `{known}`"))
            })?
        }
        scores => scores,
    };
    let (got, expected) = (scores.values().len(), rows.rows() * route.width());
    if got != expected {
        return Err(broken(format!(
            "version {version} gave {got} numbers, expected {expected}"
        )));
    }
    if let Some(place) = scores.values().iter().position(|value| !value.is_finite()) {
        let row = place / route.width().max(1);
        return Err(broken(format!(
            "version {version} gave a number that is not finite for row {row}"
        )));
    }
    Ok(scores)
}

/// Asks a model part by part, so that what nobody waits for any more is left.
fn in_time(model: &dyn Model, rows: &Frame, deadline: Option<Deadline>) -> Result<Scores, PortError> {
    let count = rows.rows();
    let Some(deadline) = deadline.filter(|_| count > PART_ROWS) else {
        return model.predict(rows);
    };
    let mut answered: Option<Scores> = None;
    let mut values = Vec::new();
    for first in (0..count).step_by(PART_ROWS) {
        if deadline.passed() {
            return Err(PortError::caller(LATE, "the request's time is over"));
        }
        let part: Vec<usize> = (first..count.min(first + PART_ROWS)).collect();
        let scores = model.predict(&rows.take(&part))?;
        values.extend_from_slice(scores.values());
        answered.get_or_insert(scores);
    }
    match answered {
        Some(scores) => Ok(scores.with_values(values)),
        None => model.predict(rows),
    }
}

/// Probabilities in another order of classes; a class that the model does not know gets 0. `None` if it knows one that is not wanted.
fn in_order_of(wanted: &[String], classes: &[String], probabilities: &[f64]) -> Option<Vec<f64>> {
    let place = |class: &String| wanted.iter().position(|name| name == class);
    let places: Vec<usize> = classes.iter().map(place).collect::<Option<_>>()?;
    let mut values = Vec::with_capacity(probabilities.len());
    for row in probabilities.chunks(classes.len().max(1)) {
        let start = values.len();
        values.resize(start + wanted.len(), 0.0);
        for (probability, place) in row.iter().zip(&places) {
            values[start + place] = *probability;
        }
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use tidemill_core::frame::Task;

    fn text(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn classes_are_put_in_the_routes_order_and_foreign_ones_refused() {
        let wanted = text(&["a", "b", "c"]);
        let values = in_order_of(&wanted, &text(&["c", "a"]), &[0.1, 0.9, 0.4, 0.6]);
        assert_eq!(values.unwrap(), [0.9, 0.0, 0.1, 0.6, 0.0, 0.4]);
        assert_eq!(in_order_of(&wanted, &text(&["a", "d"]), &[0.5, 0.5]), None);
    }

    #[test]
    fn an_answer_of_another_shape_or_without_a_finite_number_is_a_failure() {
        let rows = testing::frame(3);
        let model = testing::model(f64::NAN);
        let broken = Deployment::new(VersionNumber(4), model);
        let mut route = testing::route();
        let error = guarded(&route, &broken, &rows, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "version 4 gave a number that is not finite for row 0"
        );
        route.task = Task::Regression;
        let error = guarded(&route, &broken, &rows, None).unwrap_err();
        assert_eq!(error.to_string(), "version 4 answers Binary, expected Regression");
    }

    #[test]
    fn a_default_answer_of_the_wrong_width_is_told_instead_of_served() {
        let route = Route {
            default: Some(vec![0.5, 0.5]),
            ..testing::route()
        };
        let ask = Ask {
            request_id: "r".to_owned(),
            rows: testing::frame(1),
            keys: vec![None],
            version: None,
            deadline: None,
        };
        let error = answer(&route, &ask, &Counters::default(), Pressure::None).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the default answer has 2 numbers, expected 1"),
            "{error}"
        );
    }
}
