//! One `Tree=` section.

use std::str::FromStr;

use crate::error::{Broken, shorten};
use crate::trees::{Child, Node, Test};

/// Bits of `decision_type`.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;
/// `(decision_type >> 2) & 3`.
const MISSING_NONE: u8 = 0;
const MISSING_ZERO: u8 = 1;
const MISSING_NAN: u8 = 2;

/// Lines of `key=value`.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// Where it starts.
    pub first_line: usize,
    lines: Vec<(&'a str, usize, &'a str)>,
}

impl<'a> Section<'a> {
    /// An empty section.
    pub fn new(first_line: usize) -> Self {
        Self {
            first_line,
            lines: Vec::new(),
        }
    }

    /// Adds a line.
    pub fn push(&mut self, key: &'a str, line: usize, value: &'a str) {
        self.lines.push((key, line, value));
    }

    /// The line number and value of a key.
    pub fn get(&self, key: &str) -> Option<(usize, &'a str)> {
        let found = self.lines.iter().find(|(name, _, _)| *name == key);
        found.map(|&(_, line, value)| (line, value))
    }

    /// The line number and value of a key that must be there.
    pub fn require(&self, key: &str) -> Result<(usize, &'a str), Broken> {
        self.get(key).ok_or_else(|| {
            Broken::new(
                self.first_line,
                "the section that starts here is short",
                format!("a line `{key}=`"),
            )
        })
    }

    fn array<T: FromStr>(&self, key: &str, expected: usize) -> Result<Array<T>, Broken> {
        let (line, text) = match self.get(key) {
            Some(found) => found,
            // A stump has empty arrays and some versions leave them out.
            None if expected == 0 => (self.first_line, ""),
            None => self.require(key)?,
        };
        let values = text
            .split_ascii_whitespace()
            .map(|word| number(line, key, word))
            .collect::<Result<Vec<T>, Broken>>()?;
        if values.len() != expected {
            let found = format!("`{key}` holds {} values", values.len());
            return Err(Broken::new(line, found, format!("{expected}")));
        }
        Ok(Array { line, values })
    }
}

struct Array<T> {
    line: usize,
    values: Vec<T>,
}

/// A number of a key.
pub(super) fn number<T: FromStr>(line: usize, key: &str, text: &str) -> Result<T, Broken> {
    text.trim().parse().map_err(|_| {
        let expected = if std::any::type_name::<T>() == "f64" {
            "a number"
        } else {
            "a whole number in its range"
        };
        Broken::new(line, format!("`{key}` has `{}`", shorten(text)), expected)
    })
}

/// A tree with positions of its own.
#[derive(Debug)]
pub(super) struct ParsedTree {
    pub nodes: Vec<Node>,
    pub leaves: Vec<f64>,
    pub sets: Vec<u32>,
    /// Training rows a split; empty where the file does not say it.
    pub node_cover: Vec<f64>,
    /// Training rows a leaf.
    pub leaf_cover: Vec<f64>,
}

/// Reads a tree over `features` inputs.
pub(super) fn parse(section: &Section<'_>, features: usize) -> Result<ParsedTree, Broken> {
    if let Some((line, linear)) = section.get("is_linear")
        && linear != "0"
    {
        return Err(Broken::new(
            line,
            "the tree has linear leaves",
            "constant leaves; train with `linear_tree=false`",
        ));
    }
    let (line, text) = section.require("num_leaves")?;
    let leaf_count: usize = number(line, "num_leaves", text)?;
    let splits = leaf_count
        .checked_sub(1)
        .ok_or_else(|| Broken::new(line, "`num_leaves` is 0", "at least 1"))?;
    let (line, text) = section.require("num_cat")?;
    let set_count: usize = number(line, "num_cat", text)?;

    let leaves: Array<f64> = section.array("leaf_value", leaf_count)?;
    if let Some(odd) = leaves.values.iter().find(|value| !value.is_finite()) {
        return Err(Broken::new(
            leaves.line,
            format!("`leaf_value` has `{odd}`"),
            "finite numbers",
        ));
    }
    let split_features: Array<u32> = section.array("split_feature", splits)?;
    if let Some(odd) = split_features
        .values
        .iter()
        .find(|&&feature| feature as usize >= features)
    {
        let found = format!("`split_feature` has {odd}");
        return Err(Broken::new(
            split_features.line,
            found,
            format!("less than {features}, the number of features"),
        ));
    }
    let thresholds: Array<f64> = section.array("threshold", splits)?;
    let kinds: Array<u8> = section.array("decision_type", splits)?;
    let lefts: Array<Child> = section.array("left_child", splits)?;
    let rights: Array<Child> = section.array("right_child", splits)?;
    let sets = Sets::read(section, set_count)?;

    let mut nodes = Vec::with_capacity(splits);
    for split in 0..splits {
        let left = child(&lefts, "left_child", split, leaf_count)?;
        let right = child(&rights, "right_child", split, leaf_count)?;
        let (test, missing) = decision(Decision {
            line: kinds.line,
            kind: kinds.values[split],
            threshold: thresholds.values[split],
            threshold_line: thresholds.line,
            left,
            right,
            sets: &sets,
        })?;
        nodes.push(Node {
            feature: split_features.values[split],
            left,
            right,
            missing,
            test,
        });
    }
    // Only explanations need counts, so a file whose counts make no sense answers all the same.
    let counts = |key: &str, count: usize| {
        section
            .array(key, count)
            .map_or(Vec::new(), |counts| counts.values)
    };
    Ok(ParsedTree {
        nodes,
        leaves: leaves.values,
        sets: sets.words,
        node_cover: counts("internal_count", splits),
        leaf_cover: counts("leaf_count", leaf_count),
    })
}

