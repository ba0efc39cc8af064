//! Tests of experiments, runs and metrics.
