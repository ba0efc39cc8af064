//! From a row's raw sums to its answer.

/// What happens to the sums of an ensemble. Each formula is written as the library that trained the model computes it, so
/// that answers are equal to the last bit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Link {
    /// The sum is the answer.
    Identity,
    /// `1 / (1 + exp(-slope * x))`, for each output on its own.
    Sigmoid {
        /// `LightGBM`'s `sigmoid` parameter; 1 elsewhere.
        slope: f64,
    },
    /// Probabilities that sum to one.
    Softmax,
    /// `exp(x)`: Poisson, gamma and Tweedie regression.
    Exp,
    /// `sign(x) * x * x`: regression on the square root of the label (`reg_sqrt`).
    SignedSquare,
    /// `log(1 + exp(x))`: `cross_entropy_lambda`.
    LogOnePlusExp,
    /// `XGBoost`'s sigmoid, in `float`.
    SigmoidF32,
    /// `XGBoost`'s softmax: exponentials in `float`, their sum in `double`.
    SoftmaxF32,
    /// ONNX Runtime's sigmoid, in `float`.
    LogisticF32,
    /// ONNX Runtime's softmax, all in `float`.
    SoftmaxAllF32,
    /// `exp(x)` in `float`.
    ExpF32,
    /// 1 if above zero, else 0: `binary:hinge`.
    Positive,
    /// `-2^(-x / denominator) - offset`: scikit-learn's `IsolationForest.decision_function`.
    Isolation {
        /// The trees' number times the average depth of a tree.
        denominator: f64,
        /// Where outliers begin.
        offset: f64,
    },
}

impl Link {
    /// Turns the sums of one row into its answer.
    pub fn apply(self, sums: &[f64], row: &mut [f64]) {
        row.copy_from_slice(sums);
        match self {
            Self::Identity => {}
            Self::Sigmoid { slope } => {
                for value in row {
                    *value = 1.0 / (1.0 + (-slope * *value).exp());
                }
            }
            Self::Softmax => softmax(row),
            Self::Exp => {
                for value in row {
                    *value = value.exp();
                }
            }
            Self::SignedSquare => {
                for value in row {
                    let sign = f64::from(i8::from(*value > 0.0) - i8::from(*value < 0.0));
                    *value = sign * *value * *value;
                }
            }
            Self::LogOnePlusExp => {
                for value in row {
                    *value = value.exp().ln_1p();
                }
            }
            Self::SigmoidF32 => {
                for value in row {
                    // `XGBoost` adds 1e-16 to the denominator, which `float` does not notice.
                    *value = f64::from(1.0 / ((-*value as f32).exp() + 1.0));
                }
            }
            Self::Isolation { denominator, offset } => {
                for value in row {
                    *value = -(2.0_f64.powf(-(*value / denominator))) - offset;
                }
            }
            Self::LogisticF32 => {
                for value in row {
                    let sum = *value as f32;
                    let side = 1.0 / (1.0 + (-sum.abs()).exp());
                    *value = f64::from(if sum < 0.0 { 1.0 - side } else { side });
                }
            }
            Self::SoftmaxF32 => softmax_f32(row),
            Self::SoftmaxAllF32 => softmax_all_f32(row),
            Self::ExpF32 => {
                for value in row {
                    *value = f64::from((*value as f32).exp());
                }
            }
            Self::Positive => {
                for value in row {
                    *value = f64::from(u8::from(*value > 0.0));
                }
            }
        }
    }
}

fn softmax(row: &mut [f64]) {
    let largest = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = (*value - largest).exp();
        sum += *value;
    }
    for value in row {
        *value /= sum;
    }
}

fn softmax_f32(row: &mut [f64]) {
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b as f32));
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = f64::from((*value as f32 - largest).exp());
        sum += *value;
    }
    for value in row {
        *value = f64::from(*value as f32 / sum as f32);
    }
}

fn softmax_all_f32(row: &mut [f64]) {
    let largest = row.iter().fold(f32::MIN, |a, &b| a.max(b as f32));
    let mut sum = 0.0_f32;
    for value in row.iter_mut() {
        let grown = (*value as f32 - largest).exp();
        sum += grown;
        *value = f64::from(grown);
    }
    for value in row {
        *value = f64::from(*value as f32 / sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_survives_large_sums() {
        let mut row = [0.0; 3];
        Link::Softmax.apply(&[1000.0, 1001.0, 1002.0], &mut row);
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-15);
        assert!(row[0] < row[1] && row[1] < row[2]);
    }

    #[test]
    fn a_signed_square_keeps_the_sign() {
        let mut row = [0.0; 3];
        Link::SignedSquare.apply(&[-3.0, 0.0, 2.0], &mut row);
        assert_eq!(row, [-9.0, 0.0, 4.0]);
    }
}
