//! One engine for every tree ensemble: flat arrays, `f64`, no allocation per row, and answers that equal those of the library
//! that trained the model to the last bit (same comparisons, same order of sums).

mod link;

pub(crate) use link::Link;

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

/// The trees of a model and how their leaves become an answer.
#[derive(Debug)]
pub(crate) struct Ensemble {
    nodes: Vec<Node>,
    leaves: Vec<f64>,
    sets: Vec<u32>,
    /// The root of each tree, and to which output it adds.
    roots: Vec<(Child, u32)>,
    base: Vec<f64>,
    divisor: Option<f64>,
    link: Link,
}

/// More nodes or leaves than an index can hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model has more than two thousand million nodes")]
pub(crate) struct TooLarge;

impl Ensemble {
    /// An ensemble of no trees, with one starting value for each output.
    pub fn new(base: Vec<f64>, link: Link) -> Self {
        Self {
            nodes: Vec::new(),
            leaves: Vec::new(),
            sets: Vec::new(),
            roots: Vec::new(),
            base,
            divisor: None,
            link,
        }
    }

    /// Numbers in the answer to a row.
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// Divides the sums by this before the link, as a random forest does.
    pub fn divide_by(&mut self, divisor: f64) {
        self.divisor = Some(divisor);
    }

    /// Adds a tree. `nodes` and `leaves` refer to each other by their positions in these slices, `InSet` to `sets`; node 0 is
    /// the root, and a tree without nodes is its first leaf. Children come after their parents, so every walk ends.
    pub fn push_tree(
        &mut self,
        output: u32,
        nodes: &[Node],
        leaves: &[f64],
        sets: &[u32],
    ) -> Result<(), TooLarge> {
        let first_node = Child::try_from(self.nodes.len()).map_err(|_| TooLarge)?;
        let first_leaf = Child::try_from(self.leaves.len()).map_err(|_| TooLarge)?;
        let first_set = u32::try_from(self.sets.len()).map_err(|_| TooLarge)?;
        let move_child = |child: Child| {
            let moved = if child >= 0 {
                child.checked_add(first_node)
            } else {
                child.checked_sub(first_leaf)
            };
            moved.ok_or(TooLarge)
        };
        for node in nodes {
            let test = match node.test {
                Test::InSet { start, words } => Test::InSet {
                    start: start.checked_add(first_set).ok_or(TooLarge)?,
                    words,
                },
                other => other,
            };
            self.nodes.push(Node {
                feature: node.feature,
                left: move_child(node.left)?,
                right: move_child(node.right)?,
                missing: move_child(node.missing)?,
                test,
            });
        }
        self.leaves.extend_from_slice(leaves);
        self.sets.extend_from_slice(sets);
        let root = if nodes.is_empty() { !0 } else { 0 };
        self.roots.push((move_child(root)?, output));
        Ok(())
    }

    /// Answers `rows` (row-major, `features` numbers each) into `out` (row-major, [`Self::outputs`] numbers each).
    pub fn predict(&self, rows: &[f64], features: usize, out: &mut [f64]) {
        let width = self.outputs();
        for answer in out.chunks_exact_mut(width) {
            answer.copy_from_slice(&self.base);
        }
        // Tree by tree over the block, so that a tree stays in the cache; the order of each row's sums is the trees' order.
        for &(root, output) in &self.roots {
            let sums = out.iter_mut().skip(output as usize).step_by(width);
            for (sum, row) in sums.zip(rows.chunks_exact(features)) {
                *sum += self.leaf(root, row);
            }
        }
        for answer in out.chunks_exact_mut(width) {
            if let Some(divisor) = self.divisor {
                for sum in answer.iter_mut() {
                    *sum /= divisor;
                }
            }
            self.link.apply(answer);
        }
    }

    fn leaf(&self, root: Child, row: &[f64]) -> f64 {
        let mut at = root;
        while at >= 0 {
            let node = &self.nodes[at as usize];
            let value = row[node.feature as usize];
            at = self.next(node, value);
        }
        self.leaves[!at as usize]
    }

    fn next(&self, node: &Node, value: f64) -> Child {
        if value.is_nan() {
            return node.missing;
        }
        let left = match node.test {
            Test::AtMost(threshold) => value <= threshold,
            Test::AtMostZeroMissing(threshold) => {
                if value.abs() <= crate::encode::LIGHTGBM_ZERO {
                    return node.missing;
                }
                value <= threshold
            }
            Test::InSet { start, words } => {
                let code = value as i64;
                let word = code >> 5;
                (0..i64::from(words)).contains(&word)
                    && (self.sets[start as usize + word as usize] >> (code & 31)) & 1 == 1
            }
        };
        if left { node.left } else { node.right }
    }

    /// How many trees.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }
}
