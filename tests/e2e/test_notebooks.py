"""The notebooks run on the stored sample, and are stored without output."""

import re
import shutil
import sys
import warnings
from pathlib import Path

import nbformat
import processes
import pytest
import runs

from masa.analysis import load_sweep
from masa.analysis.tables import headline

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "experiments").rglob("*.ipynb"))


def test_there_are_some():
    names = {path.parent.name for path in NOTEBOOKS}
    assert {"meta_alignment", "efficiency", "ablations", "inference"} <= names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_stored_without_output(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def test_the_sample_is_small():
    stored = ROOT / "experiments" / "stored"
    files = [path for path in stored.rglob("*") if path.is_file()]
    for method in ("grpo", "masa", "masa_efficient"):
        for seed in (0, 1):
            run = stored / f"{method}-seed{seed}"
            assert {run / "config.yaml", run / "metrics.csv", run / "timings.csv"} <= set(files)
            assert len(list((run / "rollouts").glob("*.parquet"))) == 7
    assert sum(path.stat().st_size for path in files) < 1_000_000


def test_the_sample_loads_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = load_sweep(ROOT / "experiments" / "stored")
        assert [group.seeds for group in groups] == [[0, 1]] * 3
        for group in groups:
            assert all(len(run.validations) == 3 for run in group.runs)
        assert len(headline([group.runs[0] for group in groups])) == 3


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_every_cell_shows_something(path, monkeypatch, cache, tmp_path):
    from nbconvert.preprocessors import ExecutePreprocessor

    if path.parent.name == "inference":
        monkeypatch.setenv("MODEL", str(runs.from_first_weights(tmp_path / "run", cache)))
        monkeypatch.setenv("ENGINE", "hf")
        monkeypatch.setenv("MASA_CACHE", str(cache))
    monkeypatch.delenv("RUNS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(notebook, where)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [o for o in cell.outputs if o.output_type in ("execute_result", "display_data")]
            assert shown, cell.source
            for output in shown:
                rendered = {"text/html", "text/markdown", "image/png"} & set(output["data"])
                assert rendered or "the table says why" in output["data"]["text/plain"], cell.source


@pytest.mark.slow
def test_a_page_shows_tables_and_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RUNS", str(ROOT / "experiments" / "stored"))
    folder = tmp_path / "efficiency"
    folder.mkdir()
    shutil.copy(ROOT / "experiments" / "efficiency" / "analysis.ipynb", folder)
    page = folder / "README.md"
    page.write_text("before\n<!-- report -->\nold\n<!-- /report -->\nafter\n")
    processes.run([sys.executable, ROOT / "scripts" / "render.py", folder / "analysis.ipynb"])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "<div>" not in text and "import" not in text
    assert "| masa_efficient |" in text
    for name in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (folder / name).stat().st_size > 0
    assert "](figures/" in text
