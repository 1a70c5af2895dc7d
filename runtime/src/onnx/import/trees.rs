//! ai.onnx.ml: ensembles of decision trees, from the file's lists of nodes and leaves to the trees of
//! [`crate::ops::trees`].
//!
//! Up to opset 3, a node is identified by its tree's number and a number within the tree, and a leaf is a node; since
//! opset 5 nodes and leaves are two lists, and children are positions in them.

use std::collections::HashMap;
use std::hash::Hash;

use super::build::{Halt, Imported};
use super::call::Call;
use super::ml::{PostTransform, labels, one_column, post_transform, rows};
use super::table::{Entry, classical};
use super::tensor;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::trees::{Aggregate, Branch, Test, Trees};
use crate::reserve;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    classical(&["TreeEnsembleClassifier"], classifier),
    classical(&["TreeEnsembleRegressor"], regressor),
    classical(&["TreeEnsemble"], ensemble),
];

/// A node or leaf of the file, by its position in the lists.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Child {
    Node(usize),
    Leaf(usize),
}

/// A branch node of the file.
struct BranchNode {
    feature: u32,
    test: Test,
    /// The value that the feature is compared with; several for membership in a set.
    splits: Vec<f64>,
    missing: bool,
    yes: Child,
    no: Child,
}

/// Trees as in the file.
struct Forest {
    nodes: Vec<BranchNode>,
    leaves: Vec<Vec<(u32, f64)>>,
    roots: Vec<Child>,
}

impl Forest {
    /// Puts nodes into the order of a walk. Every node must have one parent, and be reachable.
    fn planted(self, cx: &Call<'_, '_>, targets: u32, aggregate: Aggregate) -> Result<Trees, Halt> {
        let refuse = |reason: String| cx.attribute_error("nodes", reason);
        let total = self.nodes.iter().map(|node| node.splits.len()).sum::<usize>();
        let mut places: HashMap<usize, usize> = map(self.nodes.len()).map_err(|e| cx.at(e))?;
        let mut order = cx.reserve(self.nodes.len())?;
        let mut next = 0;
        for &root in &self.roots {
            let mut open = vec![root];
            while let Some(child) = open.pop() {
                let Child::Node(at) = child else { continue };
                if places.insert(at, next).is_some() {
                    return Err(refuse(format!("refer to node {at} twice")));
                }
                let node = &self.nodes[at];
                order.push(node);
                next += node.splits.len();
                for child in [node.no, node.yes] {
                    reserve::push(&mut open, child).map_err(|e| cx.at(e))?;
                }
            }
        }
        if order.len() != self.nodes.len() {
            return Err(refuse(format!("are {}, of which {} are reached from a root", self.nodes.len(), order.len())));
        }
        let number = |at: usize| u32::try_from(at).map_err(|_| refuse("are too many".into()));
        number(total.saturating_add(self.leaves.len()))?;
        let code = |child: Child| match child {
            Child::Node(at) => places.get(&at).copied().unwrap_or(usize::MAX) as u32,
            Child::Leaf(at) => (total + at) as u32,
        };
        let mut branches: Vec<Branch> = cx.reserve(total)?;
        for node in order {
            // Members of a set are compared one after the other.
            for (at, &split) in node.splits.iter().enumerate() {
                let last = at + 1 == node.splits.len();
                let no = if last { code(node.no) } else { branches.len() as u32 + 1 };
                let (feature, test, missing) = (node.feature, node.test, node.missing);
                branches.push(Branch { feature, test, missing, split, yes: code(node.yes), no });
            }
        }
        let mut ends: Vec<u32> = cx.reserve(self.leaves.len())?;
        let mut weights: Vec<(u32, f64)> = cx.reserve(self.leaves.iter().map(Vec::len).sum())?;
        for leaf in self.leaves {
            weights.extend(leaf);
            ends.push(number(weights.len())?);
        }
        let roots = cx.list(self.roots.into_iter().map(code))?;
        let (branches, leaves, weights, roots) = (branches.into(), ends.into(), weights.into(), roots.into());
        Ok(Trees { branches, leaves, weights, roots, targets, aggregate })
    }
}