/// A child must come after its parent, which `LightGBM` guarantees and which makes every walk end.
fn child(children: &Array<Child>, key: &str, parent: usize, leaf_count: usize) -> Result<Child, Broken> {
    let child = children.values[parent];
    let fits = if child >= 0 {
        (child as usize) > parent && (child as usize) < leaf_count - 1
    } else {
        (!child as usize) < leaf_count
    };
    if fits {
        return Ok(child);
    }
    Err(Broken::new(
        children.line,
        format!("`{key}` of split {parent} is {child}"),
        format!(
            "a split from {} to {}, or a leaf from -1 to -{leaf_count}",
            parent + 1,
            leaf_count - 2
        ),
    ))
}

struct Decision<'a> {
    line: usize,
    kind: u8,
    threshold: f64,
    threshold_line: usize,
    left: Child,
    right: Child,
    sets: &'a Sets,
}

/// `Tree::NumericalDecision` and `Tree::CategoricalDecision` of `tree.h`, with the way of a missing value worked out ahead.
fn decision(split: Decision<'_>) -> Result<(Test, Child), Broken> {
    let Decision {
        threshold,
        left,
        right,
        ..
    } = split;
    if threshold.is_nan() {
        return Err(Broken::new(
            split.threshold_line,
            "`threshold` has `nan`",
            "numbers",
        ));
    }
    if split.kind & CATEGORICAL != 0 {
        // A missing or unknown level goes right, whatever the missing type says.
        return Ok((split.sets.test(threshold, split.threshold_line)?, right));
    }
    let default = if split.kind & DEFAULT_LEFT != 0 {
        left
    } else {
        right
    };
    match (split.kind >> 2) & 3 {
        // No value was missing in training: a missing one is read as zero.
        MISSING_NONE => Ok((
            Test::AtMost(threshold),
            if 0.0 <= threshold { left } else { right },
        )),
        MISSING_ZERO => Ok((Test::AtMostZeroMissing(threshold), default)),
        MISSING_NAN => Ok((Test::AtMost(threshold), default)),
        other => Err(Broken::new(
            split.line,
            format!("`decision_type` {} has missing type {other}", split.kind),
            "0 (none), 1 (zero) or 2 (NaN)",
        )),
    }
}

/// The category sets of a tree.
struct Sets {
    bounds: Array<u32>,
    words: Vec<u32>,
}

impl Sets {
    fn read(section: &Section<'_>, count: usize) -> Result<Self, Broken> {
        if count == 0 {
            let bounds = Array {
                line: section.first_line,
                values: Vec::new(),
            };
            return Ok(Self {
                bounds,
                words: Vec::new(),
            });
        }
        let expected = count.checked_add(1).ok_or_else(|| {
            Broken::new(
                section.first_line,
                "`num_cat` is too large",
                "the number of categorical splits",
            )
        })?;
        let bounds: Array<u32> = section.array("cat_boundaries", expected)?;
        let ordered = bounds.values.first() == Some(&0) && bounds.values.is_sorted();
        if !ordered {
            return Err(Broken::new(
                bounds.line,
                "`cat_boundaries` goes down or does not start at 0",
                "rising numbers from 0",
            ));
        }
        let total = bounds.values.last().map_or(0, |last| *last as usize);
        let words: Array<u32> = section.array("cat_threshold", total)?;
        Ok(Self {
            bounds,
            words: words.values,
        })
    }

    /// A categorical split's threshold is the number of its set.
    fn test(&self, threshold: f64, line: usize) -> Result<Test, Broken> {
        let sets = self.bounds.values.len().saturating_sub(1);
        let index = threshold as usize;
        if threshold < 0.0 || threshold.fract() != 0.0 || index >= sets {
            let found = format!("`threshold` of a categorical split is {threshold}");
            return Err(Broken::new(
                line,
                found,
                format!("the number of a category set, less than {sets}"),
            ));
        }
        let start = self.bounds.values[index];
        Ok(Test::InSet {
            start,
            words: self.bounds.values[index + 1] - start,
        })
    }
}
