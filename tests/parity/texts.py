"""Runs `skipstone classify` on texts, against the Python package of the tokenizers and ONNX Runtime.

The tokenizers are small, one of each family, and are trained here on a few sentences. A first model gives its inputs as
scores, so that every token can be compared; a second one is a classifier with an embedding, whose padding must not count.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from harness import driver

CORPUS = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "Ein schöner Tag für Straßenbahnen und Füchse.",
    "naïve café — 東京 is far, 1234567 km away!",
    "I loved this film; the plot was thin, but who cares?",
    "Never again. Terrible service, cold food and rude staff.",
]
TEXTS = [
    *CORPUS,
    "",
    "x",
    "  spaces   everywhere\tand tabs ",
    "unseen: Ωμέγα 🦊 zażółć",
    "word " * 60,
    "-5 degrees",
    "[MASK] and </s> inside",
]
ROLES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """As GPT-2's and RoBERTa's, whose expression looks ahead."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=60, special_tokens=["<unk>", "<pad>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def echo(path: Path, roles: tuple[str, ...], dtype: int, shape: list) -> None:
    """A model whose scores are its inputs, one after the other."""
    inputs = [helper.make_tensor_value_info(name, dtype, shape) for name in roles]
    nodes = [helper.make_node("Cast", [name], [f"{name}.f"], to=T.FLOAT) for name in roles]
    nodes += [helper.make_node("Concat", [f"{name}.f" for name in roles], ["scores"], axis=-1)]
    output = [*shape[:-1], None if isinstance(shape[-1], str) else len(roles) * shape[-1]]
    save(path, helper.make_graph(nodes, "echo", inputs, [helper.make_tensor_value_info("scores", T.FLOAT, output)]))


