"""What the measurements printed, as one report: `python experiments/speed/report.py OUT`.

Reads `results/*.json`, measures nothing; scripts/publish.py puts it into README.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import bench
import scaling

ORDER = ("compare_trl", "step", "scaling", "verifiers", "logprobs")
FIGURE = "scaling.png"


def section(found: dict) -> str:
    """One measurement under its heading."""
    lines = [f"`{found['command']}` on {bench.machine_line(found['machine'])}", "", *found["lines"]]
    return f"## {found['title']}\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="directory for report.md and figures")
    parser.add_argument("--results", type=Path, default=bench.RESULTS)
    args = parser.parse_args()
    (args.out / "figures").mkdir(parents=True, exist_ok=True)
    parts = ["# Speed\n"]
    for name in ORDER:
        path = args.results / f"{name}.json"
        if not path.exists():
            print(f"{name}: not measured yet")
            continue
        found = json.loads(path.read_text())
        parts.append(section(found))
        if name == "scaling":
            scaling.figure(found["data"], args.out / "figures" / FIGURE)
            parts.append(f"![seconds and memory per step over each axis](figures/{FIGURE})\n")
    (args.out / "report.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
