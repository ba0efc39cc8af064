//! Finding the leaves of many rows at once, without walking: every split of a tree is asked, and those that send a row right strike
//! out the leaves on their left. The first leaf that is left standing is the row's own.
//!
//! After Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees" (SIGIR
//! 2015), turned round: not the splits of all trees sorted by feature for one row, but the splits of one tree for a block of rows,
//! which is the same few vector instructions for each split. Values are replaced by their rank among the thresholds of their
//! column beforehand, so that comparisons are between integers of the marks' width, and exact.

use std::collections::HashMap;

use super::columns::Columns;
use super::simd::Splits;
use super::walk::{BY_SET, COLUMN, MISSING_LEFT, SetRef, Step};
use super::{Block, Sets};

/// Rows that are answered together.
pub(super) const LANES: usize = 32;

/// Numbers of one column, or marks, a row each.
pub(super) type Lanes<T> = [T; LANES];

/// A set of leaves, one bit each.
pub(super) trait Mask: Copy + std::fmt::Debug {
    /// Without the leaves from `start` to `end`.
    fn without(start: u32, end: u32) -> Self;
    /// The first leaf.
    fn first(self) -> usize;
}

macro_rules! mask {
    ($type:ty) => {
        impl Mask for $type {
            fn without(start: u32, end: u32) -> Self {
                (start..end).fold(Self::MAX, |mask, leaf| mask & !(1 << leaf))
            }
            #[inline(always)]
            fn first(self) -> usize {
                self.trailing_zeros() as usize
            }
        }
    };
}
mask!(u32);
mask!(u64);

/// A split by a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split<M> {
    pub column: u32,
    /// Rows of at most this rank go left.
    pub rank: i32,
    /// The leaves that are left when a row goes right.
    pub mask: M,
}

/// A split by a set of categories: some words of bits, each for one column of categories.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetSplit<M> {
    pub first: u32,
    pub count: u32,
    pub mask: M,
}

/// The trees with at most as many leaves as `M` has bits.
#[derive(Debug)]
pub(super) struct Marks<M> {
    splits: Vec<Split<M>>,
    set_splits: Vec<SetSplit<M>>,
    words: Vec<(u32, i32)>,
    trees: Vec<Tree>,
}

#[derive(Debug, Clone, Copy)]
struct Tree {
    splits: (u32, u32),
    set_splits: (u32, u32),
}

impl<M> Default for Marks<M> {
    fn default() -> Self {
        Self {
            splits: Vec::new(),
            set_splits: Vec::new(),
            words: Vec::new(),
            trees: Vec::new(),
        }
    }
}

/// A tree as marks, and its leaves' payloads from left to right.
pub(super) struct Marked {
    /// Its number among the trees of its kind.
    pub number: u32,
    /// The leaves, in the order of their bits.
    pub leaves: Vec<f64>,
}

impl<M: Mask> Marks<M> {
    /// Adds the tree that starts at `root`, which has at most as many leaves as `M` has bits.
    pub fn push(&mut self, steps: &[Step], root: u32, sets: &Sets, ranks: &mut Ranks) -> Marked {
        let starts = (self.splits.len() as u32, self.set_splits.len() as u32);
        let mut leaves = Vec::new();
        self.number_leaves(steps, root, sets, ranks, &mut leaves);
        // Splits of the same column side by side: its values stay in registers.
        self.splits[starts.0 as usize..].sort_by_key(|split| split.column);
        self.trees.push(Tree {
            splits: (starts.0, self.splits.len() as u32),
            set_splits: (starts.1, self.set_splits.len() as u32),
        });
        Marked {
            number: self.trees.len() as u32 - 1,
            leaves,
        }
    }

    /// Recursion is as deep as the tree, which has at most 64 leaves.
    fn number_leaves(
        &mut self,
        steps: &[Step],
        place: u32,
        sets: &Sets,
        ranks: &mut Ranks,
        leaves: &mut Vec<f64>,
    ) {
        let step = steps[place as usize];
        if step.is_leaf(place) {
            leaves.push(step.threshold);
            return;
        }
        let start = leaves.len() as u32;
        self.number_leaves(steps, step.child, sets, ranks, leaves);
        let mask = M::without(start, leaves.len() as u32);
        if step.column & BY_SET == 0 {
            let (column, rank) = ranks.place(step.column, step.threshold);
            self.splits.push(Split { column, rank, mask });
        } else {
            let first = self.words.len() as u32;
            let missing_left = step.column & MISSING_LEFT != 0;
            let set = sets.words(SetRef::unpack(step.threshold));
            ranks.one_hot(step.column & COLUMN, set, missing_left, &mut self.words);
            let count = self.words.len() as u32 - first;
            self.set_splits.push(SetSplit { first, count, mask });
        }
        self.number_leaves(steps, step.child + 1, sets, ranks, leaves);
    }

    /// The splits of a tree.
    #[inline(always)]
    pub fn tree(&self, number: u32) -> Splits<'_, M> {
        let tree = self.trees[number as usize];
        Splits {
            by_rank: &self.splits[tree.splits.0 as usize..tree.splits.1 as usize],
            by_set: &self.set_splits[tree.set_splits.0 as usize..tree.set_splits.1 as usize],
            words: &self.words,
        }
    }
}

