//! One engine for every tree ensemble: answers that equal those of the library that trained the model to the last bit (same
//! comparisons, same order of sums).
//!
//! [`Builder`] takes the trees of a model in the terms of its format; [`Ensemble`] holds them twice: as steps for walking down
//! ([`walk`]: single rows, large trees), and as marks for finding the leaves of many rows at once ([`marks`]: trees of up to 64
//! leaves). In both, a missing value costs nothing: [`columns`] makes numbers of which it is known that they lead the right way.

// What is called from `simd` has to become part of its callers, or it is not compiled for wider vectors.
#![allow(clippy::inline_always)]

mod build;
mod columns;
mod link;
mod marks;
mod shap;
mod simd;
mod walk;

pub(crate) use build::{Builder, TreeParts};
use columns::Columns;
pub(crate) use link::Link;
use marks::{LANES, Lanes, Marks, Mask, Ranks, Scratch};
pub(crate) use shap::NoShap;
use simd::Kernel;
use walk::{SetRef, Step, descend};

/// Where a branch leads: a node if not negative, else the complement of a leaf's position.
pub(crate) type Child = i32;

/// What a node asks of its feature's value, when the value is not missing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Test {
    /// Left if at most this.
    AtMost(f64),
    /// Left if at most this; zero counts as missing (`LightGBM`'s `zero_as_missing`).
    AtMostZeroMissing(f64),
    /// Left if the code's bit is set in these words.
    InSet {
        /// The first word.
        start: u32,
        /// How many words.
        words: u32,
    },
}

/// A split.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// Which number of the row.
    pub feature: u32,
    /// Where a row goes that passes the test,
    pub left: Child,
    /// that does not,
    pub right: Child,
    /// and that has no value.
    pub missing: Child,
    /// The question.
    pub test: Test,
}

/// Rows of numbers, feature by feature: the number of a feature of a row is `cells[feature * stride + row]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    /// The numbers.
    pub cells: &'a [f64],
    /// From one feature to the next.
    pub stride: usize,
    /// How many rows.
    pub rows: usize,
}

/// In which type a library adds up leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// `double`.
    F64,
    /// `float`.
    F32,
}

/// Words of bits for splits by categories.
#[derive(Debug, Default)]
struct Sets(Vec<u32>);

impl Sets {
    fn words(&self, set: SetRef) -> &[u32] {
        &self.0[set.start as usize..][..set.words as usize]
    }

    fn holds(&self, set: SetRef, value: f64) -> bool {
        let code = value as i64;
        let word = code >> 5;
        (0..i64::from(set.words)).contains(&word)
            && (self.0[set.start as usize + word as usize] >> (code & 31)) & 1 == 1
    }
}

/// How a tree is held for blocks of rows.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// Up to 32 leaves: its number among [`Ensemble::narrow`], and where its leaves begin.
    Narrow(u32, u32),
    /// Up to 64 leaves.
    Wide(u32, u32),
    /// More: only as steps.
    Steps,
}

#[derive(Debug, Clone, Copy)]
struct Tree {
    root: u32,
    /// The first output that it adds to, and to how many.
    output: u32,
    width: u32,
    form: Form,
}

/// The trees of a model and how their leaves become an answer.
#[derive(Debug)]
pub(crate) struct Ensemble {
    columns: Columns,
    steps: Vec<Step>,
    sets: Sets,
    trees: Vec<Tree>,
    /// The numbers of leaves that hold several.
    values: Vec<f64>,
    ranks: Ranks,
    narrow: Marks<u32>,
    wide: Marks<u64>,
    /// Payloads of the leaves of marked trees, 32 or 64 a tree.
    payloads: Vec<f64>,
    features: usize,
    /// Where all trees have cover counts.
    expected: Option<shap::Expected>,
    base: Vec<f64>,
    divisor: Option<f64>,
    /// What is added after the trees; may be shorter than the outputs.
    offset: Vec<f64>,
    link: Link,
    precision: Precision,
}

