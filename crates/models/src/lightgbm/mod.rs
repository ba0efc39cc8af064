//! `LightGBM`'s text format (`Booster.save_model`), versions 2 to 4, into the tree engine.
//!
//! Source: `LightGBM` 4.7, `src/boosting/gbdt_model_text.cpp`, `src/io/tree.cpp`, `include/LightGBM/tree.h` and
//! `src/objective/*.hpp`. Linear trees are refused; statistics of the training (gains, weights, counts) are skipped.

mod objective;
mod tree;

use tidemill_core::frame::Task;

use crate::error::{Broken, shorten};
use crate::trees::{Builder, Ensemble, Precision, TreeParts};
use objective::Objective;
use tree::Section;

/// A model file, read.
#[derive(Debug)]
pub(crate) struct LightGbm {
    /// The trees and their link.
    pub ensemble: Ensemble,
    /// What the objective says about the question; `None` if the file has none (a custom objective).
    pub task: Option<Task>,
    /// The inputs' number.
    pub features: usize,
    /// The inputs' names; may be `Column_0` and so on.
    pub feature_names: Vec<String>,
    /// For each input its categories, where training read them from pandas.
    pub categories: Vec<Vec<String>>,
}

/// Reads a text model.
pub(crate) fn parse(text: &str) -> Result<LightGbm, Broken> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()));
    match lines.next() {
        Some((_, "tree")) => {}
        first => {
            return Err(Broken::new(
                1,
                format!(
                    "the first line is `{}`",
                    shorten(first.map_or("", |(_, line)| line))
                ),
                "`tree`, as `Booster.save_model` writes it",
            ));
        }
    }
    let (header, trees) = split_sections(lines)?;
    let shape = Shape::read(&header)?;
    if !trees.len().is_multiple_of(shape.outputs) {
        return Err(Broken::new(
            header.first_line,
            format!("the file holds {} trees", trees.len()),
            format!(
                "a multiple of `num_tree_per_iteration`, {}; the file is cut off",
                shape.outputs
            ),
        ));
    }
    let mut builder = Builder::new(
        shape.features,
        vec![0.0; shape.outputs],
        shape.objective.link,
        Precision::F64,
    );
    for (index, section) in trees.iter().enumerate() {
        let parsed = tree::parse(section, shape.features)?;
        let output = (index % shape.outputs) as u32;
        builder
            .push(TreeParts {
                output,
                nodes: &parsed.nodes,
                leaves: &parsed.leaves,
                width: 1,
                sets: &parsed.sets,
                node_cover: &parsed.node_cover,
                leaf_cover: &parsed.leaf_cover,
            })
            .map_err(|error| {
                Broken::new(
                    section.first_line,
                    error.to_string(),
                    "one tree of splits and leaves",
                )
            })?;
    }
    if shape.average && !trees.is_empty() {
        builder.divide_by((trees.len() / shape.outputs) as f64);
    }
    Ok(LightGbm {
        ensemble: builder.finish(),
        task: shape.objective.task,
        features: shape.features,
        feature_names: shape.feature_names,
        categories: pandas_categories(text, shape.features),
    })
}

/// What the Python package writes after the trees: the levels of each categorical column of a data frame, and in the parameters
/// which columns these are. Files without them are whole too.
fn pandas_categories(text: &str, features: usize) -> Vec<Vec<String>> {
    // A number of features that the file cannot hold is refused where its splits are read.
    let after = |key: &str| text.lines().rev().find_map(|line| line.strip_prefix(key));
    let levels = after("pandas_categorical:")
        .and_then(|json| serde_json::from_str::<Vec<Vec<serde_json::Value>>>(json).ok())
        .unwrap_or_default();
    let columns = after("[categorical_feature: ")
        .map(|list| list.trim_end_matches(']').split(','))
        .into_iter()
        .flatten()
        .map_while(|column| column.trim().parse::<usize>().ok())
        .collect::<Vec<usize>>();
    if levels.len() != columns.len() || columns.iter().any(|&column| column >= features) {
        return Vec::new();
    }
    let last = columns.iter().copied().max().map_or(0, |last| last + 1);
    let mut categories = vec![Vec::new(); last.min(text.len())];
    for (column, levels) in columns.into_iter().zip(levels) {
        let texts = levels.iter().map(|level| match level {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        if let Some(place) = categories.get_mut(column) {
            *place = texts.collect();
        }
    }
    categories
}

/// A file without trees must not ask for memory by its header.
const MOST_OUTPUTS: usize = 1 << 16;

/// What the header says.
struct Shape {
    outputs: usize,
    features: usize,
    feature_names: Vec<String>,
    objective: Objective,
    average: bool,
}

impl Shape {
    fn read(header: &Section<'_>) -> Result<Self, Broken> {
        let (line, version) = header.require("version")?;
        if !["v2", "v3", "v4"].contains(&version) {
            let found = format!("`version` is `{}`", shorten(version));
            return Err(Broken::new(
                line,
                found,
                "v2, v3 or v4; save the model with LightGBM 2.2 or later",
            ));
        }
        let (line, text) = header.require("num_tree_per_iteration")?;
        let outputs: usize = tree::number(line, "num_tree_per_iteration", text)?;
        if !(1..=MOST_OUTPUTS).contains(&outputs) {
            return Err(Broken::new(
                line,
                format!("`num_tree_per_iteration` is {outputs}"),
                format!("1 to {MOST_OUTPUTS}"),
            ));
        }
        let (line, text) = header.require("max_feature_idx")?;
        let last: usize = tree::number(line, "max_feature_idx", text)?;
        let features = last.checked_add(1).ok_or_else(|| {
            Broken::new(
                line,
                "`max_feature_idx` is too large",
                "the number of features less one",
            )
        })?;
        let objective = match header.get("objective") {
            Some((line, text)) => Objective::parse(line, text)?,
            None => Objective::unknown(),
        };
        if objective.outputs.is_some_and(|classes| classes != outputs) {
            return Err(Broken::new(
                header.first_line,
                format!("`num_tree_per_iteration` is {outputs}"),
                "the number of classes that `objective` names",
            ));
        }
        let names = header.get("feature_names").map_or("", |(_, names)| names);
        Ok(Self {
            outputs,
            features,
            feature_names: names.split_ascii_whitespace().map(str::to_owned).collect(),
            objective,
            average: header.get("average_output").is_some(),
        })
    }
}

/// Cuts the file into its header and one section a tree.
fn split_sections<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
) -> Result<(Section<'a>, Vec<Section<'a>>), Broken> {
    let mut header = Section::new(1);
    let mut trees: Vec<Section<'a>> = Vec::new();
    let mut last = 1;
    for (line, text) in lines {
        last = line;
        if text == "end of trees" {
            return Ok((header, trees));
        }
        if text.is_empty() {
            continue;
        }
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key == "Tree" {
            trees.push(Section::new(line));
            continue;
        }
        let section = trees.last_mut().unwrap_or(&mut header);
        section.push(key, line, value);
    }
    Err(Broken::new(
        last,
        "the file ends",
        "`end of trees` after the last tree; the file is cut off",
    ))
}
