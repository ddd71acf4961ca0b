"""A small share of the benchmark runs through, and its numbers add up."""

import json
import sys
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_parts_are_measured(tmp_path):
    out = tmp_path / "measured.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "paper_scale.py"), "--scale", "0.05"]
    processes.run([*command, "--json", out])
    measured = json.loads(out.read_text())
    assert set(measured) == {"seconds", "total", "cpu_seconds", "peak_gib", "tokens"}
    assert measured["seconds"].keys() == measured["cpu_seconds"].keys() == {
        "decoding", "rewards", "statistics", "packing", "parquet", "exchange"
    }  # fmt: skip
    assert min(measured["seconds"].values()) > 0
    assert measured["total"] == pytest.approx(sum(measured["seconds"].values()))
    # 8 prompts of 128 are the smallest number, one for each rank
    assert measured["tokens"] == pytest.approx(8 / 128 * 15e6, rel=0.1)
    assert 0.1 < measured["peak_gib"] < 3