/// A list given as floats or as a tensor.
fn floats(cx: &Call<'_, '_>, name: &'static str, as_tensor: &'static str) -> Result<Option<Vec<f64>>, Halt> {
    match cx.floats(name)? {
        Some(floats) => cx.list(floats.into_iter().map(f64::from)).map(Some),
        None => tensor_floats(cx, as_tensor),
    }
}

/// A list given as a tensor of floats.
fn tensor_floats(cx: &Call<'_, '_>, name: &'static str) -> Result<Option<Vec<f64>>, Halt> {
    let Some(tensor) = cx.tensor(name)? else { return Ok(None) };
    let held = tensor::dense(tensor, cx.files)?.tensor;
    match (held.peek::<f32>(), held.peek::<f64>()) {
        (Some(floats), _) => cx.list(floats.iter().map(f64::from)).map(Some),
        (_, Some(floats)) => cx.list(floats.iter()).map(Some),
        _ => Err(cx.attribute_error(name, format!("has elements of type {}", held.dtype()))),
    }
}

/// Refuses a list whose length differs from the list of nodes.
fn as_long<T>(cx: &Call<'_, '_>, name: &'static str, list: Option<Vec<T>>, len: usize) -> Result<Vec<T>, Halt> {
    let list = list.unwrap_or_default();
    if list.len() == len {
        return Ok(list);
    }
    Err(cx.attribute_error(name, format!("has {} elements for {len}", list.len())))
}

