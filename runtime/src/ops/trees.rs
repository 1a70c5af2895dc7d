//! Ensembles of decision trees ([ONNX TreeEnsemble](https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html)):
//! each row of features walks down every tree, and the weights of the leaves that it reaches are aggregated by target.
//!
//! Trees are untrusted. A tree's nodes are contiguous, and children come after their parent, so that no walk can cycle,
//! and a row takes at most as many steps as there are nodes. The shape rule checks that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::number::Number;
use super::number::{filled, words};
use crate::error::OpError;
use crate::operator::{
    BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, elements_of, saturating_product,
};
use crate::reserve;
use crate::tensor::Tensor;
use crate::tensor::{DType, Fact, Shape};

/// How a node compares its feature with its split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// `x <= split`
    LessEqual,
    /// `x < split`
    Less,
    /// `x >= split`
    GreaterEqual,
    /// `x > split`
    Greater,
    /// `x == split`
    Equal,
    /// `x != split`
    NotEqual,
}

/// Targets of a row that are reset at once.
const TARGETS: usize = 1 << 12;

/// A branch node. A child below the number of nodes is the index of a node, otherwise of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// Column of the features.
    pub feature: u32,
    /// The comparison.
    pub test: Test,
    /// Whether a NaN feature counts as a true comparison.
    pub missing: bool,
    /// The value that the feature is compared with.
    pub split: f64,
    /// Child if the comparison is true.
    pub yes: u32,
    /// Child if it is false.
    pub no: u32,
}

/// How a target's weights are aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregate {
    /// Their sum.
    Sum,
    /// Their sum divided by the number of trees.
    Average,
    /// The smallest; 0 if there are none.
    Min,
    /// The largest; 0 if there are none.
    Max,
}

/// Trees over rows `[n, features]` of f32 or f64; the result is `[n, targets]` in the same type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trees {
    /// Nodes, tree by tree; children after their parent.
    #[serde(deserialize_with = "reserve::deserialize")]
    pub branches: Arc<Vec<Branch>>,
    /// The end of each leaf's weights; they begin at the end of the previous leaf's.
    #[serde(deserialize_with = "reserve::deserialize")]
    pub leaves: Arc<Vec<u32>>,
    /// Target and weight.
    #[serde(deserialize_with = "reserve::deserialize")]
    pub weights: Arc<Vec<(u32, f64)>>,
    /// The root of each tree, encoded like a child.
    #[serde(deserialize_with = "reserve::deserialize")]
    pub roots: Arc<Vec<u32>>,
    /// Columns of the result.
    pub targets: u32,
    /// How a target's weights are aggregated.
    pub aggregate: Aggregate,
}

impl Trees {
    /// Refuses indices out of range and trees in which a walk might not end.
    fn check(&self, features: usize) -> Result<(), OpError> {
        let bad = |reason: String| OpError::Attribute { name: "trees", reason };
        let (nodes, leaves) = (self.branches.len(), self.leaves.len());
        let sorted =
            self.leaves.is_sorted() && self.leaves.last().is_none_or(|&end| end as usize <= self.weights.len());
        if !sorted || self.weights.iter().any(|&(target, weight)| target >= self.targets || weight.is_nan()) {
            return Err(bad("a leaf has a NaN weight, or a weight without a target".into()));
        }
        // The weights that one row can reach: trees that share leaves could multiply them.
        let (mut heaviest, mut end) = (0, nodes);
        for &root in self.roots.iter().rev() {
            let root = root as usize;
            let tree = if root < nodes { root..end } else { 0..0 };
            if root >= nodes + leaves || (root < nodes && root >= end) {
                return Err(bad(format!("root {root} of {nodes} nodes is out of order")));
            }
            let mut most = if root < nodes { 0 } else { self.weights_of(root - nodes).len() };
            for at in tree.clone() {
                let branch = &self.branches[at];
                for child in [branch.yes as usize, branch.no as usize] {
                    if child >= nodes + leaves || (child < nodes && (child <= at || child >= tree.end)) {
                        return Err(bad(format!("node {at} has a child {child} outside of its tree")));
                    }
                    if child >= nodes {
                        most = most.max(self.weights_of(child - nodes).len());
                    }
                }
                if branch.feature as usize >= features {
                    return Err(bad(format!("node {at} reads feature {} of {features}", branch.feature)));
                }
            }
            heaviest += most;
            end = if root < nodes { root } else { end };
        }
        if heaviest > self.weights.len() { Err(bad("trees share leaves".into())) } else { Ok(()) }
    }

