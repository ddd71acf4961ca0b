"""First weights of a small model: random ones, or those that `masa-sft` makes.

Those of the default settings come with the package; others are made once per machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.core.override_parser.types import Quote, QuotedString
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from masa.engine.hf import faithful_attention
from masa.errors import TrainingError
from masa.tracking.files import atomic_replace
from masa.training.child_signals import passing_on_signals

SHIPPED = Path(__file__).parent / "first_weights"
"""Folder of the models that come with the package, named as in the cache."""
DIGESTED = 300
"""Demonstrations of which the text is part of the cache's key."""
CONSOLE = "console.txt"
_NOT_IN_KEY = re.compile(r"task\..*|sft\.table|trainer\.(val_\w+|log_every|checkpoint_every)")
"""Settings of `masa-sft` that change no weight, and the task's, for its demonstrations count."""
_RANK_VARIABLES = re.compile(
    r"(LOCAL_|GROUP_|ROLE_|NODE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)"
    r"|(TORCHELASTIC|SLURM|PL|PMI|PMIX)_.*|OMPI_(?!MCA_).*"
)
"""Variables by which a process takes itself for a rank."""


def untrained(architecture: Mapping[str, Any], tokenizer: Any, seed: int, cache_dir: Path) -> Path:
    """Folder of a model with random weights in float32, with its tokenizer.

    Args:
        architecture: `model_type` and shape of a transformers config; vocabulary size and special
            tokens are the tokenizer's.
        tokenizer: of the task.
        seed: of the weights.
        cache_dir: folder of the models.
    """
    words = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    facts = {"architecture": dict(architecture), "words": words, "seed": seed}

    def build(folder: Path) -> None:
        config = AutoConfig.for_model(**architecture)
        config.vocab_size = len(tokenizer)
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
        config.bos_token_id = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation=faithful_attention(config)
            )
        # sampling must follow the model's own distribution, so only the ids are set
        model.generation_config = GenerationConfig(
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
        )
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached(cache_dir / f"untrained-{_digest(facts)}", build)


def warm_started(
    architecture: Mapping[str, Any],
    task: Any,
    settings: Mapping[str, Any],
    cache_dir: Path,
) -> Path:
    """Folder of a model that `masa-sft` made, now where neither the package nor `cache_dir` has it.

    The folder's name covers the demonstrations, the settings and the architecture.

    Args:
        architecture: as for `untrained`.
        task: the task, which has demonstrations.
        settings: of `masa-sft`, nested as there; `task` has those of the task.
        cache_dir: folder of the models.

    Raises:
        TrainingError: `masa-sft` failed.
    """
    model = {"architecture": architecture, "warmstart": None, "cache_dir": str(cache_dir)}

    def build(folder: Path) -> None:
        run = folder / "run"
        overrides = [*_overrides(settings, "++"), *_overrides({"model": model}, "++")]
        _masa_sft(
            [
                *overrides,
                "sft.table=false",
                "name='warm start'",
                f"hydra.run.dir={_quoted(str(run))}",
            ],
            folder,
        )
        (weights,) = (path for path in (run / "model").iterdir() if path.is_dir())
        for path in weights.iterdir():
            path.rename(folder / path.name)
        shutil.rmtree(run)

    name = f"warmstart-{fingerprint(architecture, task, settings)}"
    return SHIPPED / name if (SHIPPED / name).is_dir() else cached(cache_dir / name, build)


def fingerprint(architecture: Mapping[str, Any], task: Any, settings: Mapping[str, Any]) -> str:
    """Hash over what the weights depend on; arguments as of `warm_started`.

    Of the task that is what it demonstrates: its pools change nothing.
    """
    rng = random.Random(0)
    solutions = task.demonstrations(DIGESTED, settings.get("seed", 0)).solutions
    facts = {
        "architecture": dict(architecture),
        "settings": sorted(s for s in _overrides(settings, "") if not _NOT_IN_KEY.match(s)),
        "solutions": [[prompt.problem, text] for prompt, text in solutions],
        "predictions": [
            task.prediction(prompt, rng, mixed)
            for prompt, _ in solutions
            for mixed in ((False, True) if task.templates.meta_mixed else (False,))
        ],
        "templates": str(task.templates),
        "torch": torch.__version__.split(".")[0],
    }
    return _digest(facts)


def cached(path: Path, build: Callable[[Path], None]) -> Path:
    """A folder that is complete or absent, built now where it is absent.

    Of several processes that call at once, one builds and the others wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.is_dir():
            # no other process builds under the lock, so older leftovers are of killed builds
            for leftover in path.parent.glob(f"{path.name}.building-*"):
                shutil.rmtree(leftover)
            building = Path(tempfile.mkdtemp(prefix=f"{path.name}.building-", dir=path.parent))
            try:
                build(building)
                building.chmod(0o755)
                atomic_replace(building, path)
            finally:
                shutil.rmtree(building, ignore_errors=True)
    return path


def own_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process that is no rank of this run."""
    kept = {n: v for n, v in environment.items() if not _RANK_VARIABLES.fullmatch(n)}
    if "OMPI_COMM_WORLD_SIZE" in environment:
        # mpirun hands its settings on as variables; elsewhere they are the user's, for any MPI_Init
        kept = {n: v for n, v in kept.items() if not n.startswith("OMPI_MCA_")}
    return kept


def _masa_sft(overrides: list[str], folder: Path) -> None:
    """Run `masa-sft` by itself, whichever rank this is; its progress is shown."""
    console = folder / CONSOLE
    with console.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "masa.sft", *overrides],
            env=own_environment(os.environ),
            stdout=output,
        )
        try:
            with passing_on_signals(process) as received:
                status = process.wait()
        finally:
            process.kill()
    if received:
        raise SystemExit(128 + received[0])
    if status != 0:
        raise TrainingError(
            "masa-sft could not make the model's first weights; what it says stands above"
        )
    console.unlink()


def _overrides(settings: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{prefix}{name}.")
        else:
            text = _quoted(value) if isinstance(value, str) else json.dumps(value)
            yield f"{prefix}{name}={text}"


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def _digest(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
