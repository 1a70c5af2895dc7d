"""Recipes of products, normalizations, recurrent layers, attention, spectra and losses."""

import numpy as np

from fuzz.draw import Draw
from fuzz.recipes import microsoft, recipe


@recipe("MatMul")
def matmul(d: Draw):
    shape = d.main(1, 4, empty=d.chance(0.1))
    inner = shape[-1]
    columns = () if d.chance(0.15) else (d.size(),)
    batch = d.broadcastable(shape[:-2]) if columns and d.chance(0.6) else ()
    d.put(1, d.values((*batch, inner, *columns), d.dtype(0)))


@microsoft("FusedMatMul", "TransposeMatMul")
def fused_matmul(d: Draw):
    d.dtypes["T"] = np.dtype(d.pick("f4", "f4", "f8"))
    shape = d.main(2, 4, empty=False)
    a, b = d.between(0, 1), d.between(0, 1)
    inner, columns = shape[-2 if a else -1], d.size()
    d.put(1, d.values((*shape[:-2], *((columns, inner) if b else (inner, columns))), d.dtype(0)))
    d.set(transA=a, transB=b, transBatchA=0, transBatchB=0)
    d.set(0.5, alpha=0.5)


@recipe("Gemm")
def gemm(d: Draw):
    rows, width = d.main(2, 2, empty=d.chance(0.1))
    a, b, columns, dtype = d.between(0, 1), d.between(0, 1), d.size(), d.dtype(0)
    inner, rows = (rows, width) if a else (width, rows)
    d.put(1, d.values((columns, inner) if b else (inner, columns), dtype))
    whole = (rows, columns)
    add = lambda: d.values(whole if d.opset < 7 else d.broadcastable(whole), dtype)
    if d.opset < 11:
        d.put("C", add())
    else:
        d.maybe("C", add)
    d.set(0.8, transA=a)
    d.set(0.8, transB=b)
    d.need(d.attributes.get("transA", 0) == a and d.attributes.get("transB", 0) == b)
    if dtype.kind in "iu":
        d.set(alpha=1.0, beta=1.0)


@microsoft("FusedGemm")
def fused_gemm(d: Draw):
    d.dtypes["T"] = np.dtype("f4")
    gemm(d)
    activation = d.pick("Relu", "LeakyRelu", "Sigmoid", "Tanh")
    d.set(activation=activation, activation_alpha=0.2 if activation == "LeakyRelu" else None)


@recipe("BatchNormalization")
def batch_normalization(d: Draw):
    shape = d.main(2, 5, empty=False)
    channels = shape[1]
    for at in range(1, 5):
        dtype = d.like(at, d.dtype(0)) if d.chance(0.8) else d.dtype(at)
        d.put(at, d.within(0.2, 3, (channels,), dtype) if at == 4 else d.values((channels,), dtype))
    d.set(0.3, training_mode=d.between(0, 1))
    d.set(is_test=1)


@recipe("InstanceNormalization")
def instance_normalization(d: Draw):
    shape = d.main(3, 5, empty=False)
    for at in (1, 2):
        d.put(at, d.values((shape[1],), d.dtype(0)))


@recipe("GroupNormalization")
def group_normalization(d: Draw):
    groups, inside = d.between(1, 4), d.between(1, 4)
    shape = d.shape(1, 3, 9, False)
    d.put(0, d.values((d.between(1, 2), groups * inside, *shape), d.dtype(0)))
    for at in (1, 2):
        d.put(at, d.values((groups * inside if d.opset >= 21 else groups,), d.dtype(0)))
    d.set(num_groups=groups)


def _layer_normalization(d: Draw, operands: int):
    shape = d.main(1, 4, empty=False)
    axis = d.axis(len(shape)) if d.chance(0.6) else -1
    if axis != -1 or d.chance():
        d.set(axis=axis)
    for at in range(1, operands):
        d.put(at, d.values(shape[axis:], d.like(at, d.dtype(0)) if d.chance(0.8) else d.dtype(at)))


