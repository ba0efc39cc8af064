//! Rows told from those that the model knows.

use tidemill_core::ports::PortError;
use tidemill_core::servable::Payload;
use tidemill_core::spec::{OutlierMethod, OutlierNode, cholesky};
use tidemill_core::tensors::{DataType, Tensor, TensorData};

use super::servable::failed;
use super::tensors::{broken, numbers, pick_answers, tensors_of, width};

/// How an outlier node scores rows.
#[derive(Debug)]
pub(super) struct Detector {
    spec: OutlierNode,
    threshold: f64,
    /// The triangle of the covariances.
    lower: Vec<Vec<f64>>,
}

impl Detector {
    pub fn new(spec: &OutlierNode) -> Self {
        let usual = if spec.method == Some(OutlierMethod::Iqr) {
            1.5
        } else {
            3.0
        };
        Self {
            threshold: spec.threshold.unwrap_or(usual),
            lower: cholesky(&spec.covariance).unwrap_or_default(),
            spec: spec.clone(),
        }
    }

    /// The score of each row by the columns' statistics. A missing value says nothing about a row; to Mahalanobis' distance it is the mean.
    pub fn score(&self, input: &Payload) -> Result<Vec<f64>, PortError> {
        let tensors = tensors_of(input.clone())?;
        let mut columns = Vec::with_capacity(self.spec.columns.len());
        for name in self.spec.columns.keys() {
            let column = tensors.iter().find(|tensor| tensor.name == *name);
            let column = column
                .ok_or_else(|| PortError::caller("graph_failed", format!("there is no column `{name}`")))?;
            if width(column) != 1 && column.rows() > 0 {
                return Err(failed(format!(
                    "column `{name}` has shape {:?}, expected one value a row",
                    column.shape
                )));
            }
            columns.push(numbers(column)?);
        }
        let rows = columns.first().map_or(0, Vec::len);
        if columns.iter().any(|column| column.len() != rows) {
            return Err(PortError::caller(
                "graph_failed",
                "the columns have different numbers of rows",
            ));
        }
        let known: Vec<_> = self.spec.columns.values().collect();
        let row_score = |row: usize| {
            let values = columns.iter().map(|column| column[row]).zip(&known);
            match self.spec.method {
                Some(OutlierMethod::Mahalanobis) => {
                    let centred = values.map(|(value, known)| {
                        let difference = value - known.mean.unwrap_or(0.0);
                        if difference.is_nan() { 0.0 } else { difference }
                    });
                    self.distance(&centred.collect::<Vec<f64>>())
                }
                Some(OutlierMethod::Iqr) => values
                    .map(|(value, known)| {
                        let (q1, q3) = (known.q1.unwrap_or(0.0), known.q3.unwrap_or(1.0));
                        (q1 - value).max(value - q3) / (q3 - q1)
                    })
                    .fold(0.0, f64::max),
                _ => values
                    .map(|(value, known)| {
                        (value - known.mean.unwrap_or(0.0)).abs() / known.std.unwrap_or(1.0)
                    })
                    .fold(0.0, f64::max),
            }
        };
        Ok((0..rows).map(row_score).collect())
    }

    /// The length of `L⁻¹·x`, which is Mahalanobis' distance.
    fn distance(&self, centred: &[f64]) -> f64 {
        let mut solved = Vec::with_capacity(centred.len());
        for (row, value) in self.lower.iter().zip(centred) {
            let known: f64 = row.iter().zip(&solved).map(|(l, x): (&f64, &f64)| l * x).sum();
            solved.push((value - known) / row[solved.len()]);
        }
        solved.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    /// The scores that a deployed detector gave.
    pub fn of_answer(&self, answer: &Payload) -> Result<Vec<f64>, PortError> {
        let output = self
            .spec
            .detector
            .as_ref()
            .map_or("", |detector| detector.output.as_str());
        let tensors = tensors_of(answer.clone())?;
        let scores = tensors.iter().find(|tensor| tensor.name == output);
        let scores = scores.ok_or_else(|| failed(format!("the detector gave no output `{output}`")))?;
        if width(scores) != 1 && scores.rows() > 0 {
            return Err(failed(format!(
                "the detector's output `{output}` has shape {:?}, expected one score a row",
                scores.shape
            )));
        }
        numbers(scores)
    }

    /// Which rows are outliers.
    pub fn flags(&self, scores: &[f64]) -> Vec<bool> {
        let low = self.spec.detector.as_ref().is_some_and(|detector| detector.low);
        let beyond = |score: &f64| {
            if low {
                *score < self.threshold
            } else {
                *score > self.threshold
            }
        };
        scores.iter().map(beyond).collect()
    }

    /// The answer with the two columns; outliers get `other`'s answer, or none where they abstain.
    pub fn annotate(
        &self,
        answer: Payload,
        scores: &[f64],
        flags: &[bool],
        other: Option<&Payload>,
    ) -> Result<Payload, PortError> {
        let answer = match other {
            Some(other) => {
                let from: Vec<usize> = flags.iter().map(|flag| usize::from(*flag)).collect();
                pick_answers(&[&answer, other], &from)?
            }
            None => answer,
        };
        let mut tensors = tensors_of(answer)?;
        if self.spec.abstain && flags.contains(&true) {
            for tensor in &mut tensors {
                *tensor = without(tensor, flags)?;
            }
        }
        let rows = vec![scores.len()];
        let marks: Vec<f64> = flags.iter().map(|flag| f64::from(u8::from(*flag))).collect();
        tensors.push(Tensor::of_numbers("outlier", DataType::Bool, rows.clone(), &marks).map_err(broken)?);
        tensors.push(Tensor::of_f64("outlier_score", rows, scores).map_err(broken)?);
        Ok(Payload::Tensors(tensors))
    }
}

/// A tensor without what it says of some rows.
fn without(tensor: &Tensor, flags: &[bool]) -> Result<Tensor, PortError> {
    if tensor.rows() != flags.len() {
        return Err(failed(format!(
            "output `{}` has {} rows for {}",
            tensor.name,
            tensor.rows(),
            flags.len()
        )));
    }
    let step = width(tensor).max(1);
    if let TensorData::Strings(strings) = &tensor.data {
        let kept = strings
            .iter()
            .enumerate()
            .map(|(place, string)| string.clone().filter(|_| !flags[place / step]));
        return Tensor::strings(&tensor.name, tensor.shape.clone(), kept.collect()).map_err(broken);
    }
    let mut values = numbers(tensor)?;
    for (place, value) in values.iter_mut().enumerate() {
        if flags[place / step] {
            // What has no NaN becomes 0.
            *value = f64::NAN;
        }
    }
    if tensor.datatype == DataType::Bool {
        values
            .iter_mut()
            .filter(|value| value.is_nan())
            .for_each(|value| *value = 0.0);
    }
    Tensor::of_numbers(&tensor.name, tensor.datatype, tensor.shape.clone(), &values).map_err(broken)
}
