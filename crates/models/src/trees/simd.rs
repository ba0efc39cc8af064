//! The same steps with the widest vectors that the processor has.
//!
//! This is the one module of the crate that calls functions which need a feature of the processor. Each [`Kernel`] here exists
//! only where its features were found, which is what its calls rely on.
#![allow(unsafe_code)]

use super::marks::{LANES, Lanes, SetSplit, Split};
use super::{Block, Ensemble, Workspace};

/// The splits of one tree, and the words of its sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splits<'a, M> {
    pub by_rank: &'a [Split<M>],
    pub by_set: &'a [SetSplit<M>],
    pub words: &'a [(u32, i32)],
}

/// Strikes out the leaves that rows cannot reach.
pub(super) trait Kernel: Copy {
    /// Trees of up to 32 leaves.
    fn narrow(self, tree: Splits<'_, u32>, columns: &[Lanes<i32>]) -> Lanes<u32>;
    /// Trees of up to 64 leaves.
    fn wide(self, tree: Splits<'_, u64>, columns: &[Lanes<i32>]) -> Lanes<u64>;
}

/// [`Ensemble::answer`] with the widest vectors that this processor has.
pub(super) fn answer(
    ensemble: &Ensemble,
    block: Block<'_>,
    first: usize,
    work: &mut Workspace,
    out: &mut [f64],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("bmi1") {
            // SAFETY: the processor has what the function is compiled for, as was just asked.
            unsafe { x86::answer_avx512(ensemble, block, first, work, out) };
            return;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") {
            // SAFETY: as above.
            unsafe { x86::answer_avx2(ensemble, block, first, work, out) };
            return;
        }
    }
    ensemble.answer(Portable, block, first, work, out);
}

/// What every processor can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

macro_rules! portable {
    ($name:ident, $mask:ty) => {
        #[inline(always)]
        fn $name(self, tree: Splits<'_, $mask>, columns: &[Lanes<i32>]) -> Lanes<$mask> {
            let mut marks = [<$mask>::MAX; LANES];
            for split in tree.by_rank {
                for (mark, &value) in marks.iter_mut().zip(&columns[split.column as usize]) {
                    *mark &= split.mask | <$mask>::from(value <= split.rank).wrapping_neg();
                }
            }
            for split in tree.by_set {
                let mut inside = [0_i32; LANES];
                for &(column, word) in &tree.words[split.first as usize..][..split.count as usize] {
                    for (inside, &bits) in inside.iter_mut().zip(&columns[column as usize]) {
                        *inside |= bits & word;
                    }
                }
                for (mark, &inside) in marks.iter_mut().zip(&inside) {
                    *mark &= split.mask | <$mask>::from(inside != 0).wrapping_neg();
                }
            }
            marks
        }
    };
}

impl Kernel for Portable {
    portable!(narrow, u32);
    portable!(wide, u64);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)] // the names say where they come from
    use std::arch::x86_64::*;

    use super::{Block, Ensemble, Kernel, LANES, Lanes, Splits, Workspace};

    #[target_feature(enable = "avx512f,bmi1")]
    pub(super) fn answer_avx512(
        ensemble: &Ensemble,
        block: Block<'_>,
        first: usize,
        work: &mut Workspace,
        out: &mut [f64],
    ) {
        ensemble.answer(Avx512(()), block, first, work, out);
    }

    #[target_feature(enable = "avx2,bmi1")]
    pub(super) fn answer_avx2(
        ensemble: &Ensemble,
        block: Block<'_>,
        first: usize,
        work: &mut Workspace,
        out: &mut [f64],
    ) {
        ensemble.answer(Avx2(()), block, first, work, out);
    }

    /// For tests, which ask for the feature first.
    #[cfg(test)]
    pub(super) fn avx512() -> impl Kernel {
        Avx512(())
    }

    /// For tests, which ask for the feature first.
    #[cfg(test)]
    pub(super) fn avx2() -> impl Kernel {
        Avx2(())
    }

    /// Made only in [`answer_avx512`].
    #[derive(Clone, Copy)]
    struct Avx512(());

    impl Kernel for Avx512 {
        #[inline(always)]
        fn narrow(self, tree: Splits<'_, u32>, columns: &[Lanes<i32>]) -> Lanes<u32> {
            // SAFETY: there is such a kernel only where the features are.
            unsafe { narrow_avx512(tree, columns) }
        }

        #[inline(always)]
        fn wide(self, tree: Splits<'_, u64>, columns: &[Lanes<i32>]) -> Lanes<u64> {
            // SAFETY: as above.
            unsafe { wide_avx512(tree, columns) }
        }
    }

    /// Made only in [`answer_avx2`].
    #[derive(Clone, Copy)]
    struct Avx2(());

    impl Kernel for Avx2 {
        #[inline(always)]
        fn narrow(self, tree: Splits<'_, u32>, columns: &[Lanes<i32>]) -> Lanes<u32> {
            // SAFETY: there is such a kernel only where the features are.
            unsafe { narrow_avx2(tree, columns) }
        }

        #[inline(always)]
        fn wide(self, tree: Splits<'_, u64>, columns: &[Lanes<i32>]) -> Lanes<u64> {
            // SAFETY: as above.
            unsafe { wide_avx2(tree, columns) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load512(lanes: &Lanes<i32>, part: usize) -> __m512i {
        debug_assert!(part < LANES / 16);
        // SAFETY: `part` is 0 or 1 in every call, and 32 lanes are two vectors of 16.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().add(part * 16).cast()) }
    }

    /// For each part of 16 lanes, which lanes are in the set.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn outside512(words: &[(u32, i32)], columns: &[Lanes<i32>]) -> [__mmask16; 2] {
        let mut inside = [_mm512_setzero_si512(); 2];
        for &(column, word) in words {
            let lanes = &columns[column as usize];
            let word = _mm512_set1_epi32(word);
            for (part, inside) in inside.iter_mut().enumerate() {
                *inside = _mm512_or_si512(*inside, _mm512_and_si512(load512(lanes, part), word));
            }
        }
        inside.map(|inside| _mm512_testn_epi32_mask(inside, inside))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn narrow_avx512(tree: Splits<'_, u32>, columns: &[Lanes<i32>]) -> Lanes<u32> {
        let mut marks = [_mm512_set1_epi32(-1); 2];
        for split in tree.by_rank {
            let lanes = &columns[split.column as usize];
            let (rank, mask) = (
                _mm512_set1_epi32(split.rank),
                _mm512_set1_epi32(split.mask.cast_signed()),
            );
            for (part, marks) in marks.iter_mut().enumerate() {
                let right = _mm512_cmpgt_epi32_mask(load512(lanes, part), rank);
                *marks = _mm512_mask_and_epi32(*marks, right, *marks, mask);
            }
        }
        for split in tree.by_set {
            let words = &tree.words[split.first as usize..][..split.count as usize];
            let mask = _mm512_set1_epi32(split.mask.cast_signed());
            for (marks, right) in marks.iter_mut().zip(outside512(words, columns)) {
                *marks = _mm512_mask_and_epi32(*marks, right, *marks, mask);
            }
        }
        // SAFETY: two vectors of 64 bytes are 32 lanes of 4 bytes, and every pattern of bits is a `u32`.
        unsafe { std::mem::transmute::<[__m512i; 2], Lanes<u32>>(marks) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn wide_avx512(tree: Splits<'_, u64>, columns: &[Lanes<i32>]) -> Lanes<u64> {
        let mut marks = [_mm512_set1_epi64(-1); 4];
        let strike = |marks: &mut [__m512i; 4], rights: [__mmask16; 2], mask: u64| {
            let mask = _mm512_set1_epi64(mask.cast_signed());
            for (part, marks) in marks.iter_mut().enumerate() {
                let right = (rights[part / 2] >> (8 * (part % 2))) as u8;
                *marks = _mm512_mask_and_epi64(*marks, right, *marks, mask);
            }
        };
        for split in tree.by_rank {
            let lanes = &columns[split.column as usize];
            let rank = _mm512_set1_epi32(split.rank);
            let rights = [
                _mm512_cmpgt_epi32_mask(load512(lanes, 0), rank),
                _mm512_cmpgt_epi32_mask(load512(lanes, 1), rank),
            ];
            strike(&mut marks, rights, split.mask);
        }
        for split in tree.by_set {
            let words = &tree.words[split.first as usize..][..split.count as usize];
            strike(&mut marks, outside512(words, columns), split.mask);
        }
        // SAFETY: four vectors of 64 bytes are 32 lanes of 8 bytes, and every pattern of bits is a `u64`.
        unsafe { std::mem::transmute::<[__m512i; 4], Lanes<u64>>(marks) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load256(lanes: &Lanes<i32>, part: usize) -> __m256i {
        debug_assert!(part < LANES / 8);
        // SAFETY: `part` is at most 3 in every call, and 32 lanes are four vectors of 8.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().add(part * 8).cast()) }
    }

    /// For each part of 8 lanes, all ones in the lanes that are not in the set.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn outside256(words: &[(u32, i32)], columns: &[Lanes<i32>]) -> [__m256i; 4] {
        let mut inside = [_mm256_setzero_si256(); 4];
        for &(column, word) in words {
            let lanes = &columns[column as usize];
            let word = _mm256_set1_epi32(word);
            for (part, inside) in inside.iter_mut().enumerate() {
                *inside = _mm256_or_si256(*inside, _mm256_and_si256(load256(lanes, part), word));
            }
        }
        inside.map(|inside| _mm256_cmpeq_epi32(inside, _mm256_setzero_si256()))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow_avx2(tree: Splits<'_, u32>, columns: &[Lanes<i32>]) -> Lanes<u32> {
        let mut marks = [_mm256_set1_epi32(-1); 4];
        for split in tree.by_rank {
            let lanes = &columns[split.column as usize];
            let rank = _mm256_set1_epi32(split.rank);
            let struck = _mm256_set1_epi32((!split.mask).cast_signed());
            for (part, marks) in marks.iter_mut().enumerate() {
                let right = _mm256_cmpgt_epi32(load256(lanes, part), rank);
                *marks = _mm256_andnot_si256(_mm256_and_si256(right, struck), *marks);
            }
        }
        for split in tree.by_set {
            let words = &tree.words[split.first as usize..][..split.count as usize];
            let struck = _mm256_set1_epi32((!split.mask).cast_signed());
            for (marks, right) in marks.iter_mut().zip(outside256(words, columns)) {
                *marks = _mm256_andnot_si256(_mm256_and_si256(right, struck), *marks);
            }
        }
        // SAFETY: four vectors of 32 bytes are 32 lanes of 4 bytes, and every pattern of bits is a `u32`.
        unsafe { std::mem::transmute::<[__m256i; 4], Lanes<u32>>(marks) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn wide_avx2(tree: Splits<'_, u64>, columns: &[Lanes<i32>]) -> Lanes<u64> {
        let mut marks = [_mm256_set1_epi64x(-1); 8];
        let strike = |marks: &mut [__m256i; 8], part: usize, right: __m256i, struck: __m256i| {
            let halves = [
                _mm256_castsi256_si128(right),
                _mm256_extracti128_si256::<1>(right),
            ];
            for (half, right) in halves.into_iter().enumerate() {
                let marks = &mut marks[part * 2 + half];
                let struck = _mm256_and_si256(_mm256_cvtepi32_epi64(right), struck);
                *marks = _mm256_andnot_si256(struck, *marks);
            }
        };
        for split in tree.by_rank {
            let lanes = &columns[split.column as usize];
            let rank = _mm256_set1_epi32(split.rank);
            let struck = _mm256_set1_epi64x((!split.mask).cast_signed());
            for part in 0..4 {
                let right = _mm256_cmpgt_epi32(load256(lanes, part), rank);
                strike(&mut marks, part, right, struck);
            }
        }
        for split in tree.by_set {
            let words = &tree.words[split.first as usize..][..split.count as usize];
            let struck = _mm256_set1_epi64x((!split.mask).cast_signed());
            for (part, right) in outside256(words, columns).into_iter().enumerate() {
                strike(&mut marks, part, right, struck);
            }
        }
        // SAFETY: eight vectors of 32 bytes are 32 lanes of 8 bytes, and every pattern of bits is a `u64`.
        unsafe { std::mem::transmute::<[__m256i; 8], Lanes<u64>>(marks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Made<M> = (Vec<Split<M>>, Vec<SetSplit<M>>, Vec<(u32, i32)>, Vec<Lanes<i32>>);

    /// Splits and columns that look random.
    fn tree<M: Copy>(mask: impl Fn(u64) -> M) -> Made<M> {
        let mut state = 7_u64;
        let mut next = move || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            state >> 20
        };
        let columns = (0..8)
            .map(|_| std::array::from_fn(|_| next() as i32 % 50))
            .collect();
        let splits = (0..20).map(|_| Split {
            column: next() as u32 % 4,
            rank: next() as i32 % 50,
            mask: mask(next() | next() << 40),
        });
        let splits = splits.collect();
        let words = (0..12)
            .map(|_| (4 + next() as u32 % 4, 1 << (next() % 6)))
            .collect();
        let set_splits = (0..4).map(|split| SetSplit {
            first: split * 3,
            count: 3,
            mask: mask(next() | next() << 40),
        });
        (splits, set_splits.collect(), words, columns)
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_width_of_vectors_strikes_out_the_same_leaves() {
        let narrow = tree(|bits| bits as u32);
        let wide = tree(|bits| bits);
        let narrow_tree = Splits {
            by_rank: &narrow.0,
            by_set: &narrow.1,
            words: &narrow.2,
        };
        let wide_tree = Splits {
            by_rank: &wide.0,
            by_set: &wide.1,
            words: &wide.2,
        };
        let expected = (
            Portable.narrow(narrow_tree, &narrow.3),
            Portable.wide(wide_tree, &wide.3),
        );
        assert!(expected.0.iter().any(|&marks| marks != expected.0[0]));
        if is_x86_feature_detected!("avx2") {
            let kernel = x86::avx2();
            assert_eq!(kernel.narrow(narrow_tree, &narrow.3), expected.0);
            assert_eq!(kernel.wide(wide_tree, &wide.3), expected.1);
        }
        if is_x86_feature_detected!("avx512f") {
            let kernel = x86::avx512();
            assert_eq!(kernel.narrow(narrow_tree, &narrow.3), expected.0);
            assert_eq!(kernel.wide(wide_tree, &wide.3), expected.1);
        }
    }
}