def classifier(path: Path, vocabulary: int, shape: list, seed: int) -> None:
    """The mean of the embeddings of all tokens but padding, and a linear layer."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    constants = {"table": normal(vocabulary, 16), "weight": normal(16, 5), "bias": normal(5), "last": np.array([-1])}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=T.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["logits"]),
    ]
    constants["middle"] = np.array([1])
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    inputs = [helper.make_tensor_value_info(name, T.INT64, shape) for name in ROLES[:2]]
    outputs = [helper.make_tensor_value_info("logits", T.FLOAT, [shape[0], 5])]
    save(path, helper.make_graph(nodes, "classifier", inputs, outputs, initializers))


def expected(tokenizer: Tokenizer, text: str) -> dict[str, np.ndarray]:
    encoding = tokenizer.encode(text)
    mask = np.array(encoding.attention_mask)
    positions = np.cumsum(mask) - mask
    return dict(zip(ROLES, (np.array(encoding.ids), mask, np.array(encoding.type_ids), positions), strict=True))


def in_python(tokenizer: Tokenizer, length: int | None, pad: str, side: str) -> Tokenizer:
    """The tokenizer as a user sets it up in Python for texts of this many tokens."""
    own = Tokenizer.from_str(tokenizer.to_str())
    if length is not None:
        own.enable_truncation(length)
        own.enable_padding(direction=side, pad_id=own.token_to_id(pad), pad_token=pad, length=length)
    return own


class Checks:
    """Counts the comparisons and prints those that fail."""

    def __init__(self):
        self.count, self.failed = 0, 0

    def equal(self, what: str, got, want, tolerance: float = 0.0) -> None:
        self.count += 1
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        if got.shape != want.shape or not np.allclose(got, want, rtol=0, atol=tolerance):
            self.failed += 1
            print(f"FAIL {what}: {got.tolist()} instead of {want.tolist()}")

    def true(self, what: str, holds: bool) -> None:
        self.equal(what, holds, True)


def classify(skipstone: driver.Skipstone, model: Path, *options) -> list[tuple[int, list[float]]]:
    """The number of tokens of each text, and its scores in the order of the classes."""
    report = json.loads(
        skipstone.call("classify", model, *options, "--json", "--activation", "none", "--top", "100000")
    )
    in_order = lambda top: [it["score"] for it in sorted(top, key=lambda it: it["index"])]
    return [(it["tokens"], in_order(it["top"])) for it in report["texts"]]


def compare(skipstone: driver.Skipstone, folder: Path, name: str, tokenizer: Tokenizer, checks: Checks) -> None:
    pad = next(token for token in ("[PAD]", "<pad>") if tokenizer.token_to_id(token) is not None)
    plain = [text for text in TEXTS if tokenizer.encode(text).ids]
    lines = folder / "texts.txt"
    lines.write_text("".join(text + "\n" for text in plain), encoding="utf-8")
    options = [option for text in plain for option in ("--text", text)]
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    kinds = [
        # roles, element type, shape, length, side of the padding
        (ROLES, T.INT64, [1, "tokens"], None, "right"),
        (ROLES[:2], T.INT32, ["batch", "tokens"], None, "right"),
        (ROLES, T.INT32, [1, 24], 24, "right"),
        (ROLES, T.INT64, ["batch", 24], 24, "left"),
        (("input_ids",), T.INT64, [7], 7, "right"),
    ]
    model = folder / "model.onnx"
    for roles, dtype, shape, length, side in kinds:
        echo(model, roles, dtype, shape)
        (folder / "tokenizer_config.json").write_text(json.dumps({"padding_side": side, "model_max_length": 10**30}))
        own = in_python(tokenizer, length, pad, side)
        files = [model]
        if shape[0] == 1 and length:
            files.append(folder / "model.skip")
            skipstone.call("compile", model, "-o", files[1])
        for file in files:
            given = classify(skipstone, file, *options), classify(skipstone, file, lines)
            for how, results in zip(("--text", "a file"), given, strict=True):
                checks.equal(f"{name} {shape} {how}: texts", len(results), len(plain))
                for text, (tokens, scores) in zip(plain, results, strict=True):
                    want = expected(own, text)
                    checks.equal(f"{name} {shape} {how} {text!r}: tokens", tokens, len(want["input_ids"]))
                    checks.equal(f"{name} {shape} {how} {text!r}", scores, np.concatenate([want[role] for role in roles]))

    for shape in ([1, "tokens"], [1, 12], ["batch", "tokens"]):
        classifier(model, tokenizer.get_vocab_size(), shape, 7)
        length = shape[1] if isinstance(shape[1], int) else None
        own = in_python(tokenizer, length, pad, "left")
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        for text, (_, scores) in zip(plain, classify(skipstone, model, lines), strict=True):
            inputs = {role: expected(own, text)[role][np.newaxis].astype(np.int64) for role in ROLES[:2]}
            want = session.run(None, inputs)[0][0]
            checks.equal(f"{name} classifier {shape} {text!r}", scores, want, 1e-4 * np.abs(want).max())


def limits(skipstone: driver.Skipstone, folder: Path, checks: Checks) -> None:
    """The tokenizer's own limit and padding hold where the model leaves the length open; else the model's."""
    tokenizer, model = word_piece(), folder / "model.onnx"
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    echo(model, ROLES, T.INT64, [1, "tokens"])
    for limit, padded in ((6, 6), (6, None), (12, None), (12, 12), (None, None)):
        own = Tokenizer.from_str(tokenizer.to_str())
        if limit:
            own.enable_truncation(limit)
        if padded:
            own.enable_padding(length=padded)
        (folder / "tokenizer.json").write_text(own.to_str(), encoding="utf-8")
        own.enable_truncation(min(limit or 9, 9))
        for text in TEXTS:
            [(_, scores)] = classify(skipstone, model, "--text", text)
            checks.equal(f"limit {limit}, padded {padded}, {text!r}", scores, np.concatenate([*expected(own, text).values()]))


def refused(skipstone: driver.Skipstone, folder: Path, checks: Checks) -> None:
    """Everything that does not fit is an error of one line that says so."""
    model, image = folder / "model.onnx", folder / "image.onnx"
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    save(
        image,
        helper.make_graph(
            [helper.make_node("Flatten", ["x"], ["y"])],
            "image",
            [helper.make_tensor_value_info("x", T.FLOAT, [1, 3, 2, 2])],
            [helper.make_tensor_value_info("y", T.FLOAT, [1, 12])],
        ),
    )
    picture = next(iter(sorted((driver.ROOT / "models" / "samples").glob("*.png"))))

    def fails(code: str, reason: str, *arguments) -> None:
        try:
            skipstone.call("classify", *arguments)
            checks.true(f"{arguments} is not refused", False)
        except driver.Refused as error:
            right = error.code == code and reason in error.message
            checks.true(f"{arguments}: [{error.code}] {error.message}", right)

    echo(model, ROLES, T.INT64, [1, "tokens"])
    (folder / "tokenizer.json").unlink()
    fails("tokenizer", "--tokenizer", model, "--text", "a")
    word = word_piece()
    (folder / "tokenizer.json").write_text(word.to_str(), encoding="utf-8")
    fails("text", "takes text", model, picture)
    fails("text", "is a directory", model, folder)
    fails("model.text-input", "takes no text", image, "--text", "a")
    fails("tokenizer", "not a tokenizer", model, "--text", "a", "--tokenizer", model)
    echo(model, ROLES, T.INT64, [1, 1])
    fails("tokenizer", "adds 2 tokens", model, "--text", "a")
    echo(model, ROLES, T.INT64, [2, 8])
    fails("model.text-input", "a batch of 1", model, "--text", "a")
    no_padding = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    (folder / "tokenizer.json").write_text(no_padding.to_str(), encoding="utf-8")
    echo(model, ROLES[:1], T.INT64, [1, 8])
    fails("tokenizer", "no padding token", model, "--text", "a")
    echo(model, ROLES[:1], T.INT64, [1, "tokens"])
    fails("tokenizer", "no tokens", model, "--text", "")
    echo(model, (*ROLES, "pixel_values"), T.INT64, [1, "tokens"])
    fails("shape.unbound", "pixel_values", model, "--text", "a")


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="skipstone-") as name:
        folder = Path(name)
        for tokenizer in (word_piece, byte_level, unigram, words):
            compare(skipstone, folder, tokenizer.__name__, tokenizer(), checks)
        limits(skipstone, folder, checks)
        refused(skipstone, folder, checks)
    print(f"texts: {checks.count - checks.failed} of {checks.count} comparisons right")
    sys.exit(checks.failed > 0)


if __name__ == "__main__":
    main()
