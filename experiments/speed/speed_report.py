"""One report of all measurements: `python experiments/speed/speed_report.py OUT`.

Reads `results/*.json`, one per piece, and measures nothing; scripts/publish.py puts it into
README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import compare_trl
import record
import scaling

ORDER = (
    "compare_trl", "step_time", "scaling", "startup", "verifier_time", "logprob_memory",
    "adapter_sync",
)  # fmt: skip
AGAINST_TRL, GROWTH = "against_trl.png", "scaling.png"


def section(pieces: Sequence[Mapping[str, Any]]) -> str:
    """The pieces of one program under its heading, each with its command."""
    lines = [f"### {pieces[0]['title']}", ""]
    if pieces[0]["program"] == "compare_trl" and len(pieces) > 1:
        lines += [*compare_trl.trend([piece["data"] for piece in pieces]), ""]
    for piece in pieces:
        where = record.machine_line(piece["machine"])
        lines += [*piece["lines"], "", f"`{piece['command']}` on {where}", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="directory for report.md and figures")
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    args = parser.parse_args()
    results = [json.loads(path.read_text()) for path in args.results.glob("*.json")]
    if not results:
        parser.error(f"{args.results} holds no results: make bench")
    (args.out / "figures").mkdir(parents=True, exist_ok=True)
    parts = ["# Speed\n"]
    for program in ORDER:
        pieces = [piece for piece in results if piece["program"] == program]
        if not pieces:
            print(f"{program}: not measured yet")
            continue
        pieces.sort(key=lambda piece: piece["order"])
        parts.append(section(pieces))
        if program == "compare_trl":
            compare_trl.figure([p["data"] for p in pieces], args.out / "figures" / AGAINST_TRL)
        if program == "scaling":
            axes = {piece["data"]["axis"]: piece["data"] for piece in pieces}
            scaling.figure(axes, args.out / "figures" / GROWTH)
            parts.append(f"![seconds and memory per step over each axis](figures/{GROWTH})\n")
    (args.out / "report.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
