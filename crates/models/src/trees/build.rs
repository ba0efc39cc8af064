//! From the trees of a format to an [`Ensemble`].

use super::columns::{ALWAYS_LEFT, Columns, Fill};
use super::marks::{MOST_WORDS, Marks, Ranks};
use super::shap::Expected;
use super::walk::{BY_SET, COLUMN, MISSING_LEFT, SetRef, Step};
use super::{Child, Ensemble, Form, Link, MOST_SET_WORDS, Node, Precision, Sets, Test, Tree};

/// A tree in the terms of its format. `nodes` and `leaves` refer to each other by their positions, `InSet` to `sets`; node 0 is
/// the root, and a tree without nodes is its first leaf.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TreeParts<'a> {
    /// The output that it adds to; the first, where leaves hold several numbers.
    pub output: u32,
    /// The splits.
    pub nodes: &'a [Node],
    /// The leaves' numbers, leaf by leaf.
    pub leaves: &'a [f64],
    /// Numbers a leaf.
    pub width: u32,
    /// Words of bits.
    pub sets: &'a [u32],
    /// How much of the training came through each split and
    pub node_cover: &'a [f64],
    /// each leaf; empty where the file does not say it.
    pub leaf_cover: &'a [f64],
}

/// Why nodes and leaves are no tree that can be held.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotATree {
    /// More nodes or words than an index can hold.
    #[error("the model has more nodes or sets of categories than can be held")]
    TooLarge,
    /// A cycle, or a node with two parents.
    #[error("the tree reaches a node or a leaf twice")]
    Twice,
    /// A child that is not there.
    #[error("the tree has a child `{0}` that is not there")]
    NoChild(Child),
    /// A number that no row can be compared with.
    #[error("the tree has NaN for a threshold or a leaf")]
    NaN,
}

/// Collects the trees of a model.
#[derive(Debug)]
pub(crate) struct Builder {
    columns: Columns,
    steps: Vec<Step>,
    sets: Sets,
    trees: Vec<(Tree, Shape)>,
    values: Vec<f64>,
    /// One a step; empty as soon as a tree says nothing.
    cover: Vec<f64>,
    features: usize,
    base: Vec<f64>,
    divisor: Option<f64>,
    offset: Vec<f64>,
    link: Link,
    precision: Precision,
}

/// What decides how a tree is held.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    leaves: u32,
    most_words: u32,
}

/// More steps than this would not fit the indices.
const MOST_STEPS: usize = COLUMN as usize;

impl Builder {
    /// An ensemble of no trees over rows of `features` numbers, with one starting value for each output.
    pub fn new(features: usize, base: Vec<f64>, link: Link, precision: Precision) -> Self {
        Self {
            columns: Columns::default(),
            steps: Vec::new(),
            sets: Sets::default(),
            trees: Vec::new(),
            values: Vec::new(),
            cover: Vec::new(),
            features,
            base,
            divisor: None,
            offset: Vec::new(),
            link,
            precision,
        }
    }

    /// Divides the sums by this before the link, as a random forest does.
    pub fn divide_by(&mut self, divisor: f64) {
        self.divisor = Some(divisor);
    }

    /// Adds these to the outputs after the trees.
    pub fn offset_by(&mut self, offset: Vec<f64>) {
        self.offset = offset;
    }

