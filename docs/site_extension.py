"""What the site has of its own: equations without a network, tables of settings and of presets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from docutils import nodes
from hydra import compose, initialize_config_dir
from latex2mathml.converter import convert
from omegaconf import OmegaConf
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.writers.html5 import HTML5Translator

from masa.config import conf_dir


def mathml(latex: str, display: str) -> str:
    """MathML, which browsers show without a script.

    Raises:
        SphinxError: the converter does not know a command.
    """
    converted = convert(latex, display=display)
    unknown = re.findall(r"<mi>(\\\w*|&)</mi>", converted)
    if unknown:
        raise SphinxError(f"no MathML for {', '.join(unknown)} in the equation {latex}")
    return converted


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """An equation within a line."""
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_math_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """An equation by itself."""
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def attribute_docs(cls: type) -> dict[str, str]:
    """The text under each attribute of a class and its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        found = ModuleAnalyzer.for_module(base.__module__).find_attr_docs()
        docs |= {
            name: " ".join(" ".join(lines).split())
            for (owner, name), lines in found.items()
            if owner == base.__name__
        }
    return docs


def cell(text: str) -> str:
    """Text of a table's cell."""
    return text.replace("|", "\\|")


def value_of(field: dataclasses.Field[Any]) -> str:
    """A field's default as it is written on the command line."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return ""
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    return f"`{value}`"


def settings_table(cls: type, prefix: str) -> str:
    """Markdown: a table of a dataclass, then one under a heading for each dataclass in it."""
    docs, groups = attribute_docs(cls), dict[str, type]()
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(cls):
        default = field.default_factory
        if isinstance(default, type) and dataclasses.is_dataclass(default):
            groups[field.name] = default
        else:
            key = f"`{prefix}{field.name}`"
            rows.append(f"| {key} | {cell(value_of(field))} | {cell(docs.get(field.name, ''))} |")
    text = "\n".join(rows) + "\n"
    for name, inner in groups.items():
        title = (inner.__doc__ or "").partition("\n")[0]
        text += f"\n### {prefix}{name}\n\n{title}\n\n{settings_table(inner, f'{prefix}{name}.')}"
    return text


class Settings(SphinxDirective):
    """`{settings} module.Dataclass prefix.`: its fields with defaults and docstrings."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """See the class."""
        module, _, name = self.arguments[0].rpartition(".")
        prefix = self.arguments[1] if len(self.arguments) > 1 else ""
        table = settings_table(getattr(import_module(module), name), prefix)
        return self.parse_text_to_nodes(table, allow_section_headings=True)


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def preset(name: str) -> dict[str, Any]:
    """Settings of `algorithm=name`, by dotted key."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", [f"algorithm={name}"])
    return dict(flat(OmegaConf.to_container(config.algorithm, resolve=True), "algorithm."))


class Preset(SphinxDirective):
    """`{preset} masa grpo`: the settings in which the first preset differs from the second."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """See the class."""
        own, other = (preset(name) for name in self.arguments)
        rows = ["| setting | `{}` | `{}` |".format(*self.arguments), "|---|---|---|"]
        for key in sorted(own.keys() | other.keys()):
            values = [plain.get(key, "–") for plain in (own, other)]
            if key != "algorithm.name" and values[0] != values[1]:
                rows.append(f"| `{key}` | `{values[0]}` | `{values[1]}` |")
        return self.parse_text_to_nodes("\n".join(rows) + "\n")


def foreign(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool:
    """Leave out what a class has from another library."""
    module = getattr(member, "__module__", None) or "masa"
    return skip or not module.startswith("masa")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    app.add_directive("settings", Settings)
    app.add_directive("preset", Preset)
    app.connect("autodoc-skip-member", foreign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