/// The columns of integers that marks compare: ranks, and words of categories.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    /// For each column of ranks: the column of numbers, and where its thresholds are.
    ranked: Vec<(u32, Vec<f64>)>,
    /// For each column of words after these: the column of numbers, and which word of its categories.
    hot: Vec<(u32, u32)>,
    ranked_numbers: HashMap<u32, u32>,
    hot_numbers: HashMap<(u32, u32), u32>,
}

impl Ranks {
    /// Learns of a threshold. All have to be known before the first [`Marks::push`].
    pub fn learn(&mut self, column: u32, threshold: f64) {
        let next = self.ranked.len() as u32;
        let number = *self.ranked_numbers.entry(column).or_insert(next);
        if number == next {
            self.ranked.push((column, Vec::new()));
        }
        self.ranked[number as usize].1.push(threshold);
    }

    /// Puts the thresholds in order.
    pub fn sort(&mut self) {
        for (_, thresholds) in &mut self.ranked {
            thresholds.sort_by(f64::total_cmp);
            thresholds.dedup_by(|a, b| a == b);
            thresholds.shrink_to_fit();
        }
    }

    /// Forgets what only building needs.
    pub fn seal(&mut self) {
        self.ranked_numbers = HashMap::new();
        self.hot_numbers = HashMap::new();
    }

    /// The column of ranks, and the rank of a threshold in it.
    fn place(&self, column: u32, threshold: f64) -> (u32, i32) {
        let number = self.ranked_numbers.get(&column).copied().unwrap_or(0);
        let thresholds = &self.ranked[number as usize].1;
        (
            number,
            thresholds.partition_point(|&other| other < threshold) as i32,
        )
    }

    /// The words of a set: bit 0 of word 0 stands for a missing value, the categories follow.
    fn one_hot(&mut self, column: u32, set: &[u32], missing: bool, words: &mut Vec<(u32, i32)>) {
        let mut carried = u32::from(missing);
        for (word, bits) in set.iter().copied().chain([0]).enumerate() {
            let shifted = bits << 1 | carried;
            carried = bits >> 31;
            if shifted == 0 {
                continue;
            }
            let next = self.hot.len() as u32;
            let number = *self.hot_numbers.entry((column, word as u32)).or_insert(next);
            if number == next {
                self.hot.push((column, word as u32));
            }
            words.push((self.ranked.len() as u32 + number, shifted as i32));
        }
    }

    /// The integers of some rows, from their numbers.
    #[inline(always)]
    pub fn fill(&self, numbers: &[Lanes<f64>], out: &mut Vec<Lanes<i32>>) {
        out.clear();
        for (column, thresholds) in &self.ranked {
            out.push(ranks(&numbers[*column as usize], thresholds));
        }
        for &(column, word) in &self.hot {
            let mut lanes = [0; LANES];
            for (lane, &value) in lanes.iter_mut().zip(&numbers[column as usize]) {
                let bit = hot_bit(value);
                let here = bit >> 5 == i64::from(word);
                *lane = i32::from(here).wrapping_shl(bit as u32 & 31);
            }
            out.push(lanes);
        }
    }
}

/// The bit of a category; -1, which is in no word, for a number that is no category.
#[inline(always)]
fn hot_bit(value: f64) -> i64 {
    if value.is_nan() {
        return 0;
    }
    let code = value as i64;
    if (0..i64::from(u32::MAX)).contains(&code) {
        code + 1
    } else {
        -1
    }
}

/// How many thresholds are below each value; NaN is above all.
#[inline(always)]
fn ranks(values: &Lanes<f64>, thresholds: &[f64]) -> Lanes<i32> {
    let mut low = [0_u32; LANES];
    let mut left = thresholds.len() as u32;
    while left > 1 {
        let half = left / 2;
        for (low, &value) in low.iter_mut().zip(values) {
            let below = thresholds[(*low + half - 1) as usize] < value;
            *low += half * u32::from(below);
        }
        left -= half;
    }
    let mut ranks = [0; LANES];
    for ((rank, &low), &value) in ranks.iter_mut().zip(&low).zip(values) {
        let below = thresholds[low as usize] < value;
        *rank = if value.is_nan() {
            i32::MAX
        } else {
            low as i32 + i32::from(below)
        };
    }
    ranks
}

/// Whether a tree may be held as marks: a set of more words than this would need as many columns.
pub(super) const MOST_WORDS: u32 = 64;

/// What the lanes of a block need, kept between blocks.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Numbers, column by column.
    pub numbers: Vec<Lanes<f64>>,
    /// Integers, column by column.
    pub integers: Vec<Lanes<i32>>,
}

impl Scratch {
    /// Reads the rows from `first` on.
    #[inline(always)]
    pub fn fill(&mut self, columns: &Columns, ranks: &Ranks, block: Block<'_>, first: usize) {
        columns.fill_lanes(block, first, &mut self.numbers);
        ranks.fill(&self.numbers, &mut self.integers);
    }
}
