"""The results as Markdown and JSON.

Results are nested by model, thread count and runtime. Each has the figures of
`measure.Measured.summary`, or an `error` if the runtime failed or gave wrong outputs; such a
runtime is never the best.
"""

import datetime
import itertools
import json
import math
import os
import platform
from pathlib import Path

OURS = ("skipstone", "skipstone_package", "skipstone_small")
NAMES = {
    "skipstone": "Skipstone",
    "skipstone_package": "Skipstone, package",
    "skipstone_small": "Skipstone, small package",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "ncnn": "ncnn",
    "mnn": "MNN",
    "mnn_small": "MNN (smaller tiles)",
    "litert": "LiteRT",
    "tract": "tract",
    "rten": "rten",
}
# Figures, their short and long names, and the one shown in parentheses after them.
MEASURES = {
    "median_ms": ("latency", "Latency, ms: median (90th percentile)", "p90_ms"),
    "load_ms": ("load", "Load and first inference, ms", None),
    "resident_mb": (
        "memory",
        "Resident memory, MB: growth by loading and running (of it, not backed by a file)",
        "anonymous_mb",
    ),
}


def machine() -> dict:
    """The machine."""
    cpu = next(line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").open() if line.startswith("model name"))
    flags = next(line.split() for line in Path("/proc/cpuinfo").open() if line.startswith("flags"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "asimd")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "instruction_sets": [name for name in known if name in flags],
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def best_peer(row: dict[str, dict], figure: str) -> str | None:
    """The runtime with the smallest figure, except ours."""
    peers = {name: facts[figure] for name, facts in row.items() if name not in OURS and figure in facts}
    return min(peers, key=peers.get, default=None)


def ratio(row: dict[str, dict], figure: str, peer: str | None, ours: str = OURS[0]) -> float | None:
    """Our figure divided by the peer's: below one if ours is better."""
    if peer is None or figure not in row.get(ours, {}) or figure not in row.get(peer, {}):
        return None
    # Memory is measured in pages: a model may cost none.
    return max(row[ours][figure], 1e-3) / max(row[peer][figure], 1e-3)


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def table(heading: list[str], rows: list[list[str]]) -> list[str]:
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(heading), "|" + "---|" * len(heading), *map(line, rows), ""]


def cell(facts: dict, figure: str, behind: str | None, best: bool) -> str:
    if "error" in facts:
        return "wrong" if facts["error"].startswith("wrong") else "fails"
    if figure not in facts:
        return "-"
    text = f"**{number(facts[figure])}**" if best else number(facts[figure])
    return text + (f" ({number(facts[behind])})" if behind else "")


def figures(result: dict, threads: str, figure: str) -> list[str]:
    """One figure of all runtimes, model by model; the smallest is bold."""
    _, heading, behind = MEASURES[figure]
    runtimes = list(result["versions"])
    rows = []
    for model, by_threads in result["models"].items():
        row = by_threads.get(threads, {})
        peer = best_peer(row, figure)
        least = min((one[figure] for one in row.values() if figure in one), default=None)
        facts = [row.get(name, {}) for name in runtimes]
        cells = [cell(one, figure, behind, one.get(figure) == least) for one in facts]
        ratios = [number(ratio(row, figure, peer, ours)) for ours in measured(runtimes)]
        rows.append([model, *cells, NAMES.get(peer, "-"), *ratios])
    counted = "1 thread" if threads == "1" else f"{threads} threads"
    ratios = [f"{NAMES[ours]} / best" for ours in measured(runtimes)]
    columns = ["model", *(NAMES[name] for name in runtimes), "best peer", *ratios]
    return [f"### {heading}; {counted}", "", *table(columns, rows)]


def measured(runtimes: list[str]) -> list[str]:
    """Our configurations among these runtimes."""
    return [name for name in OURS if name in runtimes]


def summary(result: dict) -> list[str]:
    """Our figures divided by the best peer's, and by each peer's, over all models."""
    runtimes = list(result["versions"])
    peers = [name for name in runtimes if name not in OURS]
    rows = []
    for threads, figure, ours in itertools.product(result["threads"], MEASURES, measured(runtimes)):
        by_model = {model: by_threads.get(threads, {}) for model, by_threads in result["models"].items()}
        against_best = {
            model: value for model, row in by_model.items() if (value := ratio(row, figure, best_peer(row, figure), ours))
        }
        if not against_best:
            continue
        worst = max(against_best, key=against_best.get)
        means = []
        for peer in peers:
            values = [value for row in by_model.values() if (value := ratio(row, figure, peer, ours))]
            means.append(number(geometric_mean(values)) if values else "-")
        rows.append(
            [
                MEASURES[figure][0],
                threads,
                NAMES[ours],
                f"**{number(geometric_mean(list(against_best.values())))}**",
                f"{number(against_best[worst])} ({worst})",
                f"{sum(value <= 1 for value in against_best.values())} of {len(against_best)}",
                *means,
            ]
        )
    columns = ["figure", "threads", "ours", "ours / best peer", "worst", "ours is best"]
    columns += [f"/ {NAMES[name]}" for name in peers]
    return ["### Summary: geometric means, below 1 where Skipstone is better", "", *table(columns, rows)]


def troubles(result: dict) -> list[str]:
    """What failed or was wrong, and how quiet the machine was."""
    lines = [
        f"- {model}, {threads} thread(s), {NAMES[name]}: {facts['error']}"
        for model, by_threads in result["models"].items()
        for threads, row in by_threads.items()
        for name, facts in row.items()
        if "error" in facts
    ]
    rows = [facts for by in result["models"].values() for row in by.values() for facts in row.values()]
    bursts, disturbed = (sum(facts.get(key, 0) for facts in rows) for key in ("bursts", "disturbed_bursts"))
    quiet = f"Other programs took CPU time during {disturbed} of {bursts} bursts."
    return [*(["### Failures", "", *lines, ""] if lines else []), quiet, ""]


def markdown(result: dict) -> str:
    about = result["machine"]
    versions = ", ".join(f"{NAMES[name]} {version}" for name, version in result["versions"].items())
    lines = [
        "# Skipstone and its peers",
        "",
        f"{about['date']}; {about['cpu']}, {about['cores']} cores ({', '.join(about['instruction_sets'])}), "
        f"{about['memory_gb']} GB; {about['system']}. {versions}. {result['rounds']} rounds, f32, batch 1.",
        "",
        *summary(result),
    ]
    for threads in result["threads"]:
        for figure in MEASURES:
            lines += figures(result, threads, figure)
    return "\n".join([*lines, *troubles(result)])


def write(result: dict, folder: Path) -> None:
    """results.json and results.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(result))
