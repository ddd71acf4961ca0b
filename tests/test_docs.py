"""The documentation site builds, and what the pages point to is there."""

import ast
import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import hydra
import processes
import pytest

from masa import config, evaluate
from masa.cli import sweep
from masa.cli.arguments import path_arguments
from masa.cli.config_store import conf_dir
from masa.evaluation import eval_config

ROOT = Path(__file__).parents[1]


def build(source, out, *options):
    """Everything that Sphinx has to complain about."""
    command = [
        sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", *options,
        "-c", ROOT / "docs", "-d", out / "doctrees", source, out / "html",
    ]  # fmt: skip
    done = processes.run(command, code=None, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert bool(done.returncode) == bool(done.stderr), done.stderr
    return done.stderr


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    assert build(ROOT, tmp_path) == ""
    index = (tmp_path / "html" / "docs" / "index.html").read_text()
    assert '<img alt="One step of MASA"' in index
    assert "<math" in (tmp_path / "html" / "docs" / "algorithms" / "masa.html").read_text()
    preset = (tmp_path / "html" / "docs" / "algorithms" / "cispo.html").read_text()
    assert "algorithm.eps_high" in preset and ">4.0<" in preset
    settings = (tmp_path / "html" / "docs" / "configuration.html").read_text()
    assert "algorithm.group_size" in settings and "solutions per prompt" in settings
    assert 'class="sig' in (tmp_path / "html" / "docs" / "api" / "masa.algorithm.html").read_text()


MISTAKES = (
    "[no such page](nowhere.md)", "[no such file](../nowhere.py)",
    "[no such heading](other.md#nowhere)", "[none here](#nowhere)", "![no picture](nowhere.svg)",
    "```{literalinclude} nowhere.py\n```", "{py:func}`masa.nowhere`",
)  # fmt: skip


def complaints(folder, *texts):
    """Of a site that has these texts on page0.md, page1.md, ..."""
    names = [f"page{i}" for i in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (folder / f"{name}.md").write_text(f"# Page\n\n[heading](other.md#heading)\n\n{text}\n")
    (folder / "other.md").write_text("# Other\n\n## Heading\n")
    tree = "\n".join(["other", *names])
    (folder / "index.md").write_text(f"# Index\n\n```{{toctree}}\n{tree}\n```\n")
    overrides = {
        "extensions": "myst_parser,site_extension",
        "root_doc": "index",
        "include_patterns": "*.md",
        "html_theme": "basic",
        "html_extra_path": "",
    }
    options = [part for key, value in overrides.items() for part in ("-D", f"{key}={value}")]
    return build(folder, folder / "out", *options)


def test_every_mistake_fails(tmp_path):
    lines = complaints(tmp_path, *MISTAKES, "No mistake.").splitlines()
    for i, mistake in enumerate(MISTAKES):
        assert any(f"page{i}.md" in line and "nowhere" in line for line in lines), mistake
    assert not any(f"page{len(MISTAKES)}.md" in line or "Extension error" in line for line in lines)


def test_a_formula_that_cannot_be_read_fails(tmp_path):
    message = complaints(tmp_path, r"$\nowhere x$")
    assert "nowhere" in message and "Extension error" not in message


def test_the_readme_copies_the_report():
    """Numbers of the table are those of the page that it names."""
    rows = re.findall(r"^\| (?:[a-z]|FLOPs).*\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    report = (ROOT / "experiments" / "claim" / "README.md").read_text()
    numbers = [number for row in rows for number in re.findall(r"-?[\d,.]+ \[[^]]+\]", row)]
    assert len(rows) == 5 and len(numbers) == 12
    assert [number for number in numbers if number not in report] == []


PROGRAMS = {
    "masa-train": "config",
    "masa.train": "config",
    "masa-sft": "sft",
    "masa-eval": "evaluate",
}
"""Programs and their primary config."""


def commands():
    """The command lines of the programs on the pages, but those with an ellipsis."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ["sbatch"]:
                    words = shlex.split(words[-1])  # what it wraps
                for i, word in enumerate(words):
                    if word in PROGRAMS and "..." not in words:
                        name = f"{page.stem}: {line[:60]}"
                        yield pytest.param(PROGRAMS[word], words[i + 1 :], id=name)


@pytest.mark.parametrize(("name", "given"), commands())
def test_the_commands_of_the_pages_are_accepted(name, given, monkeypatch):
    monkeypatch.chdir(ROOT / "docs" / "examples")
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    taken = evaluate.arguments(given) if name == "evaluate" else path_arguments(given)
    overrides = [argument for argument in taken if not argument.startswith("-")]
    loads = {"config": config.load, "evaluate": eval_config.load}
    load = loads.get(name, partial(config.load_as, config.SftConfig))
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for job in sweep.combinations(name, overrides):
            load(hydra.compose(name, [*job, "++output_dir=x"]))


def messages():
    """Texts of the package; \0 stands for a value."""
    for path in (ROOT / "masa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                yield "".join(p.value if isinstance(p, ast.Constant) else "\0" for p in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def is_message(quoted, known):
    """Whether the package says it; ... stands for anything."""
    parts = re.split(r"\.\.\.(?!\.)", quoted)
    pattern = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    return any(pattern.fullmatch(text) for text in known)


def test_the_messages_of_troubleshooting_are_those_of_the_package():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^`(.+)`\n:", page, re.MULTILINE)
    known = set(messages())
    assert len(quoted) > 50 and not is_message("no such message as ...", known)
    assert [text for text in quoted if not is_message(text, known)] == []
