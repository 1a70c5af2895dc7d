"""Recipes of classical models (ai.onnx.ml)."""

import numpy as np
from onnx import numpy_helper

from fuzz.draw import Draw
from fuzz.recipes import classical

POST = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO")


def _rows(d: Draw, columns: int, kinds: str = "fiu") -> np.ndarray:
    """Multiples of 1/4, so that comparisons meet equal values."""
    dtype = d.restrict(0, kinds)
    x = d.random.integers(-8, 9, (d.pick(1, 3, 17), columns))
    x = (x if dtype.kind in "iu" else x / 4).astype(dtype)
    return x


def _floats(d: Draw, count: int, scale: float = 1.0) -> list[float]:
    return [float(value) for value in np.float32(d.random.standard_normal(count) * scale)]


@classical("Scaler")
def scaler(d: Draw):
    columns = d.size()
    d.put(0, _rows(d, columns))
    count = d.pick(1, columns)
    d.set(offset=_floats(d, count), scale=_floats(d, count))


@classical("Normalizer")
def normalizer(d: Draw):
    d.put(0, _rows(d, d.size()) if d.chance(0.8) else _rows(d, d.size())[0])
    d.set(0.8, norm=d.pick("MAX", "L1", "L2"))


@classical("Binarizer")
def binarizer(d: Draw):
    d.main(1, 3)
    d.set(0.8, threshold=d.pick(0.0, 0.25, 1.0))


@classical("Imputer")
def imputer(d: Draw):
    columns = d.size()
    x = _rows(d, columns, "fi")
    count = d.pick(1, columns)
    if x.dtype.kind == "i":
        d.need(x.dtype.itemsize == 8)
        d.set(imputed_value_int64s=[d.between(-9, 9) for _ in range(count)], replaced_value_int64=d.between(-2, 2))
    else:
        missing = d.pick(float("nan"), 0.25)
        if np.isnan(missing):
            x[d.random.random(x.shape) < 0.2] = np.nan
        d.set(imputed_value_floats=_floats(d, count), replaced_value_float=missing)
    d.put(0, x)


@classical("ArrayFeatureExtractor")
def array_feature_extractor(d: Draw):
    shape = d.main(1, 3, empty=False)
    d.put(1, d.random.integers(0, shape[-1], d.pick((d.size(9),), (1, d.size(9)))).astype(np.int64), shaping=True)


@classical("FeatureVectorizer")
def feature_vectorizer(d: Draw):
    rows, dtype, widths = d.pick(1, 3), d.dtype(0), [d.size(9) for _ in range(d.between(1, 3))]
    d.put_each(0, [d.values((rows, width), dtype) for width in widths])
    d.set(inputdimensions=[d.between(1, width) if d.chance(0.3) else width for width in widths])


@classical("LabelEncoder")
def label_encoder(d: Draw):
    keys = [int(key) for key in d.random.permutation(20)[: d.between(1, 9)]]
    d.need("keys_int64s" in d.schema.attributes)
    x = np.asarray(d.random.integers(0, 20, d.shape(1, 3, 6)))
    if d.chance():
        d.dtypes[d.schema.inputs[0][1]] = np.dtype("f4")
        x = x.astype(np.float32)
        d.set(keys_floats=[float(key) for key in keys])
    else:
        d.dtypes[d.schema.inputs[0][1]] = np.dtype("i8")
        d.set(keys_int64s=keys)
    d.put(0, x)
    numbers = _floats(d, len(keys))
    if d.chance():
        d.set(values_floats=numbers)
        d.set(0.5, default_float=0.5)
    else:
        d.set(values_int64s=keys[::-1])
        d.set(0.5, default_int64=99)




