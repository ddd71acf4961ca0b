"""Settings of the documentation site: `make docs`. The sources are all pages of the repository."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import masa  # noqa: E402

project = "MASA"
author = copyright = "The MASA contributors"
version = release = masa.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "site_extension",
]
root_doc = "docs/index"
include_patterns = [
    *("docs/**.md", "docs/**.rst", "experiments/*/README.md"),
    *("CHANGELOG.md", "CONTRIBUTING.md"),
]
exclude_patterns = [".*", "build", "runs", "outputs", "experiments/stored/*-seed*"]

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # reports of the experiments begin below the second level

apidoc_modules = [{"path": "../masa", "destination": "docs/api", "module_first": True}]
autodoc_default_options = {"ignore-module-all": True}
add_module_names = False
autodoc_member_order = "bysource"
autodoc_mock_imports = ["vllm"]
napoleon_numpy_docstring = False
default_role = "code"
# what the standard library and other packages document is not here to be linked
nitpick_ignore_regex = [(r"py:.*", r"(?!masa\.).*"), (r"py:class", r"masa\..*\.([A-Z]|_\w+)")]

html_theme = "furo"
html_title = f"MASA {version}"
html_math_renderer = "mathml"
html_extra_path = ["root"]  # sends the root of the site to its first page
html_show_sourcelink = html_copy_source = html_show_sphinx = False