    /// Adds a tree.
    pub fn push(&mut self, tree: TreeParts<'_>) -> Result<(), NotATree> {
        let root = self.steps.len() as u32;
        let width = tree.width.max(1);
        let mut growing = Growing {
            parts: tree,
            width,
            first_set: u32::try_from(self.sets.0.len()).map_err(|_| NotATree::TooLarge)?,
            seen_nodes: vec![false; tree.nodes.len()],
            seen_leaves: vec![false; tree.leaves.len() / width as usize],
            todo: Vec::new(),
            shape: Shape::default(),
            covered: tree.node_cover.len() == tree.nodes.len()
                && tree.leaf_cover.len() == tree.leaves.len() / width as usize
                && self.cover.len() == self.steps.len(),
        };
        if self.sets.0.len() + tree.sets.len() > MOST_SET_WORDS {
            return Err(NotATree::TooLarge);
        }
        let first = if tree.nodes.is_empty() { !0 } else { 0 };
        self.steps.push(Step::leaf(root, 0.0));
        growing.todo.push((Target::Child(first), root));
        while let Some((target, place)) = growing.todo.pop() {
            if self.steps.len() > MOST_STEPS || self.values.len() > MOST_STEPS {
                return Err(NotATree::TooLarge);
            }
            self.place(&mut growing, target, place)?;
        }
        if !growing.covered {
            self.cover = Vec::new();
        }
        let shape = growing.shape;
        self.sets.0.extend_from_slice(tree.sets);
        let tree = Tree {
            root,
            output: tree.output,
            width,
            form: Form::Steps,
        };
        self.trees.push((tree, shape));
        Ok(())
    }

    /// Writes what belongs at `place`.
    fn place(&mut self, growing: &mut Growing<'_>, target: Target, place: u32) -> Result<(), NotATree> {
        let (number, present_only) = match target {
            Target::Child(child) if child < 0 => {
                self.cover(growing, growing.parts.leaf_cover, !child as usize, place);
                let payload = growing.leaf(child, &mut self.values)?;
                self.steps[place as usize] = Step::leaf(place, payload);
                return Ok(());
            }
            Target::Child(child) => (child as usize, false),
            Target::Present(node) => (node, true),
        };
        let node = growing.node(number, present_only)?;
        self.cover(growing, growing.parts.node_cover, number, place);
        let child = self.steps.len() as u32;
        self.steps.push(Step::leaf(child, 0.0));
        self.steps.push(Step::leaf(child + 1, 0.0));
        let third = node.missing != node.left && node.missing != node.right;
        let zero_missing = matches!(node.test, Test::AtMostZeroMissing(_));
        if third && !present_only {
            // How many rows had a value is not said.
            growing.covered = false;
            // Three ways: first whether there is a value, then the question.
            let fill = if zero_missing {
                Fill::ZeroMissing
            } else {
                Fill::Missing
            };
            let column = self.columns.number(node.feature, fill);
            self.steps[place as usize] = Step {
                threshold: 0.0,
                column,
                child,
            };
            growing.todo.push((Target::Present(number), child + 1));
            growing.todo.push((Target::Child(node.missing), child));
            return Ok(());
        }
        let missing_left = node.missing == node.left;
        let (threshold, column) = match node.test {
            Test::AtMost(threshold) => {
                let fill = if missing_left { Fill::Left } else { Fill::Right };
                (threshold, self.columns.number(node.feature, fill))
            }
            Test::AtMostZeroMissing(threshold) => {
                let fill = if missing_left {
                    Fill::ZeroLeft
                } else {
                    Fill::ZeroRight
                };
                (threshold, self.columns.number(node.feature, fill))
            }
            Test::InSet { start, words } => {
                let fits = start
                    .checked_add(words)
                    .is_some_and(|end| end as usize <= growing.parts.sets.len());
                if !fits {
                    return Err(NotATree::NoChild(start as Child));
                }
                growing.shape.most_words = growing.shape.most_words.max(words);
                let start = start.checked_add(growing.first_set).ok_or(NotATree::TooLarge)?;
                let missing = if missing_left { MISSING_LEFT } else { 0 };
                let column = self.columns.number(node.feature, Fill::Right);
                (SetRef { start, words }.pack(), column | missing | BY_SET)
            }
        };
        if threshold.is_nan() && column & BY_SET == 0 {
            return Err(NotATree::NaN);
        }
        self.steps[place as usize] = Step {
            threshold,
            column,
            child,
        };
        growing.todo.push((Target::Child(node.right), child + 1));
        growing.todo.push((Target::Child(node.left), child));
        Ok(())
    }

