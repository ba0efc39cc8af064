//! Columns of numbers in which a missing value already leads the right way, so that no comparison has to ask for it.
//!
//! A split's row goes left if `value <= threshold`. NaN fails every comparison and therefore goes right; in a column of its own
//! where NaN became negative infinity, it goes left. A feature has as many such columns as its splits need, mostly one.

use std::collections::HashMap;

use super::Block;

/// Numbers of at most this size count as zero (`kZeroThreshold` of `LightGBM`).
use crate::encode::LIGHTGBM_ZERO;

/// What a column does with values that count as missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fill {
    /// Missing goes right: NaN stays.
    Right,
    /// Missing goes left: NaN is negative infinity.
    Left,
    /// Zero is missing too, and goes right.
    ZeroRight,
    /// Zero is missing too, and goes left.
    ZeroLeft,
    /// 0 where the value is missing, else 1.
    Missing,
    /// The same, where zero is missing too.
    ZeroMissing,
}

impl Fill {
    #[inline(always)]
    fn of(self, value: f64) -> f64 {
        let zero = value.abs() <= LIGHTGBM_ZERO;
        match self {
            Self::Right => value,
            Self::Left if value.is_nan() => f64::NEG_INFINITY,
            Self::ZeroRight if zero => f64::NAN,
            Self::ZeroLeft if zero || value.is_nan() => f64::NEG_INFINITY,
            Self::Left | Self::ZeroRight | Self::ZeroLeft => value,
            Self::Missing => f64::from(u8::from(!value.is_nan())),
            Self::ZeroMissing => f64::from(u8::from(!(value.is_nan() || zero))),
        }
    }
}

/// Where a column comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// The feature.
    pub feature: u32,
    /// What becomes of missing values.
    pub fill: Fill,
}

/// The columns that an ensemble reads. Column 0 is negative infinity for every row, so that a leaf, which compares it with
/// anything, stays where it is.
#[derive(Debug, Default)]
pub(super) struct Columns {
    list: Vec<Column>,
    numbers: HashMap<(u32, Fill), u32>,
}

/// The number of the column that leaves compare.
pub(super) const ALWAYS_LEFT: u32 = 0;

impl Columns {
    /// The number of a column, which is made if it is new.
    pub fn number(&mut self, feature: u32, fill: Fill) -> u32 {
        let next = self.list.len() as u32 + 1;
        *self.numbers.entry((feature, fill)).or_insert_with(|| {
            self.list.push(Column { feature, fill });
            next
        })
    }

    /// Forgets what only building needs.
    pub fn seal(&mut self) {
        self.numbers = HashMap::new();
        self.list.shrink_to_fit();
    }

    /// The feature that a column comes from.
    pub fn feature(&self, column: u32) -> Option<u32> {
        let position = (column as usize).checked_sub(1)?;
        self.list.get(position).map(|column| column.feature)
    }

    /// The numbers of one row.
    pub fn fill_row(&self, block: Block<'_>, row: usize, out: &mut Vec<f64>) {
        out.clear();
        out.push(f64::NEG_INFINITY);
        out.extend(self.list.iter().map(|column| {
            let value = block.cells[column.feature as usize * block.stride + row];
            column.fill.of(value)
        }));
    }

    /// The numbers of the rows from `first` on, column by column, `LANES` a column; lanes past the block's end are zero.
    #[inline(always)]
    pub fn fill_lanes<const LANES: usize>(
        &self,
        block: Block<'_>,
        first: usize,
        out: &mut Vec<[f64; LANES]>,
    ) {
        let rows = (block.rows - first).min(LANES);
        out.clear();
        out.push([f64::NEG_INFINITY; LANES]);
        for column in &self.list {
            let start = column.feature as usize * block.stride + first;
            let cells = &block.cells[start..start + rows];
            let mut lanes = [0.0; LANES];
            for (lane, &value) in lanes.iter_mut().zip(cells) {
                *lane = column.fill.of(value);
            }
            out.push(lanes);
        }
    }
}
