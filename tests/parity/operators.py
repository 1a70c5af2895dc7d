"""Random small graphs of every native operator, and chains of them, against ONNX Runtime.

Shapes are drawn so that 1, odd sizes and the remainders of vector widths occur; every case is seeded by its name and
number, so that a failure can be repeated alone:

    cargo xtask python parity.operators --only conv --cases 40 --keep FOLDER
"""

import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from harness import driver

# Importing these modules registers their families in CASES.
from parity import (  # noqa: F401
    classical,
    control_flow,
    double,
    guards,
    integers,
    layer_families,
    lengths,
    masks,
    mended,
    pruned,
    rare,
    routed,
)
from parity.cases import AS_PACKAGES, CASES
from parity.graph import Graph

TOLERANCE = 1e-4
THREADS = (1, 2)


def check(skipstone: driver.Skipstone, name: str, number: int, folder: Path) -> str | None:
    """Make case `number` of the family `name` and run it; returns what is wrong with the result."""
    graph = Graph(np.random.default_rng([zlib.crc32(name.encode()), number]))
    made = CASES[name](graph)
    model, wanted = graph.finish(made if isinstance(made, tuple) else (made,))
    path = folder / f"{name}_{number}.onnx"
    onnx.save(model, path)
    outputs = [output.name for output in model.graph.output]
    package = path.with_suffix(".skip")
    try:
        if name in AS_PACKAGES:
            skipstone.call("compile", path, "-o", package)
        if name in routed.FORMS and (wrong := routed.is_not_routed(skipstone.inspect(path))):
            return wrong
        for settings in graph.set_to():
            options = ["--threads", THREADS[number % len(THREADS)], *as_options(settings, folder, f"{name}_{number}")]
            wanted = graph.evaluated(model, outputs, settings) if settings else wanted
            for file in [path, package] if name in AS_PACKAGES else [path]:
                got = skipstone.run(file, graph.inputs, outputs, *options)
                wrong = [driver.difference(g, w, TOLERANCE) for g, w in zip(got, wanted)]
                if any(wrong):
                    at = f" at {settings}" if settings else ""
                    return next(f"{file.name}: output {i}{at}: {text}" for i, text in enumerate(wrong) if text)
    except driver.Crashed as crash:
        return f"crash: {crash}"
    except driver.Refused as refusal:
        return str(refusal)
    return None


def as_options(settings: dict[str, np.ndarray], folder: Path, stem: str) -> list[str]:
    """`--set` options: integers and bools as text, floats as files, because text might round them."""
    options = []
    for name, array in settings.items():
        if np.issubdtype(array.dtype, np.floating) or array.size != 1 and array.dtype == np.bool_:
            value = folder / f"{stem}_{name}.npy"
            np.save(value, array)
        else:
            value = ",".join(str(element).lower() for element in array.flat)
        options += ["--set", f"{name}={value}"]
    return options


def main() -> None:
    parser = driver.arguments(__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="FAMILY", help="default: all families")
    parser.add_argument("--cases", type=int, default=12, help="random graphs of each family")
    parser.add_argument("--keep", type=Path, help="folder to write the graphs to")
    args = parser.parse_args()
    skipstone = driver.Skipstone(args.binary, args.runner)
    onnxruntime.set_default_logger_severity(3)

    failed = total = 0
    with tempfile.TemporaryDirectory(prefix="skipstone-") as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.only or CASES:
            results = list(driver.in_parallel(lambda n: check(skipstone, name, n, folder), range(args.cases)))
            for number, wrong in enumerate(results):
                if wrong:
                    print(f"FAIL {name} #{number}: {wrong}", flush=True)
            failed += sum(wrong is not None for wrong in results)
            total += len(results)
    print(f"operator parity: {len(args.only or CASES)} families, {total} graphs, {failed} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
