//! How much each feature of a row adds to its answer: path-dependent TreeSHAP.
//!
//! Lundberg, Erion and Lee, "Consistent individualized feature attribution for tree ensembles" (2018), algorithm 2. A tree's
//! cover counts (how many training rows, or how much of their weight, came through each node) stand for the features that are
//! not known. The contributions of a row, and the expected value after them, sum up to what the trees give before the link.

use super::walk::{COLUMN, Step, goes_left};
use super::{Block, Ensemble, Tree};

/// Why contributions cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoShap {
    /// The file does not say how many rows came through each node.
    #[error("its trees have no cover counts")]
    NoCover,
    /// A path of this many splits takes too much memory.
    #[error("it has a tree of {0} levels; at most {DEEPEST} can be explained")]
    TooDeep(usize),
}

/// Longer paths than this are not explained: each level keeps a copy of the path above it.
const DEEPEST: usize = 512;

/// A feature on the way from the root.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    feature: usize,
    /// Which share of the paths goes on when the feature is not known,
    zero: f64,
    /// and when it is.
    one: f64,
    weight: f64,
}

impl Ensemble {
    /// How many numbers [`Self::contributions`] gives a row: for each sum of the trees one a feature, then the expected value.
    pub fn contributions_width(&self) -> usize {
        self.base.len() * (self.features + 1)
    }

    /// The contributions of one row into `out`, which holds [`Self::contributions_width`] numbers.
    pub fn contributions(&self, block: Block<'_>, row: usize, out: &mut [f64]) -> Result<(), NoShap> {
        let Some(expected) = &self.expected else {
            return Err(NoShap::NoCover);
        };
        if expected.depth > DEEPEST {
            return Err(NoShap::TooDeep(expected.depth));
        }
        out.fill(0.0);
        let mut numbers = Vec::new();
        self.columns.fill_row(block, row, &mut numbers);
        let width = self.features + 1;
        let mut paths = vec![Seen::default(); (expected.depth + 2) * (expected.depth + 3)];
        for tree in &self.trees {
            let mut walk = Walk {
                ensemble: self,
                cover: &expected.cover,
                numbers: &numbers,
                tree,
                width,
                out,
            };
            walk.go(
                tree.root,
                &mut paths,
                0,
                Seen {
                    feature: usize::MAX,
                    zero: 1.0,
                    one: 1.0,
                    weight: 0.0,
                },
            );
        }
        let outputs = out.chunks_exact_mut(width).zip(&expected.values).zip(&self.base);
        for (position, ((output, &value), &base)) in outputs.enumerate() {
            output[width - 1] += value;
            if let Some(divisor) = self.divisor {
                for number in output.iter_mut() {
                    *number /= divisor;
                }
            }
            output[width - 1] += base + self.offset.get(position).copied().unwrap_or(0.0);
        }
        Ok(())
    }
}

/// What explaining needs beside the trees.
#[derive(Debug)]
pub(super) struct Expected {
    /// For each step, how much of the training came through it.
    cover: Vec<f64>,
    /// For each output, the mean of its trees over the training.
    values: Vec<f64>,
    /// The longest path.
    depth: usize,
}

impl Expected {
    /// From cover counts of all steps.
    pub fn of(cover: Vec<f64>, steps: &[Step], trees: &[Tree], values: &[f64], outputs: usize) -> Self {
        let mut means = vec![0.0; outputs];
        let mut depth = 0;
        for tree in trees {
            let mut todo = vec![(tree.root, 1.0, 0)];
            while let Some((place, share, level)) = todo.pop() {
                let step = &steps[place as usize];
                if step.is_leaf(place) {
                    depth = depth.max(level);
                    let leaf = leaf(tree, step, values);
                    for (mean, value) in means[tree.output as usize..].iter_mut().zip(leaf) {
                        *mean += share * value;
                    }
                    continue;
                }
                for child in [step.child, step.child + 1] {
                    let part = fraction(cover[child as usize], cover[place as usize]);
                    todo.push((child, share * part, level + 1));
                }
            }
        }
        Self {
            cover,
            values: means,
            depth,
        }
    }
}

