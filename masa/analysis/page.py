"""A report as a page: one Markdown text, as report.md and as a self-contained report.html."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt

from masa.markdown import markdown_table

WIDE_TABLE = 7  # with more columns than this a short table stands on its side
SHORT_TABLE = 5
_LONGEST_TEXT = 900
_FIGURE = re.compile(r"figures/[\w.-]+\.png")
_STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#222;--muted:#555;--line:#ddd;--soft:#f6f6f6}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);
max-width:62rem;margin:0 auto;padding:1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid var(--line)}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap;
overflow-wrap:normal}
td:first-child,th:first-child{position:sticky;left:0;background:var(--page)}
img{max-width:100%;height:auto}
em{color:var(--muted)}code,pre{font-size:.85rem}
pre{background:var(--soft);padding:.7rem;white-space:pre-wrap}
@media(prefers-color-scheme:dark){
:root{--page:#1b1b1b;--ink:#ddd;--muted:#aaa;--line:#444;--soft:#262626}
img{filter:invert(.894) hue-rotate(180deg)}}
@media(max-width:40rem){img{max-width:none;width:52rem}body{padding:.7rem}
td:first-child,th:first-child{white-space:normal;max-width:8rem}}
"""


def write_page(parts: Iterable[str], out: Path, name: str = "report") -> Path:
    """Write report.md and report.html into `out`, where the figures lie already.

    Args:
        parts: blocks of Markdown, empty ones are left out; the first is the title.
        out: made where missing.
        name: of the files.

    Returns:
        The path of the Markdown file.
    """
    text = "\n\n".join(part for part in parts if part) + "\n"
    path = out / f"{name}.md"
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".html").write_text(to_html(text, out), encoding="utf-8")
    return path


def to_html(markdown: str, folder: Path) -> str:
    """One page without external parts: figures of `folder` are inlined, other images and raw HTML
    are shown as text.

    Tables and, on narrow screens, figures scroll sideways by themselves.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or ():
            if child.type != "image":
                continue
            source = str(child.attrs["src"])
            if _FIGURE.fullmatch(source) and (folder / source).is_file():
                data = (folder / source).read_bytes()
                child.attrs["src"] = "data:image/png;base64," + base64.b64encode(data).decode()
            else:  # a model's text
                child.type, child.content = "text", f"![{child.content}]({source})"
    body = parser.renderer.render(tokens, parser.options, {})
    body = re.sub(r"<p>(<img [^>]*>)</p>", r'<div class="wide">\1</div>', body)
    title = markdown.lstrip("# ").partition("\n")[0]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{parser.renderInline(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body>\n{body}</body></html>\n"
    )


def section(heading: str, *parts: str) -> list[str]:
    """A heading and what is under it; nothing where there is nothing under it."""
    kept = [part for part in parts if part]
    return [f"## {heading}", *kept] if kept else []


def grid(table: pd.DataFrame, note: str = "", keys: int = 1) -> str:
    """A table with a note, nothing for an empty one.

    A wide and short one stands on its side, headed by its first `keys` columns.
    """
    if table.empty:
        return ""
    tall = len(table.columns) > WIDE_TABLE and len(table) <= SHORT_TABLE
    if tall and keys > 1:
        heads = table.iloc[:, :keys].astype(str).agg(", ".join, axis=1).rename(table.columns[0])
        table = pd.concat([heads, table.iloc[:, keys:]], axis=1)
    text = render(table, transpose=tall)
    return f"{text}\n\n{note}" if note else text


def cell(value: object) -> str:
    """One cell as text: counts with separators, floats to three digits, an en dash for NaN."""
    if isinstance(value, float | np.floating):
        number = float(value)
        if isnan(number):
            return "–"
        return f"{number:,.0f}" if 100 <= abs(number) < 1e9 else f"{number:.3g}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{int(value):,}"
    return " ".join(str(value).split()).replace("|", "\\|")


def render(table: pd.DataFrame, transpose: bool = False) -> str:
    """A table in Markdown.

    Args:
        transpose: one column per row of `table`, headed by its first column.
    """
    lines = [table.columns.tolist(), *table.itertuples(index=False)]
    text = [[cell(value) for value in line] for line in lines]
    return markdown_table(list(zip(*text, strict=True)) if transpose else text)


def fenced(text: str) -> str:
    """A code block that the text cannot close."""
    text = text.strip()
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]} [... {len(text) - _LONGEST_TEXT:,} more characters]"
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