    /// Total number of branches on the longest paths of all trees.
    fn deepest(&self) -> usize {
        // Without memory for it, the work counts as more than any limit.
        let Ok(mut depths) = reserve::copies(0usize, self.branches.len()) else { return usize::MAX };
        for (at, branch) in self.branches.iter().enumerate().rev() {
            // Children come after their parent.
            let of = |child: u32| depths.get(child as usize).copied().unwrap_or(0);
            depths[at] = 1 + of(branch.yes).max(of(branch.no));
        }
        let roots = self.roots.iter().filter_map(|&root| depths.get(root as usize));
        roots.fold(0, |sum: usize, depth| sum.saturating_add(*depth))
    }

    /// The weights of a leaf; empty if there is no such leaf.
    fn weights_of(&self, leaf: usize) -> &[(u32, f64)] {
        let start = leaf.checked_sub(1).map_or(Some(0), |before| self.leaves.get(before).map(|&end| end as usize));
        let end = self.leaves.get(leaf).map(|&end| end as usize);
        start.zip(end).and_then(|(start, end)| self.weights.get(start..end)).unwrap_or_default()
    }

    /// Walks all trees for every row.
    fn walk<T: Number>(&self, features: usize, x: &[T], y: &mut [T], pace: &Pace<'_>) -> Result<(), OpError> {
        let extreme = matches!(self.aggregate, Aggregate::Min | Aggregate::Max);
        let rows = y.chunks_exact_mut((self.targets as usize).max(1));
        for (at, y) in rows.enumerate() {
            let x = x.get(at * features..(at + 1) * features).unwrap_or_default();
            for y in y.chunks_mut(TARGETS) {
                pace.spend(16 + y.len())?;
                y.fill(T::from_f64(if extreme { f64::NAN } else { 0.0 }));
            }
            for &root in self.roots.iter() {
                pace.spend(32)?;
                let mut at = root as usize;
                while let Some(branch) = self.branches.get(at) {
                    pace.spend(16)?;
                    let value = x.get(branch.feature as usize).map_or(f64::NAN, |x| x.to_f64());
                    at = if branch.holds(value) { branch.yes } else { branch.no } as usize;
                }
                for &(target, weight) in self.weights_of(at - self.branches.len()) {
                    pace.spend(8)?;
                    let Some(y) = y.get_mut(target as usize) else { continue };
                    let weight = T::from_f64(weight);
                    match self.aggregate {
                        Aggregate::Sum | Aggregate::Average => *y = y.add(weight),
                        Aggregate::Min if weight < *y || y.is_nan() => *y = weight,
                        Aggregate::Max if weight > *y || y.is_nan() => *y = weight,
                        Aggregate::Min | Aggregate::Max => {}
                    }
                }
            }
            for y in y {
                pace.spend(8)?;
                match self.aggregate {
                    Aggregate::Average => *y = T::from_f64(y.to_f64() / self.roots.len().max(1) as f64),
                    Aggregate::Min | Aggregate::Max if y.is_nan() => *y = T::ZERO,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Branch {
    fn holds(&self, value: f64) -> bool {
        let split = self.split;
        let test = match self.test {
            Test::LessEqual => value <= split,
            Test::Less => value < split,
            Test::GreaterEqual => value >= split,
            Test::Greater => value > split,
            Test::Equal => value == split,
            Test::NotEqual => value != split,
        };
        test || (self.missing && value.is_nan())
    }
}

impl Operator for Trees {
    fn name(&self) -> &str {
        "Trees"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let &[rows, features] = &*x.shape else {
            return Err(OpError::shapes("features must be a matrix", &[&x.shape]));
        };
        if !matches!(x.dtype, DType::F32 | DType::F64) {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32 or f64" });
        }
        self.check(features)?;
        Ok(vec![Fact::new(x.dtype, Shape::new(&[rows, self.targets as usize])?)])
    }

    /// Every row walks down every tree.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let rows = inputs.first().and_then(|x| x.shape.first()).copied().unwrap_or(0);
        let of_row = self.deepest().saturating_add(self.weights.len()).saturating_add(self.roots.len());
        saturating_product(&[rows, of_row]).saturating_add(elements_of(outputs))
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "trees".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let features = x.shape.get(1).copied().unwrap_or(0);
        let this = self.clone();
        Ok(match x.dtype {
            DType::F32 => {
                Box::new(move |io: &mut Io<'_, '_>| this.walk::<f32>(features, io.input(0)?, io.output(0)?, &io.pace()))
            }
            _ => {
                Box::new(move |io: &mut Io<'_, '_>| this.walk::<f64>(features, io.input(0)?, io.output(0)?, &io.pace()))
            }
        })
    }
}

impl Semantics for Trees {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let (fact, features) = (self.infer(&[x.fact()])?.remove(0), x.shape()[1]);
        let y = match x.dtype() {
            DType::F32 => filled::<f32>(fact, |y| self.walk::<f32>(features, words(x)?, y, &Pace::free())),
            _ => filled::<f64>(fact, |y| self.walk::<f64>(features, words(x)?, y, &Pace::free())),
        };
        Ok(vec![y?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    const TESTS: [Test; 6] =
        [Test::LessEqual, Test::Less, Test::GreaterEqual, Test::Greater, Test::Equal, Test::NotEqual];

    /// One tree: a chain of nodes, each with a leaf on one side.
    fn chain(tests: &[Test], aggregate: Aggregate) -> Trees {
        let nodes = tests.len() as u32;
        let branch = |(at, &test): (u32, &Test)| Branch {
            feature: at % 2,
            test,
            missing: at.is_multiple_of(3),
            split: f64::from(at) / 2.0,
            yes: if at + 1 == nodes { 2 * nodes } else { at + 1 },
            no: nodes + at,
        };
        Trees {
            branches: (0..).zip(tests).map(branch).collect::<Vec<_>>().into(),
            leaves: (1..=nodes + 1).collect::<Vec<_>>().into(),
            weights: (0..=nodes).map(|leaf| (leaf % 3, f64::from(leaf) - 1.5)).collect::<Vec<_>>().into(),
            roots: vec![0].into(),
            targets: 3,
            aggregate,
        }
    }

    #[test]
    fn any_number_of_rows_walks_the_trees() {
        let mut random = Random(51);
        for aggregate in [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max] {
            for dtype in [DType::F32, DType::F64] {
                for rows in [0, 1, 7] {
                    check(chain(&TESTS, aggregate), &[random.tensor(dtype, &[rows, 2])], 0.0);
                }
            }
        }
    }

    #[test]
    fn missing_values_take_their_branch() {
        // 0.25 <= 0 fails in the first row; the NaN of the second counts as true there, but not in `x < 0.5`.
        let trees = chain(&[Test::LessEqual, Test::Less], Aggregate::Sum);
        let x = Tensor::from_slice(&[3, 2], &[0.25f32, 0.0, f32::NAN, f32::NAN, -1.0, 0.25]).unwrap();
        let y = check(trees, &[x], 0.0);
        let want = [-1.5, 0.0, 0.0, 0.0, -0.5, 0.0, 0.0, 0.0, 0.5];
        assert_eq!(y[0].elements::<f32>(), Some(&want[..]));
    }

    #[test]
    fn impossible_trees_are_refused() {
        let good = chain(&TESTS, Aggregate::Sum);
        let fact = Fact::new(DType::F32, Shape::new(&[1, 2]).unwrap());
        assert!(good.infer(&[&fact]).is_ok());
        let damages: [fn(&mut Trees); 9] = [
            |trees| Arc::make_mut(&mut trees.branches)[3].yes = 3,
            |trees| Arc::make_mut(&mut trees.branches)[3].no = 1,
            |trees| Arc::make_mut(&mut trees.branches)[0].yes = u32::MAX,
            |trees| Arc::make_mut(&mut trees.branches)[2].feature = 2,
            |trees| trees.roots = vec![0, 0].into(),
            |trees| trees.roots = vec![99].into(),
            |trees| Arc::make_mut(&mut trees.leaves)[2] = 99,
            |trees| Arc::make_mut(&mut trees.weights)[1].0 = 3,
            |trees| trees.roots = [vec![0], vec![6; 8]].concat().into(),
        ];
        for (at, damage) in damages.into_iter().enumerate() {
            let mut trees = good.clone();
            damage(&mut trees);
            assert!(trees.infer(&[&fact]).is_err(), "damage {at}");
        }
    }
}
