//! Walking down a tree, a step a level: for single rows, and for trees that are too large for [`super::marks`].
//!
//! A step does not branch: the children of a split stand side by side, and the comparison's outcome is added to the place of the
//! left one. A leaf's child is itself. Several walks go on at once, so that the processor waits for none of them.

use super::{Sets, columns::ALWAYS_LEFT};

/// A split, or a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// What the row's number is compared with; of a leaf its value (or, where leaves hold several numbers, its position); of a
    /// split by a set of categories the bits of [`SetRef`].
    pub threshold: f64,
    /// The column to compare, with [`BY_SET`] and [`MISSING_LEFT`].
    pub column: u32,
    /// The place of the left child, the right one comes after it; of a leaf its own place.
    pub child: u32,
}

/// Marks the column of a split by a set.
pub(super) const BY_SET: u32 = 1 << 31;
/// Marks a split by a set whose left child takes missing values.
pub(super) const MISSING_LEFT: u32 = 1 << 30;
/// The column's number.
pub(super) const COLUMN: u32 = MISSING_LEFT - 1;

impl Step {
    /// A leaf at `place`.
    pub fn leaf(place: u32, payload: f64) -> Self {
        Self {
            threshold: payload,
            column: ALWAYS_LEFT,
            child: place,
        }
    }

    /// Whether this, which stands at `place`, is a leaf.
    pub fn is_leaf(&self, place: u32) -> bool {
        self.child == place
    }
}

/// Where a set's words are.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetRef {
    pub start: u32,
    pub words: u32,
}

impl SetRef {
    /// In the place of a threshold.
    pub fn pack(self) -> f64 {
        f64::from_bits(u64::from(self.start) << 32 | u64::from(self.words))
    }

    /// From there.
    pub fn unpack(threshold: f64) -> Self {
        let bits = threshold.to_bits();
        Self {
            start: (bits >> 32) as u32,
            words: bits as u32,
        }
    }
}

/// Whether a row with this value goes left.
#[inline(always)]
pub(super) fn goes_left(step: &Step, value: f64, sets: &Sets) -> bool {
    if step.column & BY_SET == 0 {
        return value <= step.threshold;
    }
    if value.is_nan() {
        return step.column & MISSING_LEFT != 0;
    }
    sets.holds(SetRef::unpack(step.threshold), value)
}

/// Walks down `places`, one walk a lane, until all stand on leaves. `value` gives a lane's number of a column.
#[inline(always)]
pub(super) fn descend<const LANES: usize>(
    steps: &[Step],
    sets: Option<&Sets>,
    places: &mut [u32; LANES],
    value: impl Fn(usize, u32) -> f64,
) {
    loop {
        let mut moved = 0;
        for (lane, place) in places.iter_mut().enumerate() {
            let step = &steps[*place as usize];
            let left = match sets {
                None => value(lane, step.column) <= step.threshold,
                Some(sets) => goes_left(step, value(lane, step.column & COLUMN), sets),
            };
            let next = step.child + u32::from(!left);
            moved |= next ^ *place;
            *place = next;
        }
        if moved == 0 {
            return;
        }
    }
}
