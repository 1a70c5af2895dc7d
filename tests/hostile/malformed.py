"""Invalid files and command lines: each must give an error of one line, never a crash.

The process is limited to 4 GiB of address space, so that a model that causes an unbounded
allocation fails this test.
"""

import re
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from harness import driver, fill
from hostile import files

ADDRESS_SPACE = 4 << 30
TIMEOUT_SECONDS = 60
CODE = re.compile(r"[a-z0-9_.-]+")


def limit() -> None:
    """Called in the child before it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def write_models(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Files that are certainly invalid, and files that may be valid by chance."""
    good = fill.fill("simplenet_310k").read_bytes()
    random = np.random.default_rng(1)
    wrong = {"empty": b"", "one byte": b"\x08", "text": b"this is not a model\n"}
    wrong |= {f"random {size}": random.bytes(size) for size in (10, 1000, 100_000)}
    wrong |= {f"truncated to {share}": good[: int(len(good) * share)] for share in (0.001, 0.1, 0.5, 0.99)}
    wrong["last byte missing"] = good[:-1]
    wrong["graph without weights"] = (fill.GRAPHS / "skipnet_m.onnx").read_bytes()
    wrong |= {f"truncated to {part} of 64": good[: len(good) * part // 64] for part in range(1, 64)}
    wrong |= files.bad_wire() | files.bad_headers() | files.bad_tensors() | files.bad_external(folder)
    wrong |= files.bad_graphs() | files.bad_operators() | files.bad_quantized()
    # Most bits are weights, so half of the flips go to the structure, which is at both ends.
    flipped = {}
    for index in range(60):
        data = bytearray(good)
        ends = [*range(4000), *range(len(data) - 2000, len(data))]
        for _ in range(3):
            at = int(random.choice(ends)) if index % 2 else int(random.integers(len(data)))
            data[at] ^= 1 << int(random.integers(8))
        flipped[f"flipped bits {index}"] = bytes(data)

    def write(models):
        paths = {}
        for number, (title, data) in enumerate(models.items()):
            paths[title] = folder / f"{len(models)}_{number}.onnx"
            paths[title].write_bytes(data)
        return paths

    return write(wrong), write(flipped)


def write_inputs(folder: Path) -> dict[str, list]:
    """Arguments after `run MODEL` that are invalid for a model with input `[1, 3, 32, 32]`."""
    good = folder / "good.npy"
    np.save(good, np.zeros((1, 3, 32, 32), np.float32))
    data = good.read_bytes()

    def array(name, value):
        np.save(folder / f"{name}.npy", value)
        return ["--input", f"input={folder / name}.npy"]

    def file(name, content):
        (folder / name).write_bytes(content)
        return ["--input", f"input={folder / name}"]

    return {
        "no input": [],
        "unknown input": ["--input", f"nowhere={good}", "--input", f"input={good}"],
        "wrong shape": array("shape", np.zeros((1, 3, 31, 32), np.float32)),
        "wrong rank": array("rank", np.zeros((3, 32, 32), np.float32)),
        "no elements": array("none", np.zeros((0, 3, 32, 32), np.float32)),
        "wrong type": array("type", np.zeros((1, 3, 32, 32), np.int64)),
        "array of objects": array("objects", np.array([{}], dtype=object)),
        "no such file": ["--input", f"input={folder / 'nowhere.npy'}"],
        "a folder": ["--input", f"input={folder}"],
        "empty npy": file("empty.npy", b""),
        "truncated npy": file("short.npy", data[:-5]),
        "truncated header": file("header.npy", data[:20]),
        "text": file("text.npy", b"1 2 3\n"),
        "huge npy": file("huge.npy", data.replace(b"(1, 3, 32, 32)", b"(1<<40,3,32,4)")),
        "overflowing npy": file("overflow.npy", data.replace(b"(1, 3, 32, 32)", b"(9999999999, )")),
    }


def main() -> None:
    args = driver.arguments(__doc__).parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    # An emulator needs more address space than the program it runs.
    prepare = None if args.runner else limit

    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        folder = Path(scratch)
        wrong, flipped = write_models(folder)
        good = fill.fill("simplenet_310k")
        inputs = write_inputs(folder)
        right = ["--input", f"input={folder / 'good.npy'}"]
        out = ["--output-dir", folder / "out"]
        (folder / "file").touch()

        # title, arguments, whether success is acceptable
        calls = [(f"model, {title}: inspect", ["inspect", path], False) for title, path in wrong.items()]
        calls += [(f"model, {title}: run", ["run", path, *right, *out], True) for title, path in flipped.items()]
        calls += [(f"input, {title}", ["run", good, *extra, *out], False) for title, extra in inputs.items()]
        calls += [
            ("no such model", ["inspect", folder / "nowhere.onnx"], False),
            ("a folder as model", ["inspect", folder], False),
            ("output into a file", ["run", good, *right, "--output-dir", folder / "file"], False),
            ("shape that contradicts", ["run", good, *right, *out, "--shape", "input=1x3x99x99"], False),
            ("image that is none", ["classify", good, folder / "file"], False),
        ]

        def check(call) -> str | None:
            title, arguments, may_succeed = call
            try:
                skipstone.call(*arguments, timeout=TIMEOUT_SECONDS, prepare=prepare)
                return None if may_succeed else f"{title}: accepted"
            except driver.Refused as refusal:
                return None if CODE.fullmatch(refusal.code) else f"{title}: strange code: {refusal}"
            except driver.Crashed as crash:
                return f"{title}: {crash}"

        failures = [line for line in driver.in_parallel(check, calls) if line]
    for line in failures:
        print(f"FAIL {line}")
    print(f"malformed: {len(calls)} calls, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