@classical("OneHotEncoder")
def one_hot_encoder(d: Draw):
    names = [int(key) for key in d.random.permutation(9)[: d.between(1, 6)]]
    dtype = d.restrict(0, "fi")
    zeros = d.between(0, 1)
    shape = d.shape(1, 2, 7, False)
    x = d.random.integers(0, 9, shape) if zeros else d.random.choice(names, shape)
    d.put(0, np.asarray(x).astype(dtype))
    d.set(cats_int64s=names, zeros=zeros)


@classical("LinearClassifier")
def linear_classifier(d: Draw):
    classes, columns = d.between(2, 5), d.size()
    scores = 1 if classes == 2 and d.chance() else classes
    d.put(0, _rows(d, columns))
    d.set(coefficients=_floats(d, scores * columns), intercepts=_floats(d, scores))
    d.set(classlabels_ints=[3 * n for n in range(classes)])
    d.set(0.8, post_transform=d.pick(*(POST if scores > 1 else ("NONE", "LOGISTIC"))))
    d.set(0.3, multi_class=d.between(0, 1))
    d.outputs = 2


@classical("LinearRegressor")
def linear_regressor(d: Draw):
    targets, columns = d.between(1, 4), d.size()
    d.put(0, _rows(d, columns))
    d.set(coefficients=_floats(d, targets * columns), targets=targets if targets > 1 else d.pick(None, 1))
    d.set(0.7, intercepts=_floats(d, targets))
    d.set(0.3, post_transform=d.pick("NONE", "SOFTMAX", "LOGISTIC"))


@classical("SVMRegressor")
def svm_regressor(d: Draw):
    vectors, columns = d.size(), d.size(10)
    d.put(0, _rows(d, columns))
    kernel = d.pick("LINEAR", "POLY", "RBF", "SIGMOID")
    d.set(
        coefficients=_floats(d, vectors), support_vectors=_floats(d, vectors * columns), rho=_floats(d, 1), n_supports=vectors,
        kernel_type=kernel, kernel_params=[0.125, 0.5, d.pick(2.0, 3.0)], one_class=d.pick(None, 0, 1),
    )  # fmt: skip


@classical("SVMClassifier")
def svm_classifier(d: Draw):
    classes, columns = d.between(2, 4), d.size(10)
    counts, pairs = [d.between(1, 5) for _ in range(classes)], classes * (classes - 1) // 2
    d.put(0, _rows(d, columns))
    d.set(
        coefficients=_floats(d, (classes - 1) * sum(counts)), support_vectors=_floats(d, sum(counts) * columns),
        rho=_floats(d, pairs), vectors_per_class=counts, kernel_type=d.pick("LINEAR", "POLY", "RBF", "SIGMOID"),
        kernel_params=[0.125, 0.5, 3.0], classlabels_ints=[5 * n for n in range(classes)],
    )  # fmt: skip
    if d.chance():
        d.set(prob_a=[-abs(a) - 0.1 for a in _floats(d, pairs)], prob_b=_floats(d, pairs, 0.1))
    else:
        d.set(0.5, post_transform=d.pick("NONE", "LOGISTIC"))
    d.outputs = 2


MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")


def _trees(d: Draw, columns: int, ids, prefix: str, positive: bool) -> dict:
    """Trees of random shape, whose leaves have a weight for each of `ids`."""
    nodes = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")}
    nodes["missing_value_tracks_true"] = []
    weights = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    mode = d.pick(None, *MODES)
    for tree in range(d.between(1, 5)):
        open_nodes, count = [(0, 0)], 1
        while open_nodes:
            node, depth = open_nodes.pop(d.between(0, len(open_nodes) - 1))
            leaf = depth > 4 or d.chance(0.1 if not depth else 0.4)
            yes, no = (0, 0) if leaf else (count, count + 1)
            row = (tree, node, 0 if leaf else d.between(0, columns - 1), "LEAF" if leaf else mode or d.pick(*MODES))
            row += (0.0 if leaf else d.between(-8, 8) / 4, yes, no, 0 if leaf else d.between(0, 1))
            for values, value in zip(nodes.values(), row):
                values.append(value)
            if leaf:
                for target in ids:
                    weight = float(np.float32(d.random.uniform(0.05, 0.3) if positive else d.random.normal()))
                    for values, value in zip(weights.values(), (tree, node, target, weight)):
                        values.append(value)
            else:
                open_nodes += [(yes, depth + 1), (no, depth + 1)]
                count += 2
    named = {f"nodes_{key}": values for key, values in nodes.items()}
    return named | {f"{prefix}_{key}": values for key, values in weights.items()}