    /// Notes how much of the training came through the step at `place`.
    fn cover(&mut self, growing: &Growing<'_>, cover: &[f64], number: usize, place: u32) {
        if growing.covered
            && let Some(&cover) = cover.get(number)
        {
            self.cover.resize(self.steps.len(), 0.0);
            self.cover[place as usize] = cover;
        }
    }

    /// The ensemble.
    pub fn finish(self) -> Ensemble {
        let Self {
            mut columns,
            steps,
            sets,
            trees,
            values,
            cover,
            features,
            base,
            divisor,
            offset,
            link,
            precision,
        } = self;
        columns.seal();
        let bits = |shape: &Shape| match shape.leaves {
            _ if shape.most_words > MOST_WORDS => 0,
            0..=32 => 32,
            33..=64 => 64,
            _ => 0,
        };
        let mut ranks = Ranks::default();
        for (position, (tree, shape)) in trees.iter().enumerate() {
            if bits(shape) == 0 {
                continue;
            }
            let end = trees
                .get(position + 1)
                .map_or(steps.len(), |(next, _)| next.root as usize);
            for step in &steps[tree.root as usize..end] {
                if step.column != ALWAYS_LEFT && step.column & BY_SET == 0 {
                    ranks.learn(step.column, step.threshold);
                }
            }
        }
        ranks.sort();
        let (mut narrow, mut wide, mut payloads) =
            (Marks::<u32>::default(), Marks::<u64>::default(), Vec::new());
        let trees = trees.into_iter().map(|(mut tree, shape)| {
            let at = payloads.len() as u32;
            let marked = match bits(&shape) {
                32 => narrow.push(&steps, tree.root, &sets, &mut ranks),
                64 => wide.push(&steps, tree.root, &sets, &mut ranks),
                _ => return tree,
            };
            tree.form = if bits(&shape) == 32 {
                Form::Narrow(marked.number, at)
            } else {
                Form::Wide(marked.number, at)
            };
            payloads.extend_from_slice(&marked.leaves);
            payloads.resize(at as usize + bits(&shape), 0.0);
            tree
        });
        let trees: Vec<Tree> = trees.collect();
        ranks.seal();
        let covered = cover.len() == steps.len() && !trees.is_empty();
        let expected = covered.then(|| Expected::of(cover, &steps, &trees, &values, base.len()));
        Ensemble {
            columns,
            steps,
            sets,
            trees,
            values,
            ranks,
            narrow,
            wide,
            payloads,
            features,
            expected,
            base,
            divisor,
            offset,
            link,
            precision,
        }
    }
}

/// What is to be written at a place.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// A node or a leaf.
    Child(Child),
    /// A node's question, after it was asked whether there is a value.
    Present(usize),
}

/// A tree on its way into steps.
struct Growing<'a> {
    parts: TreeParts<'a>,
    width: u32,
    first_set: u32,
    seen_nodes: Vec<bool>,
    seen_leaves: Vec<bool>,
    todo: Vec<(Target, u32)>,
    shape: Shape,
    covered: bool,
}

impl Growing<'_> {
    fn node(&mut self, number: usize, again: bool) -> Result<Node, NotATree> {
        let node = *self
            .parts
            .nodes
            .get(number)
            .ok_or(NotATree::NoChild(number as Child))?;
        if std::mem::replace(&mut self.seen_nodes[number], true) && !again {
            return Err(NotATree::Twice);
        }
        Ok(node)
    }

    fn leaf(&mut self, child: Child, values: &mut Vec<f64>) -> Result<f64, NotATree> {
        let number = !child as usize;
        let seen = self.seen_leaves.get_mut(number).ok_or(NotATree::NoChild(child))?;
        if std::mem::replace(seen, true) {
            return Err(NotATree::Twice);
        }
        self.shape.leaves += 1;
        let width = self.width as usize;
        let leaf = &self.parts.leaves[number * width..][..width];
        if leaf.iter().any(|value| value.is_nan()) {
            return Err(NotATree::NaN);
        }
        if let &[value] = leaf {
            return Ok(value);
        }
        values.extend_from_slice(leaf);
        Ok((values.len() - width) as f64)
    }
}
