"""`masa-browse RUN`: one HTML file to page through a run's rollouts, which opens offline."""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masa.rollout_columns import FILES

MEGABYTES = 20
COLUMNS = (
    *("step", "split", "prompt_id", "level", "kind", "problem", "answer", "text", "tokens"),
    *("reward", "correct", "finish_reason", "predicted_pass_rate", "predicted_length"),
    *("parse_error", "would_skip", "audited", "skipped"),
)
Key = tuple[str, int, str]
"""split, step and prompt."""


class BrowseError(Exception):
    """A run that cannot be shown; the message is one line."""


def write_browser(run: Path, out: Path, megabytes: float = MEGABYTES, seed: int = 0) -> str:
    """Write the page.

    Args:
        run: run directory.
        out: the file.
        megabytes: texts of about so much; of a run with more a random sample of the prompts.
        seed: of the sample.

    Returns:
        One line on what the page has.

    Raises:
        BrowseError: there are no rollouts, or they cannot be read.
    """
    files = sorted((run / "rollouts").glob(FILES))
    if not files:
        raise BrowseError(f"{run} has no rollouts: name the directory of a run of masa-train")
    chosen, total = _sample(files, megabytes * 1e6, seed)
    groups = [group for file in files for group in _groups(file, chosen)]
    about = f"{total:,} prompts, each with its predictions and solutions"
    if len(chosen) < total:
        about = (
            f"a random sample of {len(chosen):,} of {total:,} prompts (about {megabytes:g} MB of "
            "text; masa-browse --size shows more), each with its predictions and solutions"
        )
    folder = Path(__file__).parent
    script = (folder / "browse.js").read_text(encoding="utf-8")
    data = json.dumps({"about": f"{run}: {about}", "groups": groups}, ensure_ascii=False)
    page = Template((folder / "browse.html").read_text(encoding="utf-8")).substitute(
        TITLE=html.escape(f"Rollouts of {run.resolve().name}"),
        HASH=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        # no text of a model can end the block that it stands in
        DATA=data.replace("<", "\\u003c"),
        SCRIPT=script,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8", errors="replace")
    return about


def _sample(files: Sequence[Path], size: float, seed: int) -> tuple[set[Key], int]:
    """Prompts whose texts have about `size` bytes together, and the number of all."""
    sizes: dict[Key, int] = {}
    for file in files:
        table = _read(file, ["split", "step", "prompt_id", "text"])
        lengths = pc.fill_null(pc.binary_length(table["text"]), 0).to_pylist()
        keys = zip(
            *(table[name].to_pylist() for name in ("split", "step", "prompt_id")), strict=True
        )
        for key, length in zip(keys, lengths, strict=True):
            sizes[key] = sizes.get(key, 0) + length + 200
    names = list(sizes)
    chosen: set[Key] = set()
    for i in np.random.default_rng(seed).permutation(len(names)):
        size -= sizes[names[i]]
        if size < 0 and chosen:
            break
        chosen.add(names[i])
    return chosen, len(names)


def _read(file: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:160]
        raise BrowseError(
            f"{file} cannot be read ({reason}): move it out of the folder to see the others"
        ) from error


def _groups(file: Path, chosen: set[Key]) -> Iterator[dict[str, Any]]:
    rows: dict[Key, list[dict[str, Any]]] = {}
    for row in _read(file, COLUMNS).to_pylist():
        key = (row["split"], row["step"], row["prompt_id"])
        if key in chosen:
            rows.setdefault(key, []).append(row)
    for (split, step, name), of_prompt in rows.items():
        meta = [row for row in of_prompt if row["kind"] == "meta"]
        solutions = [row for row in of_prompt if row["kind"] == "solution"]
        rates = [r["predicted_pass_rate"] for r in meta if r["predicted_pass_rate"] is not None]
        lengths = [r["predicted_length"] for r in meta if r["predicted_length"] is not None]
        right = sum(bool(row["correct"]) for row in solutions)
        predicted = fmean(rates) if rates else None
        known = bool(solutions) and predicted is not None
        first = of_prompt[0]
        yield {
            "step": step,
            "split": split,
            "id": name,
            "level": first["level"],
            "problem": first["problem"] or "",
            "answer": first["answer"] or "",
            "skipped": bool(first["skipped"]),
            "would_skip": bool(first["would_skip"]),
            "audited": bool(first["audited"]),
            "right": right,
            "predicted": predicted,
            "predicted_length": fmean(lengths) if lengths else None,
            "error": abs((predicted or 0) - right / len(solutions)) if known else None,
            "length": fmean(row["tokens"] for row in solutions) if solutions else None,
            "longest": max((row["tokens"] for row in solutions), default=0),
            "meta": [_completion(row) | {"error": row["parse_error"]} for row in meta],
            "solutions": [
                _completion(row)
                | {"correct": bool(row["correct"]), "finish": row["finish_reason"] or ""}
                for row in solutions
            ],
        }


def _completion(row: dict[str, Any]) -> dict[str, Any]:
    reward = row["reward"]
    known = reward is not None and reward == reward
    return {
        "text": row["text"] or "",
        "tokens": row["tokens"],
        "reward": reward if known else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `masa-browse`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="masa-browse",
        description="One HTML file to page through a run's rollouts, which opens offline.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="the page (default: RUN_DIR/browse.html)")  # fmt: skip
    parser.add_argument("--size", type=float, default=MEGABYTES, metavar="MB",
                        help="texts of about so many megabytes; of a larger run a random sample "
                        "(default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    args = parser.parse_args(argv)
    if not args.size > 0:
        parser.error(f"--size {args.size:g} must be > 0")
    if args.seed < 0:
        parser.error(f"--seed {args.seed} must be >= 0")
    out = args.out or args.run / "browse.html"
    try:
        about = write_browser(args.run, out, args.size, args.seed)
    except (BrowseError, OSError) as error:
        print(f"masa-browse: error: {error}", file=sys.stderr)
        return 2
    print(f"{about}\n{out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