@classical("TreeEnsembleClassifier")
def tree_classifier(d: Draw):
    classes, columns = d.between(2, 5), d.between(1, 6)
    d.put(0, _rows(d, columns))
    # ONNX Runtime and the specification agree if two classes have the weights of one, all positive.
    one = classes == 2
    d.set(**_trees(d, columns, (0,) if one else range(classes), "class", one or d.chance()))
    d.set(classlabels_int64s=[int(label) for label in d.random.permutation(classes * 3)[:classes]])
    d.set(0.8, post_transform="NONE" if one else d.pick(*POST))
    if classes > 2:  # ONNX Runtime adds only one of two
        d.set(0.3, base_values=_floats(d, classes))
    d.outputs = 2


@classical("TreeEnsembleRegressor")
def tree_regressor(d: Draw):
    targets, columns = d.pick(1, 1, 2, 3), d.between(1, 6)
    d.put(0, _rows(d, columns))
    d.set(n_targets=targets, **_trees(d, columns, range(targets), "target", d.chance()))
    d.set(0.6, aggregate_function=d.pick("SUM", "AVERAGE", "MIN", "MAX"))
    d.set(0.5, post_transform=d.pick("NONE", "SOFTMAX", "LOGISTIC"))
    d.set(0.3, base_values=_floats(d, targets))


@classical("TreeEnsemble")
def tree_ensemble(d: Draw):
    targets, columns = d.between(1, 3), d.between(1, 4)
    dtype = d.restrict(0, "f")
    d.need(dtype.itemsize > 2)
    nodes, leaves, members = [], [], []

    def grow(depth: int) -> int:
        at = len(nodes)
        nodes.append(None)
        children = []
        for _ in range(2):
            if depth > 3 or d.chance(0.4):
                leaves.append((d.between(0, targets - 1), float(d.random.normal())))
                children.append((len(leaves) - 1, 1))
            else:
                children.append((grow(depth + 1), 0))
        nodes[at] = (d.between(0, columns - 1), d.between(0, 6), d.between(-4, 4), *children, d.between(0, 1))
        return at

    roots = [grow(0) for _ in range(d.between(1, 4))]
    for node in nodes:
        if node[1] == 6:  # ONNX Runtime takes members from 1 to 32
            members += [*(float(member) for member in d.random.permutation(6)[: d.between(1, 3)] + 1), np.nan]
    features, modes, splits, yes, no, missing = zip(*nodes)
    as_tensor = lambda values, of, name: numpy_helper.from_array(np.array(values, of), name)
    d.put(0, d.random.integers(-8, 9, (d.pick(1, 3, 17), columns)).astype(dtype))
    d.set(
        nodes_featureids=features, nodes_modes=as_tensor(modes, np.uint8, "modes"),
        nodes_splits=as_tensor(splits, dtype, "splits"),
        nodes_truenodeids=[at for at, _ in yes], nodes_trueleafs=[leaf for _, leaf in yes],
        nodes_falsenodeids=[at for at, _ in no], nodes_falseleafs=[leaf for _, leaf in no],
        nodes_missing_value_tracks_true=missing, leaf_targetids=[target for target, _ in leaves],
        leaf_weights=as_tensor([weight for _, weight in leaves], dtype, "weights"),
        membership_values=as_tensor(members, dtype, "members") if members else None, tree_roots=roots, n_targets=targets,
        aggregate_function=d.pick(0, 1, 1, 2, 3),
    )  # fmt: skip
