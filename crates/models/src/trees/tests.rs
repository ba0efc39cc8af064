use proptest::prelude::*;

use super::*;

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

const FEATURES: u32 = 5;

/// A tree in the terms of a format.
#[derive(Debug, Default)]
struct Parts {
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    sets: Vec<u32>,
}

/// A tree of so many leaves with splits of every kind: thresholds among the values, sets, zero as missing, three ways.
fn tree(leaves: usize, width: usize, dice: &mut Dice) -> Parts {
    let mut parts = Parts::default();
    // Begins as one leaf; each split turns a leaf into a node with new leaves.
    let mut open: Vec<Option<(usize, u8)>> = vec![None];
    while open.len() < leaves {
        let at = dice.below(open.len() as u64) as usize;
        let parent = open.swap_remove(at);
        let number = parts.nodes.len();
        attach(&mut parts, parent, number as Child);
        let test = match dice.below(4) {
            0 => Test::AtMostZeroMissing(dice.below(7) as f64 - 3.0),
            1 => {
                let start = parts.sets.len() as u32;
                let words = 1 + dice.below(3) as u32;
                parts
                    .sets
                    .extend((0..words).map(|_| dice.next() as u32 ^ (dice.next() as u32) << 16));
                Test::InSet { start, words }
            }
            _ => Test::AtMost(dice.below(7) as f64 - 3.0),
        };
        parts.nodes.push(Node {
            feature: dice.below(u64::from(FEATURES)) as u32,
            left: 0,
            right: 0,
            missing: 0,
            test,
        });
        open.push(Some((number, 0)));
        open.push(Some((number, 1)));
        if dice.below(4) == 0 {
            open.push(Some((number, 2)));
        }
    }
    for parent in open {
        let leaf = !((parts.leaves.len() / width) as Child);
        parts
            .leaves
            .extend((0..width).map(|_| dice.below(1000) as f64 / 64.0));
        attach(&mut parts, parent, leaf);
    }
    for number in 0..parts.nodes.len() {
        let node = &mut parts.nodes[number];
        if node.missing == 0 {
            node.missing = if dice.below(2) == 0 { node.left } else { node.right };
        }
    }
    parts
}

fn attach(parts: &mut Parts, parent: Option<(usize, u8)>, child: Child) {
    if let Some((number, side)) = parent {
        let node = &mut parts.nodes[number];
        *match side {
            0 => &mut node.left,
            1 => &mut node.right,
            _ => &mut node.missing,
        } = child;
    }
}

/// The leaf at which a row ends, by the words of the format.
fn slow(parts: &Parts, row: &[f64]) -> usize {
    let mut at = if parts.nodes.is_empty() { !0 } else { 0 };
    while at >= 0 {
        let node = &parts.nodes[at as usize];
        let value = row[node.feature as usize];
        let missing = value.is_nan() || matches!(node.test, Test::AtMostZeroMissing(_)) && value == 0.0;
        let left = match node.test {
            Test::AtMost(threshold) | Test::AtMostZeroMissing(threshold) => value <= threshold,
            Test::InSet { start, words } => {
                let code = value as i64;
                (0..i64::from(words) * 32).contains(&code)
                    && parts.sets[start as usize + code as usize / 32] >> (code % 32) & 1 == 1
            }
        };
        at = match (missing, left) {
            (true, _) => node.missing,
            (false, true) => node.left,
            (false, false) => node.right,
        };
    }
    !at as usize
}

proptest! {
    #[test]
    fn blocks_and_single_rows_end_where_the_words_of_the_format_say(
        seed in any::<u64>(),
        sizes in prop::collection::vec(prop_oneof![1_usize..8, 20_usize..40, 50_usize..70, 90_usize..200], 1..6),
        width in 1_usize..4,
        rows in 1_usize..70,
    ) {
        let mut dice = Dice(seed | 1);
        let trees: Vec<Parts> = sizes.iter().map(|&leaves| tree(leaves, width, &mut dice)).collect();
        for precision in [Precision::F64, Precision::F32] {
            let mut builder = Builder::new(FEATURES as usize, vec![0.5; width], Link::Identity, precision);
            for parts in &trees {
                builder.push(TreeParts {
                    output: 0,
                    nodes: &parts.nodes,
                    leaves: &parts.leaves,
                    width: width as u32,
                    sets: &parts.sets,
                    ..TreeParts::default()
                }).unwrap();
            }
            let ensemble = builder.finish();
            let mut cells = vec![0.0; FEATURES as usize * rows];
            for cell in &mut cells {
                *cell = match dice.below(12) {
                    0 => f64::NAN,
                    1 => 0.0,
                    2 => dice.below(130) as f64,
                    3 => -1e300,
                    _ => dice.below(9) as f64 - 4.0,
                };
            }
            let block = Block { cells: &cells, stride: rows, rows };
            let mut out = vec![0.0; rows * width];
            ensemble.predict(block, &mut Workspace::default(), &mut out);
            for row in 0..rows {
                let numbers: Vec<f64> = (0..FEATURES as usize).map(|feature| cells[feature * rows + row]).collect();
                let mut expected = vec![0.5; width];
                for parts in &trees {
                    let leaf = slow(parts, &numbers);
                    for (sum, value) in expected.iter_mut().zip(&parts.leaves[leaf * width..]) {
                        *sum += value;
                    }
                }
                prop_assert_eq!(&out[row * width..][..width], expected.as_slice());
                let mut alone = vec![0.0; width];
                ensemble.predict_row(block, row, &mut Workspace::default(), &mut alone);
                prop_assert_eq!(alone, expected);
            }
        }
    }
}

#[test]
fn what_is_no_tree_is_refused() {
    let node = |left, right| Node {
        feature: 0,
        left,
        right,
        missing: right,
        test: Test::AtMost(0.0),
    };
    let push = |nodes: &[Node], leaves: &[f64]| {
        let mut builder = Builder::new(1, vec![0.0], Link::Identity, Precision::F64);
        builder.push(TreeParts {
            nodes,
            leaves,
            width: 1,
            ..TreeParts::default()
        })
    };
    let refused = |nodes: &[Node], leaves: &[f64]| push(nodes, leaves).unwrap_err().to_string();
    assert!(push(&[node(!0, !1)], &[1.0, 2.0]).is_ok());
    assert!(refused(&[node(0, !0)], &[1.0]).contains("twice"));
    assert!(refused(&[node(!0, !0)], &[1.0]).contains("twice"));
    assert!(refused(&[node(5, !0)], &[1.0]).contains("child `5`"));
    assert!(refused(&[node(!0, !7)], &[1.0]).contains("not there"));
    assert!(refused(&[node(!0, !1)], &[1.0, f64::NAN]).contains("NaN"));
}
