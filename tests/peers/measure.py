"""Measures runtimes alternately on one model: one process each, stopped while another is measured.

A worker runs only during its own burst, so its threads, some of which spin between inferences, do
not disturb the others. A burst is repeated if other programs took CPU time during it. If no burst
is quiet, the least disturbed one is used and reported as such.
"""

import json
import os
import random
import select
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from peers import environment
import numpy as np

TIMEOUT_SECONDS = 120
BURST_SECONDS = 0.25
WARM_UP = 3
TIMED_AT_LEAST, TIMED_AT_MOST = 3, 200
# A burst is quiet if other processes used at most this share of one core; a disturbed burst is repeated.
QUIET = 0.1
ATTEMPTS = 5
TICK = 1 / os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The last output of a failed worker."""


@dataclass
class Task:
    """What a worker should run."""

    runtime: str
    model: Path
    threads: int
    dims: list[int]
    image: Path


class Worker:
    """A process with a loaded model; stopped between requests."""

    def __init__(self, task: Task):
        program = environment.worker(task.runtime)
        dims = ",".join(map(str, task.dims))
        # The last cores: the first one serves most interrupts.
        cores = sorted(os.sched_getaffinity(0))[-task.threads :]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*program, task.runtime, task.model, str(task.threads), dims, task.image],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        try:
            self.start = self.receive()
        except Failed:
            self.close()
            raise

    def receive(self) -> dict:
        """Its next answer; the process is stopped afterwards."""
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            if not ready:
                self.process.kill()
            status = self.process.wait()
            self.errors.seek(0)
            said = [text for text in self.errors.read().splitlines() if text.strip()]
            raise Failed(f"status {status}, {said[-1][:200] if said else 'without a word'}")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def request(self, line: str) -> dict:
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.receive()

    def cpu_seconds(self) -> float:
        """CPU time that it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


def machine_cpu_seconds() -> float:
    """CPU time that all programs have used since the machine started, plus the time stolen by the hypervisor."""
    user, nice, system, _, _, interrupt, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + interrupt + soft + steal) * TICK


def undisturbed(action) -> tuple[object, bool]:
    """The result of `action`, which returns it with the CPU time it took, and whether the machine was otherwise idle
    meanwhile. A disturbed action is repeated."""
    best = None
    for attempt in range(ATTEMPTS):
        before, began = machine_cpu_seconds(), time.perf_counter()
        result, own = action()
        elapsed = time.perf_counter() - began
        others = machine_cpu_seconds() - before - own
        # Both clocks have ticks, so each can be off by one.
        others = max(others - 2 * TICK, 0) / elapsed
        if best is None or others < best[0]:
            best = others, result
        if others <= QUIET:
            break
        time.sleep(0.1 * attempt)
    return best[1], best[0] <= QUIET


@dataclass
class Measured:
    """The measurements for one runtime, model and number of threads."""

    load_ns: list[int] = field(default_factory=list)
    resident_kib: list[int] = field(default_factory=list)
    anonymous_kib: list[int] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    disturbed: int = 0
    bursts: int = 0
    error: str | None = None

    def summary(self) -> dict:
        if self.error:
            return {"error": self.error}
        times = np.array(self.times_ns) / 1e6
        return {
            "median_ms": float(np.median(times)),
            "p90_ms": float(np.percentile(times, 90)),
            "load_ms": statistics.median(self.load_ns) / 1e6,
            "resident_mb": statistics.median(self.resident_kib) * 1024 / 1e6,
            "anonymous_mb": statistics.median(self.anonymous_kib) * 1024 / 1e6,
            "runs": len(times),
            "bursts": self.bursts,
            "disturbed_bursts": self.disturbed,
        }


def disagreement(got: np.ndarray, want: np.ndarray) -> str | None:
    """What is wrong with an output: None if it is within 1e-3 of the largest expected value and has the same top-1."""
    if got.size != want.size:
        return f"{got.size} outputs instead of {want.size}"
    error, largest = float(np.abs(got - want).max()), float(np.abs(want).max())
    if not error <= 1e-3 * largest:
        return f"max |difference| {error:.3g} at max |output| {largest:.3g}"
    if got.argmax() != want.argmax():
        return f"top-1 is {got.argmax()} instead of {want.argmax()}"
    return None


def loads(tasks: list[Task], results: dict[str, Measured], repetitions: int) -> None:
    """Fresh processes: time to the first output, and memory."""

    def start(task: Task):
        worker = Worker(task)
        try:
            return worker.start, worker.cpu_seconds()
        finally:
            worker.close()

    for _ in range(repetitions):
        for task in tasks:
            result = results[task.runtime]
            if result.error:
                continue
            try:
                facts, quiet = undisturbed(lambda: start(task))
            except Failed as failure:
                result.error = str(failure)
                continue
            result.load_ns.append(facts["load_ns"])
            result.resident_kib.append(facts["resident_kib"])
            result.anonymous_kib.append(facts["anonymous_kib"])


def latencies(tasks: list[Task], results: dict[str, Measured], want: np.ndarray, rounds: int) -> None:
    """Bursts of inferences, round after round, in a new order each; compares the last output."""

    def burst(worker: Worker, timed: int):
        before = worker.cpu_seconds()
        times = worker.request(f"run {WARM_UP} {timed}")["times_ns"]
        return times, worker.cpu_seconds() - before

    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for task in tasks:
            if not results[task.runtime].error:
                try:
                    workers[task.runtime] = Worker(task)
                    stack.callback(workers[task.runtime].close)
                except Failed as failure:
                    results[task.runtime].error = str(failure)
        order = list(workers)
        for _ in range(rounds):
            random.shuffle(order)
            for runtime in order:
                worker, result = workers[runtime], results[runtime]
                if result.error:
                    continue
                wanted = BURST_SECONDS * 1e9 / min(worker.start["times_ns"])
                timed = round(min(max(wanted, TIMED_AT_LEAST), TIMED_AT_MOST))
                try:
                    times, quiet = undisturbed(lambda: burst(worker, timed))
                except Failed as failure:
                    result.error = str(failure)
                    continue
                result.times_ns += times
                result.bursts += 1
                result.disturbed += not quiet
        with tempfile.TemporaryDirectory() as folder:
            for runtime, worker in workers.items():
                if results[runtime].error:
                    continue
                file = Path(folder) / runtime
                try:
                    worker.request(f"output {file}")
                except Failed as failure:
                    results[runtime].error = str(failure)
                    continue
                wrong = disagreement(np.fromfile(file, np.float32), want.ravel())
                results[runtime].error = wrong and f"wrong output: {wrong}"


def measure(tasks: list[Task], want: np.ndarray, rounds: int, repetitions: int) -> dict[str, dict]:
    """A summary for each runtime; `want` is the expected output."""
    results = {task.runtime: Measured() for task in tasks}
    loads(tasks, results, repetitions)
    latencies(tasks, results, want, rounds)
    return {runtime: result.summary() for runtime, result in results.items()}
