"""Compares Skipstone with other runtimes: latency, loading and memory, on the same models, alternating.

`cargo xtask python peers.compare` installs the peers (some gigabytes, in build/peers), converts the
zoo, measures and reports. See README.md.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import environment, report

ROOT = environment.HERE.parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", metavar="NAME", help="models of the zoo, or ONNX files; default: the zoo")
    peers = [name for name in report.NAMES if name not in report.OURS]
    parser.add_argument("--peers", nargs="+", choices=peers, default=peers)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=8, help="bursts for each runtime")
    parser.add_argument("--loads", type=int, default=3, help="fresh processes for each runtime")
    parser.add_argument("--quick", action="store_true", help="two rounds, one load")
    parser.add_argument("--out", type=Path, default=environment.BUILD / "results", help="folder for the results")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.loads = 2, 1
    if max(args.threads) > os.cpu_count() or min(args.threads) < 1:
        parser.error(f"there are {os.cpu_count()} cores")
    return args


def model_files(names: list[str] | None) -> list[Path]:
    """Paths of the models; models of the zoo are made if they do not exist."""
    from harness import fill

    files = []
    for name in names or fill.names():
        file = Path(name) if name.endswith(".onnx") else fill.FILLED / f"{name}.onnx"
        files.append(file if file.exists() else fill.fill(name))
    return files


def reference(model: Path, folder: Path) -> tuple[list[int], Path, "numpy.ndarray"]:
    """The shape of a model's input, a file with an image for it, and ONNX Runtime's output."""
    from harness import fill
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    image = fill.image(entry.shape[2], seed=5)
    file = folder / "image.f32"
    image.tofile(file)
    return list(entry.shape), file, session.run(None, {entry.name: image})[0]


def compare(args: argparse.Namespace) -> dict:
    from peers import convert, measure

    runtimes = [*report.OURS, *args.peers]
    models = model_files(args.models)
    result = {
        "machine": report.machine(),
        "versions": {name: environment.version(name) for name in runtimes},
        "rounds": args.rounds,
        "threads": [str(count) for count in args.threads],
        "models": {},
    }
    began = time.monotonic()
    steps, step = len(models) * len(args.threads), 0
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            dims, image, want = reference(model, Path(folder))
            files, failed = {}, {}
            for runtime in runtimes:
                try:
                    files[runtime] = convert.convert(runtime, model, dims)
                except convert.Failed as failure:
                    failed[runtime] = {"error": f"conversion: {failure}"}
            by_threads = result["models"].setdefault(model.stem, {})
            for threads in args.threads:
                tasks = [measure.Task(runtime, file, threads, dims, image) for runtime, file in files.items()]
                row = failed | measure.measure(tasks, want, args.rounds, args.loads)
                by_threads[str(threads)] = row
                step += 1
                medians = (f"{name} {report.cell(row[name], 'median_ms', None, False)}" for name in runtimes)
                minutes = (time.monotonic() - began) / 60
                where = f"[{step}/{steps}, {minutes:.1f} min] {model.stem}, {threads} thread(s)"
                print(f"{where}: {', '.join(medians)}", flush=True)
                report.write(result, args.out)
    return result


def main() -> None:
    args = arguments()
    try:
        environment.prepare(args.peers)
    except subprocess.CalledProcessError as failure:
        sys.exit(str(failure))
    if Path(sys.prefix) != environment.BUILD / "venv":
        # Restart with the packages just installed.
        os.execv(environment.PYTHON, [environment.PYTHON, "-m", "peers.compare", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    result = compare(args)
    print("\n" + report.markdown(result))
    print(f"results are in {args.out}")


if __name__ == "__main__":
    main()
