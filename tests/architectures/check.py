"""Compares published architectures (graphs/, made by export.py) with ONNX Runtime, as ONNX files and as packages.

`cargo xtask python architectures.check [NAME ...]` fills each graph with seeded random weights and runs it on one
image. The outputs must be within 1e-4 of the largest output, packages must give bit-identical outputs, and no step may
be a fallback. With `--time FILE` it instead writes a table of latencies beside ONNX Runtime's: one thread, alternating
runs, medians.
"""

import gzip
import json
import math
import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from harness import driver

GRAPHS = Path(__file__).parent / "graphs"
TOLERANCE = 1e-4
ROUNDS = 7


def fill(name: str, folder: Path) -> Path:
    """Write `name`.onnx with random weights into `folder`. The doc string of a stripped initializer records the
    statistics of its values: mean, standard deviation, smallest, largest."""
    model = onnx.load_from_string(gzip.decompress((GRAPHS / f"{name}.onnx.gz").read_bytes()))
    for tensor in model.graph.initializer:
        if not tensor.doc_string:
            continue
        mean, deviation, low, high = map(float, tensor.doc_string.split())
        random = np.random.default_rng(zlib.crc32(f"{name}/{tensor.name}".encode()))
        values = random.standard_normal(math.prod(tensor.dims), dtype=np.float32) * deviation + mean
        tensor.raw_data = values.clip(low, high).astype("<f4").tobytes()
        tensor.doc_string = ""
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def reference(model: Path) -> tuple[onnxruntime.InferenceSession, dict[str, np.ndarray]]:
    """A single-threaded ONNX Runtime session, and an image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    image = np.random.default_rng(7).standard_normal(entry.shape, dtype=np.float32)
    return session, {entry.name: image}


def check(skipstone: driver.Skipstone, name: str) -> list[str]:
    """The failures, one per line."""
    with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
        model = fill(name, Path(folder))
        session, inputs = reference(model)
        outputs = [output.name for output in session.get_outputs()]
        wanted = session.run(outputs, inputs)
        if not all(np.isfinite(array).all() for array in wanted):
            return [f"{name}: ONNX Runtime's answer is not finite"]
        failures, package = [], model.with_suffix(".skip")
        try:
            fallback = [step["op"] for step in skipstone.inspect(model)["steps"] if step["kernel"] == "fallback"]
            if fallback:
                failures.append(f"{name}: fallback steps: {', '.join(sorted(set(fallback)))}")
            got = skipstone.run(model, inputs, outputs)
            for output, one, other in zip(outputs, got, wanted):
                if wrong := driver.difference(one, other, TOLERANCE):
                    failures.append(f"{name}, output {output}: {wrong}")
            skipstone.call("compile", model, "-o", package)
            # Two of the largest at a time would fill a small disk.
            model.unlink()
            if any(not np.array_equal(*pair) for pair in zip(got, skipstone.run(package, inputs, outputs))):
                failures.append(f"{name}: the package's output differs")
        except (driver.Refused, driver.Crashed) as error:
            failures.append(f"{name}: {error}")
        return failures


def latency(skipstone: driver.Skipstone, name: str) -> tuple[float, float]:
    """Median times in milliseconds, ours and ONNX Runtime's, alternating."""
    with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
        model = fill(name, Path(folder))
        session, inputs = reference(model)
        ours, theirs = [], []
        session.run(None, inputs)
        for _ in range(ROUNDS):
            measured = json.loads(skipstone.call("bench", model, "--warmup", 2, "--runs", 5, "--json", "-"))
            ours.append(measured["latency_ms"]["p50"])
            for _ in range(5):
                began = time.perf_counter()
                session.run(None, inputs)
                theirs.append(1000 * (time.perf_counter() - began))
        return statistics.median(ours), statistics.median(theirs)


def main() -> int:
    parser = driver.arguments(__doc__)
    parser.add_argument("names", nargs="*", help="architectures; all when none is given")
    parser.add_argument("--time", type=Path, metavar="FILE", help="write a table of latencies instead")
    options = parser.parse_args()
    skipstone = driver.Skipstone(options.binary, options.runner)
    chosen = options.names or sorted(path.name.removesuffix(".onnx.gz") for path in GRAPHS.glob("*.onnx.gz"))
    if options.time:
        rows = []
        for name in chosen:
            ours, theirs = latency(skipstone, name)
            rows.append((ours / theirs, name, ours, theirs))
            print(f"{name}: {ours:.2f} ms, ONNX Runtime {theirs:.2f} ms: {ours / theirs:.2f}", flush=True)
        mean = math.exp(statistics.fmean(math.log(row[0]) for row in rows))
        lines = [f"| {name} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |" for ratio, name, ours, theirs in sorted(rows)]
        head = ["| architecture | Skipstone, ms | ONNX Runtime, ms | ratio |", "|---|---|---|---|"]
        options.time.write_text("\n".join([*head, *lines, f"| geometric mean | | | {mean:.2f} |", ""]))
        return 0
    failures = []
    for found in driver.in_parallel(lambda name: check(skipstone, name), chosen):
        failures += found
        for line in found:
            print(line, flush=True)
    print(f"{len(chosen)} architectures, {len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
