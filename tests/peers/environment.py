"""Installs what the comparison needs, under build/peers: two Python environments and the Rust workers."""

import os
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build" / "peers"
PYTHON = BUILD / "venv" / "bin" / "python"
CONVERTERS = BUILD / "converters" / "bin"
RUST_WORKER = BUILD / "target" / "release" / "skipstone-peers"
# Runs packages, as an app does: built without the importer.
PACKAGE_WORKER = BUILD / "package-target" / "release" / "skipstone-peers"
# Makes the packages.
SKIPSTONE = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "release" / "skipstone"

# The package that tells a runtime's version.
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "mnn": "MNN",
    "mnn_small": "MNN",
    "litert": "ai-edge-litert",
}
CRATES = {
    "skipstone": "skipstone",
    "skipstone_package": "skipstone",
    "skipstone_small": "skipstone",
    "tract": "tract-onnx",
    "rten": "rten",
}


def python_environment(folder: Path, requirements: Path) -> None:
    """Create or update the environment in `folder`."""
    installed, wanted = folder / "installed.txt", requirements.read_text()
    if installed.exists() and installed.read_text() == wanted:
        return
    print(f"installing {requirements.name} in {folder.relative_to(HERE.parents[1])}", flush=True)
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", requirements], check=True)
    installed.write_text(wanted)


def prepare(runtimes: list[str]) -> None:
    """Install what these runtimes need; raises `subprocess.CalledProcessError` if that fails."""
    python_environment(BUILD / "venv", HERE / "requirements.txt")
    if {"ncnn", "litert"} & set(runtimes):
        python_environment(BUILD / "converters", HERE / "requirements-converters.txt")
    subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "skipstone-cli"], cwd=HERE.parents[1], check=True)
    for worker, features in ((RUST_WORKER, []), (PACKAGE_WORKER, ["--no-default-features"])):
        subprocess.run(
            ["cargo", "build", "--quiet", "--release", *features],
            cwd=HERE / "rust",
            env=os.environ | {"CARGO_TARGET_DIR": str(worker.parents[1])},
            check=True,
        )


def worker(runtime: str) -> list[str | Path]:
    """The measured program."""
    if runtime in PACKAGES:
        return [sys.executable, HERE / "worker.py"]
    return [PACKAGE_WORKER if runtime in ("skipstone_package", "skipstone_small") else RUST_WORKER]


def version(runtime: str) -> str:
    """The measured version."""
    if runtime in PACKAGES:
        return metadata.version(PACKAGES[runtime])
    lock = tomllib.loads((HERE / "rust" / "Cargo.lock").read_text())
    return next(package["version"] for package in lock["package"] if package["name"] == CRATES[runtime])