/// The trees of an operator up to opset 3; `lists` names the lists of the leaves' weights.
fn old_forest(cx: &Call<'_, '_>, lists: [&'static str; 5], targets: usize) -> Result<Forest, Halt> {
    let tree_ids = cx.ints("nodes_treeids")?.unwrap_or_default();
    let len = tree_ids.len();
    let list = |name| as_long(cx, name, cx.ints(name)?, len);
    let (ids, features) = (list("nodes_nodeids")?, list("nodes_featureids")?);
    let (yes, no) = (list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
    let modes = as_long(cx, "nodes_modes", cx.texts("nodes_modes")?, len)?;
    let splits = as_long(cx, "nodes_values", floats(cx, "nodes_values", "nodes_values_as_tensor")?, len)?;
    let missing = "nodes_missing_value_tracks_true";
    let missing = match cx.ints(missing)?.filter(|list| !list.is_empty()) {
        Some(list) => as_long(cx, missing, Some(list), len)?,
        None => cx.copies(0, len)?,
    };

    // Nodes and leaves are numbered separately.
    let mut known: HashMap<(i64, i64), Child> = map(len).map_err(|e| cx.at(e))?;
    let (mut nodes, mut leaves) = (0, 0);
    for (at, (&tree, &id)) in tree_ids.iter().zip(&ids).enumerate() {
        let (count, child): (&mut usize, fn(usize) -> Child) =
            if modes[at] == "LEAF" { (&mut leaves, Child::Leaf) } else { (&mut nodes, Child::Node) };
        if known.insert((tree, id), child(*count)).is_some() {
            return Err(cx.attribute_error("nodes_nodeids", format!("has node {id} of tree {tree} twice")));
        }
        *count += 1;
    }
    let mut forest = Forest { nodes: cx.reserve(nodes)?, leaves: cx.copies(Vec::new(), leaves)?, roots: Vec::new() };
    // With room for the children that a file lists but does not have.
    let mut parents: HashMap<(i64, i64), usize> = map(2 * len).map_err(|e| cx.at(e))?;
    for at in (0..len).filter(|&at| modes[at] != "LEAF") {
        let mut child = |id: i64| {
            *parents.entry((tree_ids[at], id)).or_insert(0) += 1;
            known.get(&(tree_ids[at], id)).copied().ok_or_else(|| {
                cx.attribute_error(
                    "nodes_truenodeids",
                    format!("refers to node {id}, which tree {} does not have", tree_ids[at]),
                )
            })
        };
        let (yes, no) = (child(yes[at])?, child(no[at])?);
        let feature = feature(cx, features[at])?;
        let test = test(cx, modes[at])?;
        forest.nodes.push(BranchNode { feature, test, splits: vec![splits[at]], missing: missing[at] != 0, yes, no });
    }
    let mut trees: HashMap<i64, i64> = map(len).map_err(|e| cx.at(e))?;
    for (&tree, &id) in tree_ids.iter().zip(&ids).filter(|(tree, id)| !parents.contains_key(&(**tree, **id))) {
        if trees.insert(tree, id).is_some() {
            return Err(cx.attribute_error("nodes_nodeids", format!("gives tree {tree} two roots")));
        }
        if let Some(&root) = known.get(&(tree, id)) {
            reserve::push(&mut forest.roots, root).map_err(|e| cx.at(e))?;
        }
    }

    let [tree_list, node_list, target_list, weight_list, weight_tensor] = lists;
    let weights = floats(cx, weight_list, weight_tensor)?.unwrap_or_default();
    let list = |name| as_long(cx, name, cx.ints(name)?, weights.len());
    let (of_tree, of_node, to) = (list(tree_list)?, list(node_list)?, list(target_list)?);
    for (at, &weight) in weights.iter().enumerate() {
        let target = u32::try_from(to[at]).ok().filter(|&target| (target as usize) < targets);
        let target = target
            .ok_or_else(|| cx.attribute_error(target_list, format!("refers to target {} of {targets}", to[at])))?;
        match known.get(&(of_tree[at], of_node[at])) {
            Some(&Child::Leaf(leaf)) => forest.leaves[leaf].push((target, weight)),
            // Some converters also write the weights of inner nodes.
            Some(Child::Node(_)) => {}
            None => {
                let what = format!("refers to node {}, which tree {} does not have", of_node[at], of_tree[at]);
                return Err(cx.attribute_error(node_list, what));
            }
        }
    }
    Ok(forest)
}

fn feature(cx: &Call<'_, '_>, id: i64) -> Result<u32, Halt> {
    u32::try_from(id).map_err(|_| cx.attribute_error("nodes_featureids", format!("has {id}")))
}

fn test(cx: &Call<'_, '_>, mode: &str) -> Result<Test, Halt> {
    Ok(match mode {
        "BRANCH_LEQ" => Test::LessEqual,
        "BRANCH_LT" => Test::Less,
        "BRANCH_GTE" => Test::GreaterEqual,
        "BRANCH_GT" => Test::Greater,
        "BRANCH_EQ" => Test::Equal,
        "BRANCH_NEQ" => Test::NotEqual,
        other => return Err(cx.attribute_error("nodes_modes", format!("has '{other}'"))),
    })
}

/// Rows of f32 or f64; integers are compared as floats.
fn features(cx: &mut Call<'_, '_>) -> Result<ValueId, Halt> {
    let x = rows(cx)?;
    if cx.dtype(x) == DType::F64 { Ok(x) } else { cx.cast(x, DType::F32) }
}

/// Adds base values, one per column.
fn add_base(cx: &mut Call<'_, '_>, scores: ValueId, columns: usize) -> Result<ValueId, Halt> {
    let base = floats(cx, "base_values", "base_values_as_tensor")?.unwrap_or_default();
    if base.is_empty() {
        return Ok(scores);
    }
    let base = as_long(cx, "base_values", Some(base), columns)?;
    let base: Vec<f32> = base.into_iter().map(|base| base as f32).collect();
    let base = cx.elements(&[1, columns], &base)?;
    cx.binary(BinaryKind::Add, scores, base)
}

const CLASS: [&str; 5] = ["class_treeids", "class_nodeids", "class_ids", "class_weights", "class_weights_as_tensor"];
const TARGET: [&str; 5] =
    ["target_treeids", "target_nodeids", "target_ids", "target_weights", "target_weights_as_tensor"];

/// If all weights are for the first of two classes, they are the score of the second.
fn classifier(cx: &mut Call<'_, '_>) -> Imported {
    let classes = cx.classes()?;
    let (count, transform) = (classes.count(), cx.transform()?);
    if count < 2 {
        return Err(cx.attribute_error("classlabels_int64s", "names fewer than two classes"));
    }
    let x = features(cx)?;
    let used = cx.ints(CLASS[2])?.unwrap_or_default();
    let single = count == 2 && !used.is_empty() && used.iter().all(|&id| id == used[0]);
    if single && used[0] != 0 {
        return Err(
            cx.attribute_error("class_ids", "are all of the second class, which runtimes interpret differently")
        );
    }
    let columns = if single { 1 } else { count };
    let trees = old_forest(cx, CLASS, columns)?.planted(cx, columns as u32, Aggregate::Sum)?;
    let scores = cx.add(trees, &[x])?;
    let scores = cx.cast(scores, DType::F32)?;
    let scores = add_base(cx, scores, columns)?;
    if single {
        let scores = one_column(cx, scores, transform)?;
        return Ok(vec![labels(cx, &classes, scores)?, scores]);
    }
    let label = labels(cx, &classes, scores)?;
    Ok(vec![label, post_transform(cx, scores, transform)?])
}

fn regressor(cx: &mut Call<'_, '_>) -> Imported {
    let targets = cx.int("n_targets", 1)?;
    let targets = u32::try_from(targets).ok().filter(|&targets| targets > 0 && targets < 1 << 20);
    let targets = targets.ok_or_else(|| cx.attribute_error("n_targets", "is out of range"))?;
    let aggregate = match cx.text("aggregate_function")? {
        None | Some("SUM") => Aggregate::Sum,
        Some("AVERAGE") => Aggregate::Average,
        Some("MIN") => Aggregate::Min,
        Some("MAX") => Aggregate::Max,
        Some(other) => return Err(cx.attribute_error("aggregate_function", format!("is '{other}'"))),
    };
    let transform = cx.transform()?;
    let x = features(cx)?;
    let trees = old_forest(cx, TARGET, targets as usize)?.planted(cx, targets, aggregate)?;
    let scores = cx.add(trees, &[x])?;
    let scores = cx.cast(scores, DType::F32)?;
    let scores = add_base(cx, scores, targets as usize)?;
    Ok(vec![transformed(cx, scores, transform)?])
}

/// Like ONNX Runtime, does not transform a single target, except by PROBIT.
fn transformed(cx: &mut Call<'_, '_>, scores: ValueId, transform: PostTransform) -> Result<ValueId, Halt> {
    if cx.shape(scores)[1] == 1 && transform != PostTransform::Probit {
        return Ok(scores);
    }
    post_transform(cx, scores, transform)
}

/// The operator of opset 5: lists of nodes, and of leaves with one weight each.
fn ensemble(cx: &mut Call<'_, '_>) -> Imported {
    let targets = cx.int("n_targets", 1)?;
    let targets = u32::try_from(targets).ok().filter(|&targets| targets > 0 && targets < 1 << 20);
    let targets = targets.ok_or_else(|| cx.attribute_error("n_targets", "is out of range"))?;
    let aggregate = match cx.int("aggregate_function", 1)? {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(cx.attribute_error("aggregate_function", format!("is {other}"))),
    };
    // ONNX Runtime uses 1 for LOGISTIC and 2 for SOFTMAX, the specification the reverse.
    let transform = match cx.int("post_transform", 0)? {
        0 => PostTransform::None,
        3 => PostTransform::SoftmaxZero,
        4 => PostTransform::Probit,
        other => {
            let reason =
                format!("is {other}, which runtimes interpret differently; apply Softmax or Sigmoid after the trees");
            return Err(cx.attribute_error("post_transform", reason));
        }
    };
    let x = features(cx)?;
    let forest = new_forest(cx, targets)?;
    let trees = forest.planted(cx, targets, aggregate)?;
    let scores = cx.add(trees, &[x])?;
    Ok(vec![transformed(cx, scores, transform)?])
}

fn new_forest(cx: &Call<'_, '_>, targets: u32) -> Result<Forest, Halt> {
    let feature_ids = cx.ints("nodes_featureids")?.unwrap_or_default();
    let len = feature_ids.len();
    let list = |name| as_long(cx, name, cx.ints(name)?, len);
    let (yes, yes_leaf) = (list("nodes_truenodeids")?, list("nodes_trueleafs")?);
    let (no, no_leaf) = (list("nodes_falsenodeids")?, list("nodes_falseleafs")?);
    let missing = "nodes_missing_value_tracks_true";
    let missing = match cx.ints(missing)? {
        Some(list) => as_long(cx, missing, Some(list), len)?,
        None => cx.copies(0, len)?,
    };
    let numbers = |name| tensor_floats(cx, name);
    let splits = as_long(cx, "nodes_splits", numbers("nodes_splits")?, len)?;
    let modes = match cx.tensor("nodes_modes")? {
        Some(modes) => {
            let modes = tensor::dense(modes, cx.files)?.tensor;
            modes.peek::<u8>().map(|modes| cx.list(modes.iter())).transpose()?
        }
        None => None,
    };
    let modes = as_long(cx, "nodes_modes", modes, len)?;
    let leaf_targets = cx.ints("leaf_targetids")?.unwrap_or_default();
    let weights = as_long(cx, "leaf_weights", numbers("leaf_weights")?, leaf_targets.len())?;
    let child = |at: i64, leaf: i64| {
        let count = if leaf != 0 { weights.len() } else { len };
        let at = usize::try_from(at).ok().filter(|&at| at < count);
        let at = at.ok_or_else(|| cx.attribute_error("nodes_truenodeids", "refers to a child that does not exist"))?;
        Ok::<_, Halt>(if leaf != 0 { Child::Leaf(at) } else { Child::Node(at) })
    };
    // The members of sets, each set terminated by a NaN, in the order of their nodes.
    let members = numbers("membership_values")?.unwrap_or_default();
    let mut sets = members.split(|member| member.is_nan());
    let mut nodes = cx.reserve(len)?;
    for at in 0..len {
        let (test, splits) = match modes[at] {
            6 => {
                let set = sets.next().unwrap_or_default();
                // NaN equals nothing.
                (Test::Equal, if set.is_empty() { vec![f64::NAN] } else { cx.list(set.iter().copied())? })
            }
            mode => {
                let tests =
                    [Test::LessEqual, Test::Less, Test::GreaterEqual, Test::Greater, Test::Equal, Test::NotEqual];
                let test = tests.get(usize::from(mode)).copied();
                (test.ok_or_else(|| cx.attribute_error("nodes_modes", format!("has {mode}")))?, vec![splits[at]])
            }
        };
        let (yes, no) = (child(yes[at], yes_leaf[at])?, child(no[at], no_leaf[at])?);
        nodes.push(BranchNode {
            feature: feature(cx, feature_ids[at])?,
            test,
            splits,
            missing: missing[at] != 0,
            yes,
            no,
        });
    }
    let leaf = |(&target, &weight): (&i64, &f64)| match u32::try_from(target).ok().filter(|&target| target < targets) {
        Some(target) => Ok(vec![(target, weight)]),
        None => Err(cx.attribute_error("leaf_targetids", format!("refers to target {target} of {targets}"))),
    };
    let mut leaves = cx.reserve(weights.len())?;
    for pair in leaf_targets.iter().zip(&weights) {
        leaves.push(leaf(pair)?);
    }
    let roots = cx.ints("tree_roots")?.unwrap_or_default();
    let roots = reserve::results(roots.into_iter().map(|root| child(root, 0)))?;
    Ok(Forest { nodes, leaves, roots })
}

/// An empty map with room for `len` entries.
///
/// # Errors
/// Not enough memory.
fn map<K: Eq + Hash, V>(len: usize) -> Result<HashMap<K, V>, OpError> {
    let mut map = HashMap::new();
    map.try_reserve(len).map_err(|_| OpError::no_memory(len.saturating_mul(size_of::<(K, V)>())))?;
    Ok(map)
}

#[cfg(test)]
mod tests {
    use skipstone_onnx::write::{
        FLOAT, Message, floats, graph, ints, model_with, named, node, opset, text, value as input,
    };

    use crate::{Model, Options, Tensor};

    /// A classifier of two trees, each with a node and two leaves; `change` modifies its lists.
    fn trees(change: impl Fn(&str, &mut Vec<i64>), labels: Message, outputs: &[&str]) -> crate::Result<Model> {
        let list = |name: &str, held: &[i64]| {
            let mut held = held.to_vec();
            change(name, &mut held);
            ints(name, &held)
        };
        let modes = ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"];
        let attributes = [
            list("nodes_treeids", &[0, 0, 0, 1, 1, 1]),
            list("nodes_nodeids", &[0, 1, 2, 0, 1, 2]),
            list("nodes_featureids", &[0, 0, 0, 1, 0, 0]),
            Message::new().text(1, "nodes_modes").texts(9, &modes).int(20, 8),
            floats("nodes_values", &[0.5, 0.0, 0.0, -0.5, 0.0, 0.0]),
            list("nodes_truenodeids", &[1, 0, 0, 1, 0, 0]),
            list("nodes_falsenodeids", &[2, 0, 0, 2, 0, 0]),
            list("class_treeids", &[0, 0, 1, 1]),
            list("class_nodeids", &[1, 2, 1, 2]),
            list("class_ids", &[0, 1, 0, 1]),
            floats("class_weights", &[0.75, 0.5, 0.125, 1.0]),
            labels,
        ];
        let trees = node("TreeEnsembleClassifier", &["x"], &["label", "scores"], &attributes).text(7, "ai.onnx.ml");
        let outputs: Vec<Message> = outputs.iter().map(|name| named(name)).collect();
        let graph = graph(&[trees], &[], &[input("x", FLOAT, &[2, 2])], &outputs);
        Model::from_bytes(&model_with(&graph, &[opset("", 17), opset("ai.onnx.ml", 3)]), &Options::default())
    }

    fn numbers() -> Message {
        ints("classlabels_int64s", &[7, 3])
    }

    #[test]
    fn rows_are_classified() {
        let model = trees(|_, _| {}, numbers(), &["label", "scores"]).unwrap();
        let mut session = model.session().unwrap();
        session.run(&[Tensor::from_slice(&[2, 2], &[0.5f32, -1.0, 1.0, 0.0]).unwrap().view()]).unwrap();
        assert_eq!(session.output(0).unwrap().elements::<i64>(), Some(&[7, 3][..]));
        assert_eq!(session.output(1).unwrap().elements::<f32>(), Some(&[0.875, 0.0, 0.0, 1.5][..]));
    }

    #[test]
    fn lists_that_do_not_form_trees_are_refused() {
        let damages: [(&str, usize, i64, &str); 9] = [
            ("nodes_truenodeids", 0, 0, "are 2, of which 1 are reached"),
            ("nodes_truenodeids", 0, 9, "refers to node 9"),
            ("nodes_nodeids", 1, 0, "has node 0 of tree 0 twice"),
            ("nodes_falsenodeids", 0, 1, "gives tree 0 two roots"),
            ("nodes_featureids", 0, -1, "has -1"),
            ("nodes_featureids", 0, 2, "feature 2 of 2"),
            ("class_nodeids", 0, 5, "refers to node 5"),
            ("class_ids", 0, 2, "refers to target 2 of 2"),
            ("class_ids", 0, -1, "refers to target -1 of 2"),
        ];
        for (list, at, to, why) in damages {
            let change = |name: &str, held: &mut Vec<i64>| {
                if name == list {
                    held[at] = to
                }
            };
            let error = trees(change, numbers(), &["label"]).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(why), "{list}: {error}");
        }
        let short = |name: &str, held: &mut Vec<i64>| {
            if name == "nodes_truenodeids" {
                held.truncate(5)
            }
        };
        assert!(trees(short, numbers(), &["label"]).is_err());
    }

    /// The names become the labels of the model.
    #[test]
    fn text_labels_are_indices_of_names() {
        let texts = || Message::new().text(1, "classlabels_strings").texts(9, &["cat", "dog"]).int(20, 8);
        assert!(trees(|_, _| {}, texts(), &["scores"]).is_ok());
        let model = trees(|_, _| {}, texts(), &["label", "scores"]).unwrap();
        assert_eq!(model.info().metadata["skipstone.labels"], "cat\ndog");
        let mut session = model.session().unwrap();
        session.run(&[Tensor::from_slice(&[2, 2], &[0.5f32, -1.0, 1.0, 0.0]).unwrap().view()]).unwrap();
        assert_eq!(session.output(0).unwrap().elements::<i64>(), Some(&[0, 1][..]));
        let post = text("post_transform", "MYSTERY");
        assert!(trees(|_, _| {}, post, &["scores"]).is_err());
    }
}
