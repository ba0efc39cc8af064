//! Settings of tracing and logging, which Triton lets clients change: here they are the operator's, given at the start.

use crate::error::ApiError;

/// The settings of tracing, under Triton's names: requests are not traced into files.
pub(crate) const TRACE: [(&str, &[&str]); 6] = [
    ("trace_file", &[""]),
    ("trace_level", &["OFF"]),
    ("trace_rate", &["1000"]),
    ("trace_count", &["-1"]),
    ("log_frequency", &["0"]),
    ("trace_mode", &["triton"]),
];

/// The value of a setting of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Flag(bool),
    Level(u32),
    Text(&'static str),
}

/// The settings of the log, under Triton's names.
pub(crate) fn log() -> [(&'static str, Setting); 6] {
    [
        ("log_file", Setting::Text("")),
        ("log_info", Setting::Flag(tracing::enabled!(tracing::Level::INFO))),
        ("log_warning", Setting::Flag(true)),
        ("log_error", Setting::Flag(true)),
        (
            "log_verbose_level",
            Setting::Level(tracing::enabled!(tracing::Level::DEBUG).into()),
        ),
        ("log_format", Setting::Text("default")),
    ]
}

/// Says that a setting is not for clients.
pub(crate) fn fixed(name: &str) -> ApiError {
    ApiError::bad_request(
        "fixed_setting",
        format!(
            "setting `{name}` cannot be changed by a client: start the server with `-v` or `TIDEMILL_LOG` for another log; requests \
             are not traced into files"
        ),
    )
}
