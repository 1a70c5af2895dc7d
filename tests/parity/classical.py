"""The families of classical models (ai.onnx.ml), and of sequences whose length is known before a run."""

import numpy as np
from onnx import numpy_helper

from parity.cases import case
from parity.graph import Graph

ML = "ai.onnx.ml"
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def _features(g: Graph, rows: int, columns: int) -> np.ndarray:
    """Multiples of 1/4 between -2 and 2, so that comparisons meet equal values; some are missing."""
    x = (g.random.integers(-8, 9, (rows, columns)) / 4).astype(np.float32)
    x[g.random.random(x.shape) < 0.1] = np.nan
    return x.astype(g.pick(np.float32, np.float32, np.float64))


def _trees(g: Graph, columns: int, ids, prefix: str, positive: bool) -> dict:
    """Trees of random shape, whose leaves have a weight for each of `ids`."""
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")}
    nodes["missing_value_tracks_true"] = []
    weights = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    mode = g.pick(None, *MODES)  # ONNX Runtime is fastest, and best tested, with one mode for all
    for tree in range(g.between(1, 6)):
        open_nodes, count = [(0, 0)], 1
        while open_nodes:
            node, depth = open_nodes.pop(g.between(0, len(open_nodes) - 1))
            leaf = depth > 0 and (depth > 5 or g.chance(0.35))
            yes, no = (0, 0) if leaf else (count, count + 1)
            row = (tree, node, 0 if leaf else g.between(0, columns - 1), "LEAF" if leaf else mode or g.pick(*MODES))
            row += (0.0 if leaf else g.between(-8, 8) / 4, yes, no, 0 if leaf else g.between(0, 1))
            for values, value in zip(nodes.values(), row):
                values.append(value)
            if leaf:
                for target in ids:
                    weight = float(g.random.uniform(0.05, 0.3) if positive else g.random.normal())
                    for values, value in zip(weights.values(), (tree, node, target, weight)):
                        values.append(value)
            else:
                open_nodes += [(yes, depth + 1), (no, depth + 1)]
                count += 2
    named = {f"nodes_{key}": values for key, values in nodes.items()}
    return named | {f"{prefix}_{key}": values for key, values in weights.items()}


