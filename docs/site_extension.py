"""What the site has of its own: equations without a network, tables of settings and of presets."""

from __future__ import annotations

import dataclasses
import json
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

from masa.cli.config_store import conf_dir


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
    self.body.append(
        f'<div style="margin: 1.2em 0; overflow-x: auto">{mathml(node.astext(), "block")}</div>\n'
    )
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


def default_of(field: dataclasses.Field[Any]) -> Any:
    """A field's default, MISSING where it has none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def written(value: Any) -> str:
    """A value as it is written on the command line."""
    return f"`{json.dumps(value)}`" if value is None or isinstance(value, bool) else f"`{value}`"


def settings_list(cls: type, prefix: str) -> Iterator[str]:
    """Markdown: each setting of a dataclass with its default and docstring; those of a dataclass
    in it come last."""
    docs, inner = attribute_docs(cls), list[str]()
    for field in dataclasses.fields(cls):
        key, default = f"{prefix}{field.name}", default_of(field)
        if key in ("algorithm.gate.settings", "algorithm.cutoff.settings"):
            continue  # they stand beside the others, see the plug-ins' own lists
        if dataclasses.is_dataclass(default):
            inner += settings_list(type(default), f"{key}.")
            continue
        entries = dict(flat(default, f"{key}.")) if isinstance(default, dict) else {}
        meaning = docs.get(field.name, "")
        if default is not dataclasses.MISSING and not meaning:
            raise SphinxError(f"{key} has no docstring in {cls.__module__}.{cls.__qualname__}")
        if default is dataclasses.MISSING or entries:
            yield f"`{key}`\n: {meaning}\n" if meaning else ""
        else:
            yield f"`{key}` = {written(default)}\n: {meaning}\n"
        yield from (f"`{name}` = {written(value)}\n: –\n" for name, value in entries.items())
    yield from inner


class Settings(SphinxDirective):
    """`{settings} module.Dataclass prefix.`: its fields with defaults and docstrings."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """See the class."""
        module, _, name = self.arguments[0].rpartition(".")
        prefix = self.arguments[1] if len(self.arguments) > 1 else ""
        settings = settings_list(getattr(import_module(module), name), prefix)
        return self.parse_text_to_nodes("\n".join(settings))


def flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def preset(name: str) -> dict[str, Any]:
    """Settings of `algorithm=name`, by dotted key, without those of a task or a model."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", [f"algorithm={name}", "task=hub", "model=hub"])
    return dict(flat(OmegaConf.to_container(config.algorithm, resolve=True), "algorithm."))


class Preset(SphinxDirective):
    """`{preset} masa grpo`: the settings that its lines name, as `SYMBOL KEY`, and those in which
    the first preset differs from the second."""

    required_arguments = 1
    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """See the class."""
        presets = {name: preset(name) for name in self.arguments}
        symbols = {
            key: symbol for symbol, key in (line.rpartition(" ")[::2] for line in self.content)
        }
        own, other = presets[self.arguments[0]], presets[self.arguments[-1]]
        differing = [key for key in sorted({*own, *other}) if own.get(key) != other.get(key)]
        keys = dict.fromkeys([*symbols, *differing])
        keys.pop("algorithm.name", None)
        rows = [
            f"| {' | '.join(['setting', 'symbol', *(f'`{name}`' for name in presets)])} |",
            "|---" * (2 + len(presets)) + "|",
        ]
        for key in keys:
            values = [written(plain[key]) if key in plain else "–" for plain in presets.values()]
            rows.append(f"| `{key}` | {' | '.join([symbols.get(key, ''), *values])} |")
            if key not in own and key not in other:
                raise SphinxError(f"{self.arguments[0]} has no setting {key}")
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
