"""`masa-export RUN out=DIR`: a run's policy as a Hugging Face folder, and on the hub."""

from __future__ import annotations

import csv
import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa.cli import app
from masa.cli.arguments import expanded, make_directory
from masa.errors import ConfigError
from masa.evaluation.eval_config import is_run
from masa.plugins import import_from_working_directory, load_target, refusing
from masa.run_config import run_config
from masa.tracking.checkpoints import candidates, find_checkpoint, list_checkpoints
from masa.training.models import HubModel

SETTINGS = ("out", "ckpt", "dtype", "push", "private")
USAGE = (
    "masa-export RUN out=DIR [ckpt=last|best|PATH] [dtype=float32|bfloat16] "
    "[push=ORG/NAME [private=true|false]]"
)
_PREFIX = "policy."


class PushError(RuntimeError):
    """The hub did not take an export; the message is one line that says how to repeat it."""


def export(run: Path, out: Path, ckpt: str = "last", dtype: str | None = None) -> None:
    """Write weights, tokenizer, generation config and model card of a run into `out`.

    A LoRA run is written merged, with the adapter by itself in `out/adapter`.

    Args:
        run: run directory.
        out: folder to write, missing or empty. It is complete or absent.
        ckpt: last, best, or a checkpoint's path (a file, or the folder of a sharded one).
        dtype: of the written weights; None keeps the dtype of training.

    Raises:
        ConfigError: there is no such run, checkpoint or model, or `out` is not empty.
    """
    out = Path(os.path.abspath(out))
    if not os.path.isfile(run / "config.yaml"):
        raise ConfigError(f"{run} is no run directory: it has no config.yaml")
    if (out / "config.json").exists():
        raise ConfigError(f"{out} holds a model already: choose another out")
    if dtype not in (None, "float32", "bfloat16"):
        raise ConfigError(f"dtype is {dtype!r}, it must be float32 or bfloat16")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds files already: choose another out")
    candidates(expanded(ckpt), run)
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    make_directory(partial, "out")
    partial.rmdir()
    import torch
    from hydra.utils import instantiate
    from transformers.utils import logging

    from masa.tasks.build import build_task
    from masa.tasks.chat import ending_tokens
    from masa.tracking.files import atomic_replace
    from masa.tracking.manifest import read_manifest
    from masa.training.checkpoint import require_same_model, shapes
    from masa.training.loading import generation_eos, load_policy, load_tokenizer
    from masa.training.lora import has_adapter, merge

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    checkpoint = find_checkpoint(expanded(ckpt), run)
    assert checkpoint is not None
    cfg = run_config(run)
    with refusing():
        model, task = instantiate(cfg.model), build_task(cfg.task)
    model.check(task)
    path = model.resolve(task)
    # the checkpoint of an adapter has the adapter alone
    policy = model.load(path, weights=OmegaConf.select(cfg, "model.lora.rank") is not None)
    manifest = read_manifest(checkpoint)
    if manifest is not None and manifest.parameters != shapes(policy):
        # with the weights transformers unties what the files have twice
        policy = model.load(path)
    require_same_model(checkpoint, policy)
    load_weights(policy, checkpoint)
    tokenizer = load_tokenizer(path, model.trust_remote_code)
    try:
        if has_adapter(policy):
            policy.save_pretrained(partial / "adapter")
            weights = merge(policy)
            policy = load_policy(path, policy.dtype, None, model.trust_remote_code, weights=False)
            policy.load_state_dict(weights, strict=False, assign=True)
        if dtype is not None:
            policy.to(getattr(torch, dtype))
        ends = ending_tokens(tokenizer, generation_eos(path))
        policy.generation_config.eos_token_id = list(ends)
        policy.generation_config.pad_token_id = (
            ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        policy.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        card = model_card(run, checkpoint, cfg, base_card(path))
        (partial / "README.md").write_text(card, encoding="utf-8")
        if out.exists():
            out.rmdir()
        atomic_replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_push(repo: str, private: str) -> None:
    """Raise ConfigError where an export could not be pushed, as far as this machine knows."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if private not in ("true", "false"):
        raise ConfigError(f"private is {private!r}, it must be true or false")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"push={repo}: {' '.join(str(error).split())}") from error
    if "/" not in repo:
        raise ConfigError(f"push={repo}: name the user or organization as well, ORG/NAME")
    if get_token() is None:
        raise ConfigError(
            f"push={repo}: there is no token of the hub: log in with hf auth login, or set HF_TOKEN"
        )


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload an export to the hub, as one more commit where the repository is there already.

    Args:
        folder: what `export` wrote.
        repo: ORG/NAME.
        private: of a new repository; one that is there stays as it is.

    Returns:
        URL of the repository.

    Raises:
        PushError: the hub refused it or could not be reached.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        url = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo, folder_path=folder, commit_message=f"masa-export {folder.name}"
        )
    # the client raises errors of several libraries
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        again = ["hf", "upload", repo, str(folder), ".", "--private" if private else "--no-private"]
        raise PushError(
            f"push={repo} failed ({reason[:300]}); {folder} is whole: repeat with "
            f"{shlex.join(again)}"
        ) from error
    return str(url)


def check_model_name(model: DictConfig) -> None:
    """Raise ConfigError where `model.name` is neither a run with a checkpoint nor a model.

    It imports nothing slow.

    Args:
        model: the group's settings.
    """
    from hydra.utils import instantiate

    kind = load_target("model", model)
    if "name" in model and is_run(str(model.name)):
        run = Path(model.name).expanduser()
        if not list_checkpoints(run / "checkpoints"):
            raise ConfigError(f"{run} is a run without a checkpoint: there is no model in it yet")
    elif isinstance(kind, type) and issubclass(kind, HubModel):
        instantiate(model).check_name()


def model_of_run(run: Path) -> Path:
    """The last checkpoint of a run as a Hugging Face folder, made in `RUN/model` where it is not
    there.

    Of several processes that call at once, one makes it and the others wait.
    """
    from filelock import FileLock

    from masa.tracking.manifest import read_manifest

    checkpoint = find_checkpoint("last", run, by_each_rank=True)
    assert checkpoint is not None
    manifest = read_manifest(checkpoint)
    digests = "".join(sorted(manifest.sha256.values())) if manifest else ""
    # a run that was made anew has other weights under the same name
    name = f"{checkpoint.stem}-{hashlib.sha256(digests.encode()).hexdigest()[:8]}"
    folder = run / "model" / name
    if folder.exists():
        return folder
    make_directory(folder.parent, "the run's directory")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            export(run, folder, str(checkpoint))
    return folder


def load_weights(policy: Any, checkpoint: Path) -> None:
    """Read a checkpoint's weights, from one file or sharded, into a policy, in one process.

    They are in memory once: those of a file are mapped, those of shards read to where they belong.
    """
    import torch
    import torch.distributed.checkpoint as dcp

    from masa.training.loading import allocate

    if checkpoint.is_dir():
        allocate(policy)
        weights = {_PREFIX + name: tensor for name, tensor in policy.state_dict().items()}
        dcp.load({"state_dict": weights}, checkpoint_id=checkpoint, no_dist=True)
    else:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        weights = saved["state_dict"]
    parameters = {name for name, _ in policy.named_parameters(remove_duplicate=False)}
    # tied weights are two tensors in one place there, and one parameter here
    made: dict[Any, torch.nn.Parameter] = {}
    state: dict[str, Any] = {}
    for name, tensor in weights.items():
        name = name.removeprefix(_PREFIX)
        state[name] = tensor
        if name in parameters:
            place = (tensor.data_ptr(), tensor.shape)
            state[name] = made.setdefault(place, torch.nn.Parameter(tensor, requires_grad=False))
    try:
        policy.load_state_dict(state, assign=True)
    # another shape or another name
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{checkpoint} is of another model: {reason[:200]}") from error


def base_card(path: Path) -> Mapping[str, Any]:
    """Front matter of the initial policy's model card, where there is one."""
    from huggingface_hub import ModelCard

    card = path / "README.md"
    return ModelCard.load(card).data.to_dict() if card.is_file() else {}


def model_card(run: Path, checkpoint: Path, cfg: DictConfig, base: Mapping[str, Any]) -> str:
    """README.md of an exported model."""
    from huggingface_hub import ModelCardData

    source = cfg.model.get("name")
    unknown = "unknown: fill in before publishing"
    if "sft" in cfg:
        phase, method = "sft", f"fine-tuning on demonstrations (masa-sft, {cfg.sft.source})"
    else:
        phase, method = "reinforcement-learning", f"{cfg.algorithm.name} (masa, arXiv 2510.03259)"
    data = ModelCardData(
        license=base.get("license"),
        license_name=base.get("license_name"),
        license_link=base.get("license_link"),
        # on the hub it must be a repository
        base_model=None if source is None or Path(source).exists() else source,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(dict.fromkeys(["masa", phase, str(cfg.algorithm.name)])),
    )
    facts = {
        "Run": run.resolve().name,
        "Method": method,
        "Seed": cfg.seed,
        "Checkpoint": checkpoint.stem,
        "Initial policy": source or cfg.model._target_.rpartition(".")[2],
        "Training data": ", ".join(f"{key}: {value}" for key, value in _flat(cfg.task).items()),
        "Licence of the data": cfg.task.get("license") or unknown,
        "Licence of the weights": base.get("license") or unknown,
    }
    lines = [f"---\n{data.to_yaml()}\n---\n", f"# {cfg.name}, {cfg.algorithm.name}\n"]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["\n## Held-out metrics\n", "| metric | value |", "|---|---|"]
    # a checkpoint may be another run's
    metrics = checkpoint.resolve().parents[1] / "metrics.csv"
    measured = last_validation(metrics, int(checkpoint.stem.rpartition("-")[2]))
    lines += [f"| {name} | {value} |" for name, value in measured.items()]
    return "\n".join(lines) + "\n"


def last_validation(metrics: Path, step: int) -> dict[str, str]:
    """Rollout number and metrics of the last validation up to a step; empty where there is none."""
    if not metrics.is_file():
        return {}
    with metrics.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/accuracy")]
    rows = [row for row in rows if int(row["step"]) <= step]
    return {
        name: value
        for name, value in (rows[-1] if rows else {}).items()
        if value and (name == "step" or "val/" in name)
    }


def _flat(task: DictConfig) -> dict[str, Any]:
    """The settings of a task, without nesting."""
    flat: dict[str, Any] = {}
    for name, value in task.items():
        if isinstance(value, DictConfig):
            flat = _flat(value) | flat
        elif name == "_target_":
            flat["task"] = str(value).rpartition(".")[2]
        else:
            flat[str(name)] = value
    return flat


def main() -> None:
    """Console script."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"usage: {USAGE}")
        return
    import_from_working_directory()
    runs: list[str] = []
    settings: dict[str, str] = {}
    for argument in sys.argv[1:]:
        name, equals, value = argument.partition("=")
        if equals and name in SETTINGS and (runs or not os.path.isdir(argument)):
            settings[name] = value
        elif equals and name.isidentifier() and not os.path.exists(argument):
            app.fail("masa-export", f"there is no setting {name}, nor a run {argument}; {USAGE}")
        else:
            runs.append(argument)
    if len(runs) != 1 or not settings.get("out"):
        app.fail("masa-export", f"usage: {USAGE}")
    run, out = Path(expanded(runs[0])), Path(expanded(settings["out"]))
    repo, private = settings.get("push"), settings.get("private", "true")
    try:
        if repo is not None:
            check_push(repo, private)
        elif "private" in settings:
            raise ConfigError("private is a setting of push=ORG/NAME")
        export(run, out, settings.get("ckpt", "last"), settings.get("dtype"))
    except ConfigError as error:
        app.fail("masa-export", str(error))
    except OSError as error:
        reason = error.strerror or error
        message = f"{out} could not be written ({reason}): free space there, or choose another out"
        app.fail("masa-export", message, status=1)
    print(out)
    if repo is not None:
        try:
            print(push(out, repo, private == "true"))
        except PushError as error:
            app.fail("masa-export", str(error), status=1)


if __name__ == "__main__":
    main()