/// Words of all sets of a model: 64 MiB. A few bytes of a hostile file could ask for a large set.
pub(crate) const MOST_SET_WORDS: usize = 1 << 24;

/// Up to so many rows are answered one by one; a block of marks costs as much however few rows are in it.
const FEW: usize = 4;

/// Walks that go on at once.
const WALKS: usize = 8;

/// What answering needs, kept between blocks.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    scratch: Scratch,
    row: Vec<f64>,
    sums: Vec<f64>,
    lanes64: Vec<Lanes<f64>>,
    lanes32: Vec<Lanes<f32>>,
}

impl Ensemble {
    /// Numbers in the answer to a row.
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// Makes answers of the sums in another way.
    pub fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// How many trees.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Answers the rows of a block into `out` (row-major, [`Self::outputs`] numbers each).
    pub fn predict(&self, block: Block<'_>, work: &mut Workspace, out: &mut [f64]) {
        debug_assert!(block.cells.len() >= self.features.saturating_sub(1) * block.stride + block.rows);
        if block.rows <= FEW {
            for (row, answer) in out.chunks_exact_mut(self.outputs()).enumerate() {
                self.predict_row(block, row, work, answer);
            }
            return;
        }
        let mut first = 0;
        while first < block.rows {
            simd::answer(self, block, first, work, out);
            first += LANES;
        }
    }

    /// Answers one row by walking down eight trees at a time.
    fn predict_row(&self, block: Block<'_>, row: usize, work: &mut Workspace, answer: &mut [f64]) {
        self.columns.fill_row(block, row, &mut work.row);
        work.sums.clear();
        work.sums.extend_from_slice(&self.base);
        let numbers = work.row.as_slice();
        let sets = (!self.sets.0.is_empty()).then_some(&self.sets);
        for group in self.trees.chunks(WALKS) {
            let mut places: [u32; WALKS] =
                std::array::from_fn(|lane| group.get(lane).map_or(group[0].root, |tree| tree.root));
            descend(&self.steps, sets, &mut places, |_, column| {
                numbers[column as usize]
            });
            for (tree, &place) in group.iter().zip(&places) {
                let payload = self.steps[place as usize].threshold;
                self.add(tree, payload, &mut work.sums);
            }
        }
        self.finish(&mut work.sums, answer);
    }

    fn add(&self, tree: &Tree, payload: f64, sums: &mut [f64]) {
        let add = |sum: &mut f64, value: f64| match self.precision {
            Precision::F64 => *sum += value,
            Precision::F32 => *sum = f64::from(*sum as f32 + value as f32),
        };
        if tree.width == 1 {
            add(&mut sums[tree.output as usize], payload);
            return;
        }
        for (sum, &value) in sums[tree.output as usize..]
            .iter_mut()
            .zip(self.leaf(tree, payload))
        {
            add(sum, value);
        }
    }

    fn leaf(&self, tree: &Tree, payload: f64) -> &[f64] {
        &self.values[payload as usize..][..tree.width as usize]
    }

    /// From the sums of a row to its answer.
    fn finish(&self, sums: &mut [f64], answer: &mut [f64]) {
        if let Some(divisor) = self.divisor {
            for sum in sums.iter_mut() {
                *sum = match self.precision {
                    Precision::F64 => *sum / divisor,
                    Precision::F32 => f64::from(*sum as f32 / divisor as f32),
                };
            }
        }
        for (sum, offset) in sums.iter_mut().zip(&self.offset) {
            *sum = match self.precision {
                Precision::F64 => *sum + offset,
                Precision::F32 => f64::from(*sum as f32 + *offset as f32),
            };
        }
        self.link.apply(sums, answer);
    }

