"""Counts the `unsafe` code of every crate, and compares it with SECURITY.md."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([a-z/]+)` \| (\d+) \| (\d+) \|$", re.MULTILINE)
# Comments and strings are not code.
NO_CODE = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"', re.DOTALL)


def count(folder: Path) -> tuple[int, int]:
    """The counts of `unsafe` blocks, and of `unsafe` functions and implementations."""
    code = "\n".join(NO_CODE.sub("", path.read_text()) for path in sorted(folder.rglob("*.rs")))
    return len(re.findall(r"\bunsafe \{", code)), len(re.findall(r"\bunsafe (?:extern|fn|impl)\b", code))


def main() -> None:
    crates = sorted(path.parent for path in ROOT.glob("*/**/Cargo.toml") if not {"target", "build"} & set(path.parts))
    counted = {}
    for crate in crates:
        inner = {other for other in crates if other != crate and other.is_relative_to(crate)}
        counts = count(crate / "src")
        if any(counts) and not any((crate / "src").is_relative_to(other) for other in inner):
            counted[str(crate.relative_to(ROOT))] = counts
    stated = {name: (int(blocks), int(others)) for name, blocks, others in ROW.findall((ROOT / "SECURITY.md").read_text())}
    if stated != counted:
        print("SECURITY.md should say:")
        print("\n".join(f"| `{name}` | {blocks} | {others} |" for name, (blocks, others) in counted.items()))
    print(f"security: {len(counted)} crates with unsafe code, {'as' if stated == counted else 'not as'} SECURITY.md says")
    sys.exit(stated != counted)


if __name__ == "__main__":
    main()