@case
def tree_classifier(g):
    classes, columns = g.between(3, 5), g.between(1, 6)
    x = g.input(_features(g, g.pick(1, 3, 17), columns))
    trees = _trees(g, columns, range(classes), "class", g.chance())
    base = [float(value) for value in g.normal(classes)] if g.chance(0.4) else None
    labels = [int(label) for label in g.random.permutation(classes * 3)[:classes]]
    post = g.pick("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
    return g.node(
        "TreeEnsembleClassifier",
        x,
        outputs=2,
        domain=ML,
        classlabels_int64s=labels,
        post_transform=post,
        base_values=base,
        **trees,
    )


@case
def tree_classifier_of_one_column(g):
    """Two classes with the weights of one: ONNX Runtime and the specification agree on positive weights."""
    columns = g.between(1, 6)
    x = g.input(_features(g, g.pick(1, 3, 17), columns))
    trees = _trees(g, columns, (0,), "class", positive=True)
    node = {"classlabels_int64s": g.pick([0, 1], [7, 3]), "base_values": g.pick(None, [0.125])}
    if g.chance():
        return g.node("TreeEnsembleClassifier", x, outputs=2, domain=ML, post_transform="NONE", **node, **trees)
    return g.node("TreeEnsembleClassifier", x, outputs=2, domain=ML, post_transform="LOGISTIC", **node, **trees)[1]


@case
def tree_regressor(g):
    targets, columns = g.pick(1, 1, 2, 3), g.between(1, 6)
    x = g.input(_features(g, g.pick(1, 3, 17), columns))
    trees = _trees(g, columns, range(targets), "target", g.chance())
    base = [float(value) for value in g.normal(targets)] if g.chance(0.4) else None
    post, aggregate = g.pick("NONE", "SOFTMAX", "LOGISTIC"), g.pick("SUM", "AVERAGE", "MIN", "MAX")
    node = {"n_targets": targets, "post_transform": post, "aggregate_function": aggregate, "base_values": base}
    return g.node("TreeEnsembleRegressor", x, domain=ML, **node, **trees)


@case
def tree_ensemble(g):
    """The operator of opset 5: nodes and leaves in two lists, sets of members."""
    targets, columns, dtype = g.between(1, 3), g.between(1, 4), g.pick(np.float32, np.float64)
    nodes, leaves, roots, members = [], [], [], []

    def grow(depth: int) -> int:
        at = len(nodes)
        nodes.append(None)
        children = []
        for _ in range(2):
            if depth > 3 or g.chance(0.4):
                leaves.append((g.between(0, targets - 1), float(g.random.normal())))
                children.append((len(leaves) - 1, 1))
            else:
                children.append((grow(depth + 1), 0))
        nodes[at] = (g.between(0, columns - 1), g.between(0, 6), g.between(-4, 4), *children, g.between(0, 1))
        return at

    for _ in range(g.between(1, 4)):
        roots.append(grow(0))
    for node in nodes:
        if node[1] == 6:  # ONNX Runtime takes members from 1 to 32
            members += [*(float(member) for member in g.random.permutation(6)[: g.between(1, 3)] + 1), np.nan]
    features, modes, splits, yes, no, missing = zip(*nodes)
    x = g.random.integers(-8, 9, (g.pick(1, 3, 17), columns)).astype(dtype)
    return g.node(
        "TreeEnsemble",
        g.input(x),
        domain=ML,
        nodes_featureids=features,
        nodes_modes=numpy_helper.from_array(np.array(modes, np.uint8), "modes"),
        nodes_splits=numpy_helper.from_array(np.array(splits, dtype), "splits"),
        nodes_truenodeids=[at for at, _ in yes],
        nodes_trueleafs=[leaf for _, leaf in yes],
        nodes_falsenodeids=[at for at, _ in no],
        nodes_falseleafs=[leaf for _, leaf in no],
        nodes_missing_value_tracks_true=missing,
        leaf_targetids=[target for target, _ in leaves],
        leaf_weights=numpy_helper.from_array(np.array([weight for _, weight in leaves], dtype), "weights"),
        membership_values=numpy_helper.from_array(np.array(members, dtype), "members") if members else None,
        tree_roots=roots,
        n_targets=targets,
        aggregate_function=g.pick(0, 1, 1, 2, 3),
    )


@case
def linear_classifier(g):
    classes, columns = g.between(2, 5), g.size()
    scores = 1 if classes == 2 and g.chance() else classes
    floats = [[float(value) for value in g.normal(count)] for count in (scores * columns, scores)]
    post = g.pick("NONE", "LOGISTIC") if scores == 1 else g.pick("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")
    return g.node(
        "LinearClassifier",
        g.input(g.normal(g.pick(1, 3, 17), columns)),
        outputs=2,
        domain=ML,
        coefficients=floats[0],
        intercepts=floats[1],
        classlabels_ints=[3 * label for label in range(classes)],
        post_transform=post,
    )


@case
def linear_regressor(g):
    targets, columns = g.between(1, 4), g.size()
    x = g.input(g.normal(g.pick(1, 3, 17), columns))
    floats = [[float(value) for value in g.normal(count)] for count in (targets * columns, targets)]
    intercepts = floats[1] if g.chance(0.7) else None
    return g.node("LinearRegressor", x, domain=ML, targets=targets, coefficients=floats[0], intercepts=intercepts)


@case
def support_vector_regressor(g):
    vectors, columns = g.size(), g.size(10)
    x = g.input(g.normal(g.pick(1, 3, 17), columns))
    return g.node(
        "SVMRegressor",
        x,
        domain=ML,
        coefficients=[float(value) for value in g.normal(vectors)],
        support_vectors=[float(value) for value in g.normal(vectors * columns)],
        rho=[0.25],
        n_supports=vectors,
        kernel_type=g.pick("LINEAR", "POLY", "RBF", "SIGMOID"),
        kernel_params=[0.125, 0.5, 3.0],
        one_class=g.pick(0, 0, 1),
    )


@case
def support_vector_classifier(g):
    """Scores for pairs of classes: with three and more, one per pair."""
    classes, columns = g.between(2, 4), g.size(10)
    counts = [g.between(1, 5) for _ in range(classes)]
    x = g.input(g.normal(g.pick(1, 3, 17), columns))
    return g.node(
        "SVMClassifier",
        x,
        outputs=2,
        domain=ML,
        coefficients=[float(value) for value in g.normal((classes - 1) * sum(counts))],
        support_vectors=[float(value) for value in g.normal(sum(counts) * columns)],
        rho=[float(value) for value in g.normal(classes * (classes - 1) // 2)],
        vectors_per_class=counts,
        kernel_type=g.pick("LINEAR", "POLY", "RBF", "SIGMOID"),
        kernel_params=[0.125, 0.5, 3.0],
        classlabels_ints=[5 * label for label in range(classes)],
        post_transform=g.pick("NONE", "LOGISTIC"),
    )


@case
def support_vector_probabilities(g):
    """Of each class, from those of all pairs: scikit-learn's default export."""
    classes, columns = g.between(2, 5), g.size(10)
    counts, pairs = [g.between(1, 5) for _ in range(classes)], classes * (classes - 1) // 2
    x = g.input(g.normal(g.pick(1, 3, 17), columns))
    return g.node(
        "SVMClassifier",
        x,
        outputs=2,
        domain=ML,
        coefficients=[float(value) for value in g.normal((classes - 1) * sum(counts))],
        support_vectors=[float(value) for value in g.normal(sum(counts) * columns)],
        rho=[float(value) for value in g.normal(pairs)],
        prob_a=[-float(value) for value in g.positive(pairs)],
        prob_b=[float(value) for value in g.normal(pairs, scale=0.1)],
        vectors_per_class=counts,
        kernel_type=g.pick("LINEAR", "RBF", "SIGMOID"),
        kernel_params=[0.125, 0.5, 3.0],
        classlabels_ints=[5 * label for label in range(classes)],
        post_transform="NONE",
    )


@case
def feature_scaling(g):
    columns = g.size()
    x = g.input(g.normal(g.pick(1, 3, 17), columns))
    count = g.pick(1, columns)
    offset, scale = ([float(value) for value in g.normal(count)] for _ in range(2))
    y = g.node("Scaler", x, domain=ML, offset=offset, scale=scale)
    y = g.node("Normalizer", y, domain=ML, norm=g.pick("MAX", "L1", "L2"))
    return y, g.node("Binarizer", x, domain=ML, threshold=0.25)


@case
def imputer(g):
    x = _features(g, g.pick(1, 3, 17), columns := g.size()).astype(np.float32)
    missing = g.pick(float("nan"), 0.25)
    values = [float(value) for value in g.normal(g.pick(1, columns))]
    return g.node("Imputer", g.input(x), domain=ML, imputed_value_floats=values, replaced_value_float=missing)


@case
def imputer_of_other_types(g):
    """ONNX Runtime does not have them."""
    g.reference = True
    columns = g.size()
    if g.chance():
        x = _features(g, g.pick(1, 3, 17), columns).astype(np.float64)
        values = [float(value) for value in g.normal(g.pick(1, columns))]
        return g.node("Imputer", g.input(x), domain=ML, imputed_value_floats=values, replaced_value_float=0.25)
    x = g.random.integers(-2, 3, (g.pick(1, 3, 17), columns)).astype(np.int32)
    values = [int(value) for value in g.random.integers(5, 9, g.pick(1, columns))]
    return g.node("Imputer", g.input(x), domain=ML, imputed_value_int64s=values, replaced_value_int64=-1)


@case
def label_encoder(g):
    keys = [int(key) for key in g.random.permutation(20)[: g.between(1, 9)]]
    x = g.random.integers(0, 20, g.shape(g.between(1, 3), 6))
    numbers = [float(value) for value in g.normal(len(keys))]
    if g.chance():
        return g.node(
            "LabelEncoder", g.input(x), domain=ML, keys_int64s=keys, values_floats=numbers, default_float=0.5
        )
    return g.node("LabelEncoder", g.input(x), domain=ML, keys_int64s=keys, values_int64s=keys[::-1], default_int64=99)


@case
def array_feature_extractor(g):
    x = g.normal(*g.shape(g.between(1, 3)))
    indices = g.random.integers(0, x.shape[-1], g.size(9))
    return g.node("ArrayFeatureExtractor", g.input(x), g.constant(indices), domain=ML)


@case
def feature_vectorizer(g):
    rows, widths = g.pick(1, 3, 17), [g.size(9) for _ in range(g.between(1, 3))]
    parts = [g.input(g.normal(rows, width)) for width in widths]
    return g.node("FeatureVectorizer", *parts, domain=ML, inputdimensions=[g.between(1, width) for width in widths])


@case
def sequence_of_parts(g):
    x = g.normal(*g.shape(g.between(1, 3)))
    axis = g.between(-x.ndim, x.ndim - 1)
    length = g.between(1, x.shape[axis])
    sizes = g.pick("", g.constant(length, np.int64), g.ints(length, x.shape[axis] - length))
    parts = g.node("SplitToSequence", g.input(x), sizes, axis=axis, keepdims=None if sizes else g.pick(0, 1))
    return g.node("SequenceAt", parts, g.constant(-1, np.int64)), g.node("SequenceLength", parts)


@case
def sequence_joined(g):
    shape = g.shape(g.between(1, 3))
    arrays = [g.input(g.normal(*shape)) for _ in range(g.between(1, 4))]
    sequence = g.node("SequenceConstruct", *arrays) if g.chance() else g.node("SequenceEmpty")
    where = g.pick("", g.constant(0, np.int64))
    sequence = g.node("SequenceInsert", sequence, g.input(g.normal(*shape)), where)
    new_axis = g.between(0, 1)
    axis = g.between(-len(shape) - new_axis, len(shape) - 1 + new_axis)
    return g.node("ConcatFromSequence", sequence, axis=axis, new_axis=new_axis)
