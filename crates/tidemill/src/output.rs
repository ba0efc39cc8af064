//! How commands print: a table or lines for people, JSON for programs.

use comfy_table::{ContentArrangement, Table, presets};
use tidemill_control::view::Month;

/// A table in the house's style.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    table
}

/// A number with three decimals, or a dash.
pub fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.3}"))
}

/// The months of an endpoint's life.
pub fn months(metric: &str, months: &[Month]) -> Table {
    let (frozen, served) = (format!("frozen {metric}"), format!("tidemill {metric}"));
    let mut table = table(&[
        "month",
        &frozen,
        &served,
        "difference",
        "predictions",
        "labels",
        "retrainings",
        "gate refusals",
        "undecided",
        "rollouts",
        "rolled back",
    ]);
    for m in months {
        let difference = m.frozen.zip(m.champion).map(|(f, c)| format!("{:+.3}", c - f));
        table.add_row([
            m.month.clone(),
            number(m.frozen),
            number(m.champion),
            difference.unwrap_or_else(|| "–".into()),
            m.predictions.to_string(),
            m.labels.to_string(),
            m.retrainings.to_string(),
            m.refused.to_string(),
            m.inconclusive.to_string(),
            m.promoted.to_string(),
            m.rolled_back.to_string(),
        ]);
    }
    table
}
