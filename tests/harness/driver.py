"""Runs the `skipstone` command as a user does, for the tests written in Python.

The tests use the binary, not a binding. So they test what is shipped, a crash ends only the child process, and the same
test can run an aarch64 binary under an emulator.
"""

import argparse
import json
import os
import shlex
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# No command of the tests takes longer, even under an emulator, unless it hangs.
TIMEOUT_SECONDS = 600


def xtask(*arguments, environment: dict[str, str] | None = None) -> str:
    """The output of one of the project's own commands. The xtask program exists, since it runs the tests."""
    command = [TARGET / "debug" / "xtask", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


class Refused(Exception):
    """Exit status 1 with the documented single line on stderr."""

    def __init__(self, code: str, message: str):
        super().__init__(f"[{code}] {message}")
        self.code, self.message = code, message


class Crashed(Exception):
    """Any undocumented outcome: a panic, a signal, a hang, a stray line."""


class Skipstone:
    """A binary, and the emulator to run it with, if any."""

    def __init__(self, binary: Path, runner: str = ""):
        self.command = [*shlex.split(runner), str(binary)]
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("RUST_", "SKIPSTONE_"))}

    def call(self, *arguments, timeout: float = TIMEOUT_SECONDS, prepare=None) -> str:
        """Run a subcommand and return its stdout. `prepare` is called in the child before it starts."""
        try:
            done = subprocess.run(
                [*self.command, *map(str, arguments)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=self.environment,
                preexec_fn=prepare,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Crashed(f"no result after {timeout} s") from None
        lines = done.stderr.strip().splitlines()
        if done.returncode == 0:
            return done.stdout
        last = lines[-1] if lines else ""
        if done.returncode != 1 or len(lines) != 1 or not last.startswith("error[") or "]: " not in last:
            raise Crashed(f"exit status {done.returncode}: {done.stderr.strip()[:500]}")
        code, _, message = last.removeprefix("error[").partition("]: ")
        if code == "internal" or "panicked" in last:
            raise Crashed(last)
        raise Refused(code, message)

    def run(self, model: Path, inputs: dict[str, np.ndarray], outputs: list[str], *options) -> list[np.ndarray]:
        """`skipstone run`: the arrays of `outputs`, by name."""
        with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
            arguments = ["run", model]
            for index, (name, array) in enumerate(inputs.items()):
                file = Path(folder) / f"input{index}.npy"
                np.save(file, array)
                arguments += ["--input", f"{name}={file}"]
            out = Path(folder) / "out"
            self.call(*arguments, "--output-dir", out, *options)
            missing = [name for name in outputs if not (out / npy_name(name)).exists()]
            if missing:
                raise Crashed(f"no file for output {missing[0]}, only {sorted(p.name for p in out.iterdir())}")
            return [np.load(out / npy_name(name)) for name in outputs]

    def inspect(self, model: Path, *options) -> dict:
        """`skipstone inspect --json`."""
        return json.loads(self.call("inspect", model, "--json", *options))


def npy_name(output: str) -> str:
    """The file name that `skipstone run` uses for an output."""
    return output.replace("/", "_") + ".npy"


def difference(got: np.ndarray, want: np.ndarray, tolerance: float, floor: float = 1e-6) -> str | None:
    """The difference between two arrays: None if it is at most `tolerance` of the largest expected value. Integers and
    booleans must be equal, NaN and infinities must be in the same positions."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{list(got.shape)} instead of {want.dtype}{list(want.shape)}"
    if not np.issubdtype(want.dtype, np.floating):
        wrong = int((got != want).sum())
        return f"{wrong} of {want.size} elements differ" if wrong else None
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return "NaN or infinity in other places"
    got, want = got[finite].astype(np.float64), want[finite].astype(np.float64)
    if not want.size:
        return None
    error, largest = np.abs(got - want).max(), np.abs(want).max()
    if error > tolerance * largest + floor:
        return f"max |difference| {error:.3g} at max |output| {largest:.3g}"
    return None


def in_parallel(work, items):
    """Yields `work` of each item, in order and as soon as it is available; runs as many at a time as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(work, items)


def arguments(description: str) -> argparse.ArgumentParser:
    """Options that all test programs have."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--binary", type=Path, default=TARGET / "release" / "skipstone")
    parser.add_argument("--runner", default="", help="emulator and its options, for a binary of another CPU")
    return parser