fn leaf<'a>(tree: &Tree, step: &'a Step, values: &'a [f64]) -> &'a [f64] {
    if tree.width == 1 {
        std::slice::from_ref(&step.threshold)
    } else {
        &values[step.threshold as usize..][..tree.width as usize]
    }
}

fn fraction(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

struct Walk<'a> {
    ensemble: &'a Ensemble,
    cover: &'a [f64],
    numbers: &'a [f64],
    tree: &'a Tree,
    width: usize,
    out: &'a mut [f64],
}

impl Walk<'_> {
    /// Goes down from `place`; `paths` begins with the path so far, `known` features long, and has room for those below.
    fn go(&mut self, place: u32, paths: &mut [Seen], known: usize, next: Seen) {
        let mut length = known;
        extend(paths, length, next);
        let step = self.ensemble.steps[place as usize];
        if step.is_leaf(place) {
            self.leaf(&step, &paths[..=length]);
            return;
        }
        let column = step.column & COLUMN;
        let Some(feature) = self.ensemble.columns.feature(column) else {
            return;
        };
        let feature = feature as usize;
        let left = goes_left(&step, self.numbers[column as usize], &self.ensemble.sets);
        let (hot, cold) = if left {
            (step.child, step.child + 1)
        } else {
            (step.child + 1, step.child)
        };
        let (mut zero, mut one) = (1.0, 1.0);
        // The first of the path is the root's, which is no feature.
        if let Some(before) = (1..=length).find(|&at| paths[at].feature == feature) {
            (zero, one) = (paths[before].zero, paths[before].one);
            unwind(paths, length, before);
            length -= 1;
        }
        let whole = self.cover[place as usize];
        for (child, one) in [(hot, one), (cold, 0.0)] {
            let (above, below) = paths.split_at_mut(length + 1);
            below[..=length].copy_from_slice(above);
            let next = Seen {
                feature,
                zero: zero * fraction(self.cover[child as usize], whole),
                one,
                weight: 0.0,
            };
            self.go(child, below, length + 1, next);
        }
    }

    fn leaf(&mut self, step: &Step, path: &[Seen]) {
        let values = leaf(self.tree, step, &self.ensemble.values);
        for at in 1..path.len() {
            let seen = path[at];
            let share = unwound(path, at) * (seen.one - seen.zero);
            for (output, value) in values.iter().enumerate() {
                let output = self.tree.output as usize + output;
                self.out[output * self.width + seen.feature] += share * value;
            }
        }
    }
}

/// Adds a feature to a path that is `length` long.
fn extend(path: &mut [Seen], length: usize, next: Seen) {
    path[length] = Seen {
        weight: if length == 0 { 1.0 } else { 0.0 },
        ..next
    };
    let all = (length + 1) as f64;
    for at in (0..length).rev() {
        path[at + 1].weight += next.one * path[at].weight * (at + 1) as f64 / all;
        path[at].weight = next.zero * path[at].weight * (length - at) as f64 / all;
    }
}

/// Takes the feature at `at` out of a path whose last is at `last`.
fn unwind(path: &mut [Seen], last: usize, at: usize) {
    let Seen { zero, one, .. } = path[at];
    let all = (last + 1) as f64;
    let mut next = path[last].weight;
    for place in (0..last).rev() {
        if one != 0.0 {
            let before = path[place].weight;
            path[place].weight = next * all / ((place + 1) as f64 * one);
            next = before - path[place].weight * zero * (last - place) as f64 / all;
        } else {
            path[place].weight = path[place].weight * all / (zero * (last - place) as f64);
        }
    }
    for place in at..last {
        let weight = path[place].weight;
        path[place] = Seen {
            weight,
            ..path[place + 1]
        };
    }
}

/// The weight that a path would have without the feature at `at`.
fn unwound(path: &[Seen], at: usize) -> f64 {
    let last = path.len() - 1;
    let Seen { zero, one, .. } = path[at];
    let all = (last + 1) as f64;
    let mut next = path[last].weight;
    let mut total = 0.0;
    for place in (0..last).rev() {
        if one != 0.0 {
            let part = next * all / ((place + 1) as f64 * one);
            total += part;
            next = path[place].weight - part * zero * (last - place) as f64 / all;
        } else if zero != 0.0 {
            total += path[place].weight / (zero * (last - place) as f64 / all);
        }
    }
    total
}
