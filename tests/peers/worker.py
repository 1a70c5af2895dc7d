"""A worker of the comparison: one runtime, one model, driven by lines on stdin.

`worker.py ENGINE MODEL THREADS DIMS FILE`, where FILE holds the input, DIMS f32 in NCHW order. It
loads the model, runs it, and answers with one line of JSON: `load_ns` from before the file is
opened to the first output, `resident_kib` and `anonymous_kib` by which the process has grown
since just before it, `times_ns` of the next inferences. Then, line by line:

    run WARM_UP TIMED    {"times_ns": [...]}
    output FILE          {}, the last output as f32 in FILE

It ends with its input. `rust/src/main.rs` is the same for the runtimes written in Rust.
"""

import json
import os
import sys
import time

import engines
import numpy as np

# Some libraries write to stdout, so answers use a duplicate of it.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

# Runs before memory is read, so that memory allocated on demand is included.
SETTLING_RUNS = 10


def resident() -> tuple[int, int]:
    """Resident memory of this process, total and without file-backed pages, in KiB."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0]), int(fields["RssAnon"].split()[0])


def burst(engine, warm_up: int, timed: int) -> list[int]:
    """The times of `timed` inferences after `warm_up` others, in nanoseconds."""
    for _ in range(warm_up):
        engine.place_input()
        engine.run()
    times = []
    for _ in range(timed):
        engine.place_input()
        began = time.perf_counter_ns()
        engine.run()
        times.append(time.perf_counter_ns() - began)
    return times


def answer(**fields) -> None:
    print(json.dumps(fields), file=answers, flush=True)


def main(name: str, model: str, threads: str, dims: str, file: str) -> None:
    Engine = engines.find(name)
    image = np.fromfile(file, np.float32).reshape([int(dim) for dim in dims.split(",")])
    if Engine.layout == "nhwc":
        image = np.ascontiguousarray(image.transpose(0, 2, 3, 1))

    before = resident()
    began = time.perf_counter_ns()
    engine = Engine(model, int(threads), image)
    engine.place_input()
    engine.run()
    load = time.perf_counter_ns() - began
    times = burst(engine, 0, SETTLING_RUNS)
    grown = [after - start for after, start in zip(resident(), before)]
    answer(load_ns=load, resident_kib=grown[0], anonymous_kib=grown[1], times_ns=times)

    for line in sys.stdin:
        match line.split():
            case ["run", warm_up, timed]:
                answer(times_ns=burst(engine, int(warm_up), int(timed)))
            case ["output", path]:
                np.asarray(engine.output(), np.float32).tofile(path)
                answer()
            case _:
                sys.exit(f"unknown request: {line}")


if __name__ == "__main__":
    main(*sys.argv[1:])