@recipe("LayerNormalization")
def layer_normalization(d: Draw):
    _layer_normalization(d, d.pick(2, 3))
    # ONNX Runtime does not have it, and the reference evaluator rounds mean and variance to it.
    d.need(all(dtype.name != "bfloat16" for dtype in d.dtypes.values()))
    d.outputs = d.pick(1, 1, 1, 3)


@recipe("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(d: Draw):
    _layer_normalization(d, 2)


@microsoft("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
def skip_layer_normalization(d: Draw):
    d.dtypes["T"] = np.dtype("f4")
    shape = d.main(2, 3, empty=False)
    d.put("skip", d.values(shape if len(shape) < 3 or d.chance(0.7) else d.pick((1, *shape[1:]), shape[1:]), "f4"))
    d.put("gamma", d.values(shape[-1:], "f4"))
    d.maybe("beta", lambda: d.values(shape[-1:], "f4"))
    d.maybe("bias", lambda: d.values(shape[-1:], "f4"))
    d.outputs, d.unread = d.pick(1, 1, 4), (1, 2)


@microsoft("BiasGelu", "FastGelu")
def bias_gelu(d: Draw):
    d.dtypes["T"] = np.dtype("f4")
    shape = d.main(1, 4, empty=False)
    make = lambda: d.values(shape[-1:], "f4")
    d.put(1, make()) if d.schema.name == "BiasGelu" else d.maybe("bias", make)


@recipe("LpNormalization")
def lp_normalization(d: Draw):
    shape = d.main(1, 4)
    axis = d.axis(len(shape)) if d.chance(0.7) else -1
    # What is next to nothing, such as the imaginary part of a transform, is rounding.
    norms = np.abs(d.operands[d.schema.inputs[0][0]][0].array.astype(np.float64)).sum(axis)
    d.need(((norms > 1e-3) | (norms == 0)).all())
    d.set(axis=axis)


@recipe("MeanVarianceNormalization")
def mean_variance(d: Draw):
    shape = d.main(4, 4, empty=False)
    axes = d.axes(len(shape), 1, negative=False) if d.chance(0.6) else [0, 2, 3]
    # ONNX Runtime divides by 0 if all elements are equal.
    d.need(d.operands[d.schema.inputs[0][0]][0].array.astype(np.float64).std(tuple(axes)).min() > 0.05)
    d.set(axes=axes if axes != [0, 2, 3] or d.chance() else None)


FUNCTIONS = (
    ("Relu", 0, 0), ("Tanh", 0, 0), ("Sigmoid", 0, 0), ("HardSigmoid", 1, 1), ("LeakyRelu", 1, 0), ("Softsign", 0, 0),
    ("Elu", 1, 0), ("ThresholdedRelu", 1, 0), ("ScaledTanh", 1, 1), ("Affine", 1, 1), ("Softplus", 0, 0),
)  # fmt: skip


@recipe("LSTM", "GRU", "RNN")
def recurrent(d: Draw):
    op = d.schema.name
    gates, functions = {"LSTM": (4, 3), "GRU": (3, 2), "RNN": (1, 1)}[op]
    shape = d.main(3, 3, below=7, empty=False)
    steps, batch = shape[:2]
    direction = d.pick("forward", "reverse", "bidirectional")
    directions, hidden, width, dtype = 2 if direction == "bidirectional" else 1, d.size(10), shape[2], d.dtype(0)
    d.set(direction=direction if direction != "forward" else d.pick(None, direction), hidden_size=hidden)
    d.set(0.3, clip=d.pick(0.3, 1.0))
    if d.chance(0.4):
        chosen = [d.pick(*FUNCTIONS) for _ in range(functions * directions)]
        d.set(activations=[name for name, *_ in chosen])
        d.set(activation_alpha=[d.pick(0.3, 0.5) for _, alpha, _ in chosen if alpha] or None)
        d.set(activation_beta=[d.pick(0.2, 0.4) for *_, beta in chosen if beta] or None)
    rows = gates * hidden
    d.put("W", d.values((directions, rows, width), dtype, 0.4))
    d.put("R", d.values((directions, rows, hidden), dtype, 0.4))
    d.maybe("B", lambda: d.values((directions, 2 * rows), dtype, 0.4))
    d.maybe("sequence_lens", lambda: d.random.integers(1, steps + 1, batch).astype(np.int32))
    state = (directions, batch, hidden)
    d.maybe("initial_h", lambda: d.values(state, dtype))
    d.maybe("initial_c", lambda: d.values(state, dtype))
    d.maybe("P", lambda: d.values((directions, 3 * hidden), dtype, 0.4))
    d.outputs = d.between(1, 3 if op == "LSTM" else 2)


@recipe("Attention")
def attention(d: Draw):
    dtype = d.restrict(0, "f")
    batch, kv_heads, group = d.between(1, 2), d.between(1, 2), d.between(1, 3)
    heads, queries, new, size, v_size = kv_heads * group, d.size(9), d.size(9), d.size(10), d.size(10)
    flat = d.chance()
    shape = lambda n, length, width: (batch, length, n * width) if flat else (batch, n, length, width)
    d.put(0, d.values(shape(heads, queries, size), dtype))
    d.put("K", d.values(shape(kv_heads, new, size), dtype))
    d.put("V", d.values(shape(kv_heads, new, v_size), d.like("V", dtype)))
    past = d.between(1, 3) if d.chance(0.3) else 0
    keys = new + past
    if d.chance():
        whole = (batch, heads, queries, keys)[d.between(0, 2) :]
        dims = tuple(1 if d.chance(0.3) else dim for dim in whole[:-2]) + whole[-2:]
        mask = d.random.random(dims) < 0.7 if d.chance() else d.values(dims, dtype)
        mask[..., 0] = 1  # a row whose keys are all masked is on the list of differences
        d.put("attn_mask", mask)
    if past:
        d.put("past_key", d.values((batch, kv_heads, past, size), dtype))
        d.put("past_value", d.values((batch, kv_heads, past, v_size), d.dtype("V")))
    d.set(0.5, scale=0.2)
    if queries > 1 or new == 1 or not past:  # a single query sees all keys in ONNX Runtime
        d.set(0.5, is_causal=d.between(0, 1))
    if not d.operands.get("attn_mask") and not d.attributes.get("is_causal"):
        d.set(0.4, softcap=1.5)  # with masked keys it is on the list of differences
    if flat:
        d.set(q_num_heads=heads, kv_num_heads=kv_heads)
    d.outputs = 3 if past else 1


@recipe("RotaryEmbedding")
def rotary_embedding(d: Draw):
    batch, heads, length, half = d.between(1, 2), d.between(1, 3), d.size(10), d.between(1, 5)
    size = 2 * half + (2 * d.between(0, 2) if d.chance(0.3) else 0)
    flat, dtype = d.chance(), d.dtype(0)
    d.put(0, d.values((batch, length, heads * size) if flat else (batch, heads, length, size), dtype))
    rows = (d.between(1, 20), half) if d.chance() else (batch, length, half)
    if len(rows) == 2:
        d.put("position_ids", d.random.integers(0, rows[0], (batch, length)))
    for name in ("cos_cache", "sin_cache"):
        d.put(name, d.values(rows, dtype))
    d.set(num_heads=heads if flat else None, rotary_embedding_dim=2 * half if size != 2 * half else None)


@microsoft("RotaryEmbedding")
def microsoft_rotary(d: Draw):
    batch, heads, length, half, dtype = d.between(1, 2), d.between(1, 3), d.size(10), d.between(1, 5), np.dtype("f4")
    d.dtypes["T"] = dtype
    most = length + d.between(0, 6)
    flat = d.chance()
    d.put(0, d.values((batch, length, heads * 2 * half) if flat else (batch, heads, length, 2 * half), dtype))
    places = np.array([d.between(0, most - length)]) if d.chance() else d.random.integers(0, most, (batch, length))
    d.put(1, places.astype(np.int64))
    for at in (2, 3):
        d.put(at, d.values((most, half), dtype))
    d.set(0.5, interleaved=d.between(0, 1))
    d.set(scale=None, is_packed_batching=None)


@microsoft("MultiHeadAttention")
def multi_head_attention(d: Draw):
    batch, heads, size, v_size = d.between(1, 2), d.between(1, 3), d.size(9), d.size(9)
    queries, keys = d.size(9), d.size(9)
    d.dtypes["T"] = np.dtype("f4")
    d.put("query", d.values((batch, queries, heads * size)))
    d.put("key", d.values((batch, keys, heads * size)))
    d.put("value", d.values((batch, keys, heads * v_size)))
    d.maybe("bias", lambda: d.values((heads * (2 * size + v_size),)))
    if d.chance(0.3):
        d.put("key_padding_mask", d.random.integers(1, keys + 1, batch).astype(np.int32))
    d.maybe("attention_bias", lambda: d.values((d.pick(1, batch), d.pick(1, heads), queries, keys)), 0.3)
    d.set(num_heads=heads)
    d.set(0.3, scale=0.2)
    if queries == keys:  # otherwise, the last query sees all keys in ONNX Runtime
        d.set(0.2, unidirectional=1)


@microsoft("Attention")
def microsoft_attention(d: Draw):
    batch, length, width, heads, size = d.between(1, 2), d.size(9), d.size(10), d.between(1, 3), d.size(9)
    d.dtypes["T"] = np.dtype("f4")
    d.put(0, d.values((batch, length, width)))
    d.put(1, d.values((width, 3 * heads * size)))
    d.put(2, d.values((3 * heads * size,)))
    if d.chance(0.4):
        d.put("mask_index", d.random.integers(1, length + 1, batch).astype(np.int32))
    d.set(num_heads=heads)
    d.set(0.3, unidirectional=1)


@microsoft("EmbedLayerNormalization")
def embed_layer_normalization(d: Draw):
    batch, length, width, words = d.between(1, 2), d.size(9), d.size(18), d.between(2, 9)
    d.dtypes["T"] = np.dtype("f4")
    indices = lambda below: d.random.integers(0, below, (batch, length)).astype(np.int32)
    segments = d.chance()
    d.put("input_ids", indices(words))
    d.put("word_embedding", d.values((words, width)))
    d.put("position_embedding", d.values((length + d.between(0, 3), width)))
    if segments:
        d.put("segment_ids", indices(2))
        d.put("segment_embedding", d.values((2, width)))
    d.put("gamma", d.values((width,)))
    d.put("beta", d.values((width,)))
    if d.chance(0.3):
        d.put("mask", d.random.integers(0, 2, (batch, length)).astype(np.int32))
    if d.chance(0.3):
        d.put("position_ids", indices(length))
    d.outputs = 2


# Spectra.


@recipe("DFT")
def dft(d: Draw):
    shape = d.shape(1, 3, 16, False)
    inverse = d.between(0, 1)
    onesided = 0 if inverse else d.between(0, 1)
    dtype = d.restrict(0, "f")
    d.need(dtype.itemsize > 2)
    d.put(0, d.values((*shape, 1 if onesided else d.pick(1, 2)), dtype))
    d.maybe("dft_length", lambda: np.array(d.size(), np.int64), shaping=True)
    if d.chance(0.8):
        axis = d.between(0, len(shape) - 1)
        d.put("axis", np.array(axis if d.opset < 20 or d.chance() else axis - len(shape) - 1, np.int64), shaping=True)
    else:
        d.need(d.opset >= 20 or len(shape) > 1)
    d.set(inverse=inverse, onesided=onesided)


@recipe("STFT")
def stft(d: Draw):
    length, step = d.between(2, 16), d.between(1, 8)
    dtype = d.restrict(0, "f")
    d.need(dtype.itemsize > 2)
    d.put(0, d.values((d.between(1, 2), length + d.between(0, 30), 1), dtype))
    d.put("frame_step", np.array(step, np.int64), shaping=True)
    if d.maybe("window", lambda: d.within(0.1, 1, (length,), dtype)):
        d.maybe("frame_length", lambda: np.array(length, np.int64), shaping=True)
    else:
        d.put("frame_length", np.array(length, np.int64), shaping=True)


@recipe("HannWindow", "HammingWindow", "BlackmanWindow")
def window_function(d: Draw):
    d.put(0, np.array(d.between(2, 40), d.restrict(0, "i")), shaping=True)
    d.set(0.6, output_datatype=d.pick(1, 1, 11))


@recipe("MelWeightMatrix")
def mel_weights(d: Draw):
    length, rate, low = d.pick(16, 64, 128), d.pick(8000, 16000), d.between(0, 300)
    whole, real = d.restrict(0, "i"), d.restrict(3, "f")
    for at, value in enumerate((d.between(1, 12), length, rate)):
        d.put(at, np.array(value, whole), shaping=True)
    d.put(3, np.array(low, real), shaping=True)
    d.put(4, np.array(rate // 2 - d.between(0, 500), real), shaping=True)
    d.set(0.6, output_datatype=1)


# Losses and words.


@recipe("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(d: Draw):
    shape = d.main(2, 4, below=8, empty=False)
    d.need(shape[1] > 1)
    target = d.random.integers(0, shape[1], (shape[0], *shape[2:]))
    ignored = d.pick(None, None, -1, 1, 300)
    if ignored is not None:
        target[d.random.random(target.shape) < 0.3] = ignored
        target.flat[0] = 0  # the mean over no elements is undefined
        d.set(ignore_index=ignored)
    d.put(1, target.astype(d.restrict(1, "i")))
    d.maybe("weight" if d.has("weight") else "weights", lambda: d.within(0.1, 2, (shape[1],), d.dtype(0)))
    d.set(0.7, reduction=d.pick("none", "sum", "mean"))
    if d.schema.name.startswith("Soft"):
        d.outputs = d.pick(1, 2)


@recipe("TfIdfVectorizer")
def n_grams(d: Draw):
    pool = [[1], [4], [2], [1, 2], [2, 3], [4, 4], [1, 2, 3], [3, 3, 1]]
    most = d.between(1, 3)
    d.put(0, d.random.integers(0, 5, d.pick((9,), (2, 12), (1, 3))).astype(d.restrict(0, "i")))
    d.set(
        mode=d.pick("TF", "IDF", "TFIDF"), min_gram_length=d.between(1, most), max_gram_length=most,
        max_skip_count=d.between(0, 3), pool_int64s=sum(pool, []), ngram_counts=[0, 3, 9],
        ngram_indexes=d.random.permutation(len(pool)).tolist(),
    )  # fmt: skip
    d.set(0.5, weights=d.within(0.1, 2, len(pool)).tolist())


@recipe("NonMaxSuppression", sharp=True)
def non_max_suppression(d: Draw):
    batch, classes, boxes = d.between(1, 2), d.between(1, 3), d.size(9)
    center = d.chance(0.3)
    first, second = d.random.uniform(0, 4, (batch, boxes, 2)), d.random.uniform(0.5, 4, (batch, boxes, 2))
    d.put("boxes", np.concatenate([first, second if center else first + second], -1).astype(np.float32))
    scores = d.random.permutation(batch * classes * boxes).reshape(batch, classes, boxes) / 50
    d.put("scores", scores.astype(np.float32))
    d.set(center_point_box=1 if center else d.pick(None, 0))
    if d.chance(0.8):
        d.put("max_output_boxes_per_class", np.array([d.between(0, boxes)], np.int64), bounded=True)
    d.maybe("iou_threshold", lambda: np.array([d.pick(0.1, 0.5, 0.9)], np.float32))
    d.maybe("score_threshold", lambda: np.array([d.pick(0.0, 0.2)], np.float32))
