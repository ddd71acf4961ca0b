"""Run a notebook and put its output into the page beside it: `RUNS=DIR render.py NOTEBOOK`.

Its text, tables and figures, without code, replace the part of README.md between
`<!-- report -->` and `<!-- /report -->`; figures go into `figures/`.
"""

import argparse
import os
import re
import shutil
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor

from masa.markdown import fill_place

TABLES = """
import pandas as pd

def rounded(cell):
    if not isinstance(cell, float):
        return cell
    return "–" if cell != cell else f"{cell:.3f}" if abs(cell) < 1 else f"{cell:,.0f}"

pd.DataFrame._repr_markdown_ = lambda table: table.map(rounded).to_markdown(
    index=table.index.name is not None, disable_numparse=True
)
"""


def main() -> None:
    """Render one notebook."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    args = parser.parse_args()
    folder = args.notebook.parent
    page = folder / "README.md"
    if "RUNS" not in os.environ:
        parser.error("RUNS is not set: the page would show the stored sample")
    if "<!-- report -->" not in page.read_text():
        parser.error(f"{page} has no place marked <!-- report -->")

    notebook = nbformat.read(args.notebook, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(TABLES))
    ExecutePreprocessor(timeout=3600).preprocess(notebook, {"metadata": {"path": str(folder)}})
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith("# ")]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("text/html", None)
    exporter = MarkdownExporter(exclude_input=True)
    text, resources = exporter.from_notebook_node(notebook)

    figures = folder / "figures"
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir()
    for name, data in resources["outputs"].items():
        (figures / name).write_bytes(data)
        text = text.replace(f"]({name})", f"](figures/{name})")
    text = re.sub(r"[ \t]+$", "", text, flags=re.M).replace("![png]", "![figure]")
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    fill_place(page, "report", text)


if __name__ == "__main__":
    main()