    /// Answers the rows from `first` on, [`LANES`] of them or as many as there are.
    #[inline(always)]
    fn answer(
        &self,
        kernel: impl Kernel,
        block: Block<'_>,
        first: usize,
        work: &mut Workspace,
        out: &mut [f64],
    ) {
        let Workspace {
            scratch,
            sums,
            lanes64,
            lanes32,
            ..
        } = work;
        scratch.fill(&self.columns, &self.ranks, block, first);
        match self.precision {
            Precision::F64 => {
                self.sum_lanes(kernel, scratch, lanes64);
                self.finish_lanes(lanes64, first, sums, out);
            }
            Precision::F32 => {
                self.sum_lanes(kernel, scratch, lanes32);
                self.finish_lanes(lanes32, first, sums, out);
            }
        }
    }

    fn finish_lanes<N: Number>(
        &self,
        lanes: &[Lanes<N>],
        first: usize,
        sums: &mut Vec<f64>,
        out: &mut [f64],
    ) {
        let answers = out.chunks_exact_mut(self.outputs()).skip(first);
        for (lane, answer) in answers.take(LANES).enumerate() {
            sums.clear();
            sums.extend(lanes.iter().map(|sums| sums[lane].widen()));
            self.finish(sums, answer);
        }
    }

    #[inline(always)]
    fn sum_lanes<N: Number>(&self, kernel: impl Kernel, scratch: &Scratch, sums: &mut Vec<Lanes<N>>) {
        sums.clear();
        sums.extend(self.base.iter().map(|&base| [N::narrow(base); LANES]));
        for tree in &self.trees {
            match tree.form {
                Form::Narrow(number, at) => {
                    let marks = kernel.narrow(self.narrow.tree(number), &scratch.integers);
                    self.add_marked::<N, u32, 32>(tree, at, &marks, sums);
                }
                Form::Wide(number, at) => {
                    let marks = kernel.wide(self.wide.tree(number), &scratch.integers);
                    self.add_marked::<N, u64, 64>(tree, at, &marks, sums);
                }
                Form::Steps => self.add_walked(tree, scratch, sums),
            }
        }
    }

    #[inline(always)]
    fn add_marked<N: Number, M: Mask, const LEAVES: usize>(
        &self,
        tree: &Tree,
        at: u32,
        marks: &Lanes<M>,
        sums: &mut [Lanes<N>],
    ) {
        let Some(payloads) = self.payloads[at as usize..].first_chunk::<LEAVES>() else {
            return;
        };
        if tree.width == 1 {
            let sums = &mut sums[tree.output as usize];
            for (sum, mark) in sums.iter_mut().zip(marks) {
                *sum += N::narrow(payloads[mark.first() % LEAVES]);
            }
            return;
        }
        for (lane, mark) in marks.iter().enumerate() {
            let leaf = self.leaf(tree, payloads[mark.first() % LEAVES]);
            for (sums, &value) in sums[tree.output as usize..].iter_mut().zip(leaf) {
                sums[lane] += N::narrow(value);
            }
        }
    }

    #[inline(always)]
    fn add_walked<N: Number>(&self, tree: &Tree, scratch: &Scratch, sums: &mut [Lanes<N>]) {
        let sets = (!self.sets.0.is_empty()).then_some(&self.sets);
        for start in (0..LANES).step_by(WALKS) {
            let mut places = [tree.root; WALKS];
            descend(&self.steps, sets, &mut places, |lane, column| {
                scratch.numbers[column as usize][start + lane]
            });
            for (lane, &place) in places.iter().enumerate() {
                let payload = self.steps[place as usize].threshold;
                if tree.width == 1 {
                    sums[tree.output as usize][start + lane] += N::narrow(payload);
                } else {
                    let leaf = self.leaf(tree, payload);
                    for (sums, &value) in sums[tree.output as usize..].iter_mut().zip(leaf) {
                        sums[start + lane] += N::narrow(value);
                    }
                }
            }
        }
    }
}

/// A type that leaves are added up in.
trait Number: Copy + std::ops::AddAssign {
    /// From a number that fits.
    fn narrow(value: f64) -> Self;
    /// Without loss.
    fn widen(self) -> f64;
}

impl Number for f64 {
    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
}

impl Number for f32 {
    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }
}

#[cfg(test)]
mod tests;
