"""The file of masa-browse, without a browser: what it holds, leaves out and refuses."""

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest
from synthetic_run import prompt_rows, simulated_run, write_run

from masa.browse import main


def data_of(page):
    block = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(block)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulated_run(tmp_path_factory.mktemp("browse") / "run", steps=6, validate_every=3)


def test_all_prompts_of_a_small_run(run, capsys):
    assert main([str(run)]) == 0
    assert str(run / "browse.html") in capsys.readouterr().out
    groups = data_of((run / "browse.html").read_text())["groups"]
    assert len(groups) == 6 * 20 + 3 * 120
    assert {group["split"] for group in groups} == {"train", "val"}
    one = next(group for group in groups if group["solutions"])
    assert one["right"] == sum(solution["correct"] for solution in one["solutions"])
    assert one["error"] == pytest.approx(
        abs(one["predicted"] - one["right"] / len(one["solutions"]))
    )


def test_of_a_large_run_a_sample_that_is_said(run, tmp_path, capsys):
    pages = []
    for seed in ("0", "0", "1"):
        assert (
            main([str(run), "--out", str(tmp_path / "p.html"), "--size", ".05", "--seed", seed])
            == 0
        )
        pages.append(data_of((tmp_path / "p.html").read_text()))
    assert pages[0] == pages[1] != pages[2]
    groups = pages[0]["groups"]
    assert 5 < len(groups) < 400
    assert f"a random sample of {len(groups)} of 480 prompts" in pages[0]["about"]
    assert "a random sample" in capsys.readouterr().out


def test_no_text_ends_its_block(tmp_path):
    rows = prompt_rows("train", 1, "a", (True,))
    attack = "</script><script>alert(1)</script><!--"
    rows = [row | {"text": attack, "problem": attack} for row in rows]
    main([str(write_run(tmp_path / "run", rows))])
    page = (tmp_path / "run" / "browse.html").read_text()
    assert "alert(1)</script>" not in page and page.count("<script") == 2
    assert data_of(page)["groups"][0]["solutions"][0]["text"] == attack


@pytest.mark.parametrize("arguments, status, problem", [
    (["nowhere"], 2, "masa-browse: error: nowhere has no rollouts"),
    (["nowhere", "--size", "0"], 2, "--size 0 must be > 0"),
    (["nowhere", "--seed", "-1"], 2, "--seed -1 must be >= 0"),
])  # fmt: skip
def test_what_cannot_be_shown_is_refused(arguments, status, problem, capsys):
    try:
        assert main(arguments) == status
    except SystemExit as error:
        assert error.code == status
    assert problem in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(run, tmp_path, capsys):
    damaged = shutil.copytree(run, tmp_path / "run") / "rollouts"
    (file, other, *_) = sorted(damaged.glob("*.parquet"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert main([str(damaged.parent)]) == 2
    file.write_bytes(whole)
    pq.write_table(pq.read_table(other).drop_columns("audited"), other)
    assert main([str(damaged.parent)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"{file} cannot be read" in first and f"{other} cannot be read" in second
