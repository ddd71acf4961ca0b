"""Rows of a benchmark: from the Hugging Face hub, an address or a local file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masa.config import ConfigError
from masa.evaluation.settings import BenchmarkConfig

Row = Mapping[str, Any]


def read_rows(config: BenchmarkConfig) -> list[dict[str, Any]]:
    """All rows of a benchmark.

    Raises:
        ConfigError: the file or data set cannot be read; says what to do.
    """
    where = f"benchmark.{config.name}"
    if config.path is not None:
        path = Path(config.path).expanduser()
        if not path.is_file():
            raise ConfigError(f"{where}.path={config.path}: there is no such file")
        rows = read_file(path, f"{where}.path")
    else:
        rows = _download(config)
    if not rows:
        raise ConfigError(f"{where}: {config.path or config.source} holds no rows")
    return rows


def read_file(path: Path, where: str) -> list[dict[str, Any]]:
    """Rows of a .json (a list), .jsonl, .parquet or .csv file; `where` names it in errors."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = pq.read_table(path).to_pylist()
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        elif path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            raise ConfigError(f"{where}={path}: it must be .json, .jsonl, .parquet or .csv")
    except (ValueError, OSError) as error:  # pyarrow's and json's errors are ValueErrors
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}={path} cannot be read: {_line(error)}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{where}={path}: it must hold a list of objects")
    return rows


def _download(config: BenchmarkConfig) -> list[dict[str, Any]]:
    import datasets
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    where = f"benchmark.{config.name}"
    datasets.disable_progress_bars()
    try:
        if "://" in config.source:
            path = datasets.DownloadManager().download(config.source)
            return json.loads(Path(path).read_text(encoding="utf-8"))  # type: ignore[no-any-return]
        if config.files:
            paths = [
                hf_hub_download(config.source, file, repo_type="dataset", revision=config.revision)
                for file in config.files
            ]
            return [row for path in paths for row in read_file(Path(path), where)]
        data = datasets.load_dataset(
            config.source, config.subset, split=config.split, revision=config.revision
        )
        return [dict(row) for row in data]
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, ConfigError):
            raise
        hint = f"or give a local file of the same columns: {where}.path=FILE"
        if config.gated or isinstance(error, GatedRepoError):
            raise ConfigError(
                f"{where}: {config.source} is gated: accept its terms at https://huggingface.co/"
                f"datasets/{config.source} and run `hf auth login`, {hint}"
            ) from error
        raise ConfigError(
            f"{where}: {config.source} cannot be loaded ({_line(error)}): look at the connection, "
            f"{hint}"
        ) from error


def value(row: Row, column: str, where: str) -> Any:
    """A row's value in `column`: `a.b` reaches into nested ones, `a | b` takes the first there.

    Raises:
        ConfigError: no such column.
    """
    for path in column.split(" | "):
        node: Any = row
        # a column's own name may have a dot in it
        for part in [path] if path in row else path.split("."):
            if isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, Mapping) and part in node:
                node = node[part]
            else:
                break
        else:
            return node
    raise ConfigError(f"{where}={column}: there is no such column, there are {', '.join(row)}")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
