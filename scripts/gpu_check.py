"""Correctness and speed of training on this GPU: `python scripts/gpu_check.py --out DIR`.

Six parts, each in a separate process that saves every figure as it is measured:
correctness (small random models: engine=hf against the policy, padded against packed rows, gradient
against float64, a resumed run), shapes (Qwen3 shapes with random weights in bfloat16: speed and
memory), task (the built-in task for 60 rollouts), sharded (10 of them with FSDP2 on one device,
parameters in the CPU's memory, and a KL reference), sharded_bfloat16 (parameters on the device)
and, where `--model` names the folder of a pretrained model, pretrained
(`experiment=smollm2_cloned` for 5 rollouts). DIR gets a JSON file per part and table.md; a
missed limit or a failed part makes the exit status 1. vLLM is not needed. `--quick` tests the
script itself on any machine, with meaningless figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from masa.algorithm.losses import total_loss  # noqa: E402
from masa.cli.config_store import conf_dir  # noqa: E402
from masa.config import AlgorithmConfig  # noqa: E402
from masa.engine.hf import HfEngine  # noqa: E402
from masa.rollout.packing import build_update, padding_share  # noqa: E402
from masa.training.logprobs import head_logprobs, token_logprobs  # noqa: E402
from masa.types import Request, Sample, Update  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ENTRIES = 8192
"""Size of the matrices whose product is the reference of MFU."""
SHAPES = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "layers": 28, "heads": 16},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "layers": 28, "heads": 16},
    "4B": {"hidden_size": 2560, "intermediate_size": 9728, "layers": 36, "heads": 32},
}
"""Of the published Qwen3 models; all have 8 key-value heads of 128, a vocabulary of 151,936 and
tied embeddings."""


class Figures:
    """The figures of a part, saved with machine and command after each.

    Args:
        path: JSON file; its figures are kept.
        command: the command that measures them.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        before = json.loads(path.read_text()) if path.exists() else {}
        self.rows: list[dict[str, Any]] = before.get("rows", [])
        self.origin = {"machine": machine(), "command": command}

    def add(self, what: str, value: float, unit: str = "", limit: float | None = None) -> None:
        """One figure; with a limit it must be finite and at most that."""
        met = None if limit is None else math.isfinite(value) and value <= limit
        self.save({"what": what, "value": value, "unit": unit, "limit": limit, "kept": met})

    @contextmanager
    def attempt(self, what: str, may_lack_memory: bool = False) -> Iterator[None]:
        """A block of figures: a failure is recorded as a figure, and later blocks still run."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            lacking = may_lack_memory and isinstance(error, torch.OutOfMemoryError)
            reason = "out of memory" if lacking else f"{type(error).__name__}: {error}"
            self.save({"what": what, "error": reason[:300], "kept": None if lacking else False})
        finally:
            gc.collect()
            if DEVICE == "cuda":
                torch.cuda.empty_cache()

    def save(self, row: dict[str, Any]) -> None:
        """Save a figure and print it."""
        self.rows.append(row)
        self.path.write_text(json.dumps(self.origin | {"rows": self.rows}, indent=1) + "\n")
        print(line(row), flush=True)


def line(row: Mapping[str, Any]) -> str:
    """A figure as a row of the table."""
    if "error" in row:
        return f"| {row['what']} | {' '.join(row['error'].split()).replace('|', '/')} | |"
    value = f"{row['value']:,.0f}" if abs(row["value"]) >= 1000 else f"{row['value']:.3g}"
    limit = "" if row["limit"] is None else f"at most {row['limit']:g}"
    missed = " **missed**" if row["kept"] is False else ""
    return f"| {row['what']} | {value} {row['unit']} | {limit}{missed} |"


def algorithm() -> AlgorithmConfig:
    """GRPO with a meta objective, of the built-in task."""
    import hydra

    from masa.config import load

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("config", ["algorithm=masa", "++output_dir=.", "engine=hf"])
    return load(cfg).algorithm


def qwen3(
    hidden_size: int,
    intermediate_size: int,
    layers: int,
    heads: int,
    key_value_heads: int = 8,
    head_dim: int = 128,
    vocabulary: int = 151_936,
    **others: Any,
) -> Qwen3Config:
    """A Qwen3 config of this shape."""
    return Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=head_dim,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        **others,
    )


def random_model(
    config: Qwen3Config, dtype: torch.dtype, device: str = DEVICE, attention: str = "sdpa"
) -> Any:
    """A model with random weights, the same for the same config, dtype and device."""
    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)


def engine_for(config: Qwen3Config, dtype: torch.dtype, rows: int) -> HfEngine:
    """engine=hf, without weights yet; a completion ends only at its token limit."""
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        name = str(dtype).removeprefix("torch.")
        return HfEngine(Path(folder), [config.vocab_size - 1], 8192, dtype=name, max_num_seqs=rows)


def random_samples(
    lengths: Sequence[tuple[int, int]], vocabulary: int, seed: int = 0
) -> list[Sample]:
    """Samples of (prompt, response) tokens, with positive and negative advantages."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary - 1, (count,), generator=generator).tolist())

    return [
        Sample(
            tokens(prompt),
            tokens(response),
            tuple((-torch.rand(response, generator=generator)).tolist()),
            1.0 if i % 2 else -1.0,
            "meta" if i % 4 == 3 else "solution",
        )
        for i, (prompt, response) in enumerate(lengths)
    ]


def backward(model: Any, update: Update, config: AlgorithmConfig) -> None:
    """Forward and backward over an update's micro-batches, as the LightningModule runs them."""
    device = next(model.parameters()).device
    for micro_batch in update:
        batch = micro_batch.to(device)
        logprobs, entropy = token_logprobs(model, batch, config.temperature)
        total_loss(logprobs, batch, config, None, entropy)[0].backward()


def gradient(model: Any) -> torch.Tensor:
    """All gradients in one vector [parameters], float64 on the CPU."""
    return torch.cat([p.grad.double().flatten().cpu() for p in model.parameters()])


def relative(value: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over the norm of the reference."""
    return float((value.double() - reference.double()).norm() / reference.double().norm())


# correctness

SMALL = {"hidden_size": 256, "intermediate_size": 512, "layers": 4, "heads": 8}
SMALL_VOCABULARY = 2048
LENGTHS = [(5 + 7 * i % 40, 8 + 31 * i % 150) for i in range(32)]


def small_config() -> Qwen3Config:
    """A model whose attention and head matter: its weights are larger than the default."""
    return qwen3(
        **SMALL,
        key_value_heads=2,
        head_dim=32,
        vocabulary=SMALL_VOCABULARY,
        initializer_range=0.05,
    )


def correctness(figures: Figures, quick: bool) -> None:
    """Part 1: the same numbers in other ways, on small models, also without `quick`."""
    config = algorithm()
    for dtype, worst, mean in ((torch.float32, 1e-3, 1e-4), (torch.bfloat16, 1.0, 0.05)):
        with figures.attempt(f"engine against policy, {dtype}"):
            engine_against_policy(figures, config, dtype, worst, mean)
    for attention in ("sdpa", "eager"):
        with figures.attempt(f"padded against packed rows, {attention}"):
            padded_against_packed(figures, config, attention)
    with figures.attempt("gradient against float64"):
        gradient_against_float64(figures, config)
    with figures.attempt("a resumed run"):
        resumed(figures)
    if DEVICE == "cuda":
        # compiles first; supports variable lengths
        with figures.attempt("padded against packed rows, flex_attention"):
            padded_against_packed(figures, config, "flex_attention")
    if _installed("flash_attn"):
        with figures.attempt("padded against packed rows, flash_attention_2"):
            padded_against_packed(figures, config, "flash_attention_2", torch.bfloat16, 0.05)


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def engine_against_policy(
    figures: Figures, config: AlgorithmConfig, dtype: torch.dtype, worst: float, mean: float
) -> None:
    """The engine's log-probs of its samples against the policy's on the same tokens."""
    shape = small_config()
    policy = random_model(shape, dtype)
    engine = engine_for(shape, dtype, rows=64)
    engine.load_weights(policy.named_parameters(), 1)
    requests = [
        Request(sample.prompt_ids, tuple(range(4)), 16 + 12 * (i % 8))
        for i, sample in enumerate(random_samples(LENGTHS[:16], SMALL_VOCABULARY))
    ]
    completions = engine.generate(requests)
    samples = [
        Sample(request.prompt_ids, completion.token_ids, completion.logprobs, 1.0, "solution")
        for request, group in zip(requests, completions, strict=True)
        for completion in group
    ]
    update = build_update(samples, config, 4096, 0)
    differences = []
    with torch.no_grad():
        for micro_batch in update:
            batch = micro_batch.to(torch.device(DEVICE))
            logprobs, _ = token_logprobs(policy, batch, config.temperature)
            difference = (logprobs - batch.behaviour_logprobs).abs()
            differences.append(difference[batch.policy_tokens])
    all_differences = torch.cat(differences)
    name = f"engine=hf against policy, {str(dtype).removeprefix('torch.')}, log-probs"
    figures.add(f"{name}, largest difference", float(all_differences.max()), "nats", worst)
    figures.add(f"{name}, mean difference", float(all_differences.mean()), "nats", mean)


def padded_against_packed(
    figures: Figures,
    config: AlgorithmConfig,
    attention: str,
    dtype: torch.dtype = torch.float32,
    limit: float = 1e-4,
) -> None:
    """Gradients of the same samples in separate rows and packed in one row."""
    samples = random_samples(LENGTHS, SMALL_VOCABULARY)
    gradients = {}
    for layout in ("padded", "packed"):
        model = random_model(small_config(), dtype, attention=attention)
        backward(model, build_update(samples, config, 2048, 0, layout=layout), config)
        gradients[layout] = gradient(model)
    difference = relative(gradients["packed"], gradients["padded"])
    figures.add(f"padded against packed rows, {attention}, gradient", difference, "", limit)


def gradient_against_float64(figures: Figures, config: AlgorithmConfig) -> None:
    """The whole gradient on this device against the CPU's in float64."""
    samples = random_samples(LENGTHS, SMALL_VOCABULARY)
    update = build_update(samples, config, 2048, 0)
    exact = random_model(small_config(), torch.float64, "cpu")
    backward(exact, update, config)
    for precision, limit in (("32-true", 1e-4), ("bf16-mixed", 0.05)):
        model = random_model(small_config(), torch.float32)
        model.load_state_dict(exact.state_dict())
        autocast = torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16-mixed")
        with autocast:
            backward(model, update, config)
        difference = relative(gradient(model), gradient(exact))
        figures.add(f"gradient against float64, {precision}", difference, "", limit)


def resumed(figures: Figures) -> None:
    """metrics.csv of a resumed run and of a second run, against an uninterrupted run."""
    import pandas as pd

    small = [
        *("task.config.train_size=600", "task.config.validation_size_per_level=4"),
        *("trainer.prompts_per_rollout=8", "trainer.val_every=4", "algorithm=masa"),
        *("model.warmstart.sft.steps=60", "trainer.val_samples=2", "trainer.val_meta_samples=2"),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(out: str, rollouts: int, *more: str) -> subprocess.Popen[bytes]:
            return masa_train(folder, out, *small, f"trainer.max_rollouts={rollouts}", *more)

        finish(run("once", 4))  # trains the initial model of all
        finish(run("again", 4), run("resumed", 2))
        finish(run("resumed", 4, "ckpt=last"))
        tables = {
            out: pd.read_csv(folder / out / "metrics.csv").set_index("step").loc[3:4]
            for out in ("once", "again", "resumed")
        }
    once = tables["once"].select_dtypes("number")
    for out, what in (("again", "a second run"), ("resumed", "a resumed run")):
        other = tables[out].reindex(columns=once.columns)
        same = (once == other) | (once.isna() & other.isna())
        figures.add(
            f"{what} against the first, numbers of metrics.csv that differ, rollouts 3 and 4",
            float((~same).sum().sum()),
            f"of {same.size}",
            0,
        )


def masa_train(folder: Path, out: str, *overrides: str) -> subprocess.Popen[bytes]:
    """`masa-train engine=hf` in a separate process, with its output in `folder`."""
    command = [
        *(sys.executable, "-m", "masa.train", "engine=hf"),
        *overrides,
        f"hydra.run.dir={folder / out}",
    ]
    environment = os.environ | {"PYTHONPATH": _path(), "MASA_CACHE": str(_cache(folder))}
    with (folder / f"{out}.txt").open("ab") as console:
        process = subprocess.Popen(
            command, env=environment, stdout=console, stderr=subprocess.STDOUT
        )
    process.console = folder / f"{out}.txt"  # type: ignore[attr-defined]
    return process


def _path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _cache(folder: Path) -> Path:
    return Path(os.environ.get("MASA_CACHE", folder / "cache"))


def finish(*processes: Any) -> None:
    """Wait for runs to end.

    Raises:
        RuntimeError: one failed; with the end of its output.
    """
    for process in processes:
        if process.wait() != 0:
            raise RuntimeError(process.console.read_text(errors="replace")[-3000:])


# shapes


WAYS = {
    "padded rows, sdpa": ("padded", "sdpa", False),
    "padded rows, sdpa, gradient checkpointing": ("padded", "sdpa", True),
    "packed rows, flex_attention": ("packed", "flex_attention", False),
}
"""Layout of the micro-batches, attention, and whether activations are computed anew. The last one
compiles for minutes, which may take the rest of the time."""


def shapes(figures: Figures, quick: bool, sizes: Sequence[str] = tuple(SHAPES)) -> None:
    """Part 2: speed and memory of Qwen3's shapes."""
    entries = 256 if quick else ENTRIES
    flops = matrix_product(entries)
    figures.add(f"matrix product of {entries:,} x {entries:,} in bfloat16", flops / 1e12, "TFLOP/s")
    with figures.attempt("log-prob kernel"):
        kernels(figures, quick)
    for name in sizes:
        shape = SHAPES[name]
        if quick:
            shape = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 8}
        config = qwen3(**shape, vocabulary=512 if quick else 151_936)
        with figures.attempt(name):
            one_shape(figures, name, config, flops, quick)


def seconds(work: Callable[[], Any], repetitions: int = 3, warm: bool = False) -> float:
    """Median time of `work` (s), after one run that warms up unless it is `warm`."""
    times = []
    for _ in range(repetitions + (not warm)):
        synchronize()
        started = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[-repetitions:])


def synchronize() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def peak(work: Callable[[], Any]) -> float:
    """Largest memory allocated while `work` runs (GiB); 0 on a CPU."""
    if DEVICE == "cpu":
        work()
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() / 2**30


def matrix_product(entries: int) -> float:
    """FLOP/s of a product of two random square matrices in bfloat16."""
    one, other = (torch.randn(entries, entries, device=DEVICE).bfloat16() for _ in range(2))
    return 2 * entries**3 / seconds(lambda: one @ other, 10)


def response_lengths(count: int, mean: float, limit: int) -> list[int]:
    """Quantiles of a geometric distribution, so that every run has the same lengths."""
    quantiles = [(i + 0.5) / count for i in range(count)]
    return [max(1, min(limit, round(-mean * math.log(1 - q)))) for q in quantiles]


def one_shape(figures: Figures, name: str, shape: Qwen3Config, flops: float, quick: bool) -> None:
    """Update, weight sync and generation of one shape."""
    config = algorithm()
    limit, count = (64, 8) if quick else (4096, 64)
    lengths = [(8 if quick else 128, n) for n in response_lengths(count, limit / 4, limit)]
    samples = random_samples(lengths, shape.vocab_size)
    policy = random_model(shape, torch.bfloat16)
    parameters = sum(p.numel() for p in policy.parameters())
    tokens = sum(map(sum, lengths))
    figures.add(f"{name}, parameters", parameters / 1e9, "billion")
    scores = sum(
        12 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * n * n / 2
        for n in map(sum, lengths)
    )
    work_flops = 6 * parameters * tokens + scores
    with figures.attempt(f"{name}, optimizer", may_lack_memory=True):
        optimizer(figures, name, policy)
    with figures.attempt(f"{name}, engine=hf"):
        generation(figures, name, shape, policy, quick)
    for way, (layout, attention, checkpointing) in WAYS.items():
        if attention == "flex_attention" and DEVICE == "cpu":
            continue
        what = f"{name}, {way}"
        with figures.attempt(what, may_lack_memory=True):
            update = build_update(samples, config, limit * 4, 0, layout=layout)
            policy.set_attn_implementation(attention)
            if checkpointing:
                policy.gradient_checkpointing_enable({"use_reentrant": False})
                policy.train()
            else:
                policy.gradient_checkpointing_disable()
                policy.eval()

            def work(update: Update = update) -> None:
                policy.zero_grad(set_to_none=True)
                backward(policy, update, config)

            memory = peak(work)
            duration = seconds(work, 1, warm=True)
            figures.add(f"{what}, micro-batches", len(update.micro_batches))
            figures.add(f"{what}, padding", padding_share([update]), "of the positions")
            figures.add(f"{what}, forward and backward", tokens / duration, "tokens/s")
            figures.add(f"{what}, MFU", work_flops / duration / flops, "of the matrix product")
            figures.add(f"{what}, memory of weights, gradients, activations", memory, "GiB")
        policy.zero_grad(set_to_none=True)


def optimizer(figures: Figures, name: str, policy: Any) -> None:
    """A step of AdamW, its moments in bfloat16 like the weights."""
    adamw = torch.optim.AdamW(policy.parameters(), lr=1e-9, fused=True)
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter)
    figures.add(f"{name}, optimizer step", seconds(adamw.step), "s")
    policy.zero_grad(set_to_none=True)


def generation(figures: Figures, name: str, shape: Qwen3Config, policy: Any, quick: bool) -> None:
    """Weight sync, and generation at two batch sizes."""
    engine = engine_for(shape, torch.bfloat16, rows=256)
    synced = seconds(lambda: engine.load_weights(policy.named_parameters(), 1))
    figures.add(f"{name}, weight sync", synced, "s")
    new, prompt = (4, 8) if quick else (64, 128)
    for rows in (32, 256):
        prompts = random_samples([(prompt, 1)] * rows, shape.vocab_size)
        requests = [Request(sample.prompt_ids, (i,), new) for i, sample in enumerate(prompts)]
        duration = seconds(lambda requests=requests: engine.generate(requests), 1)
        figures.add(f"{name}, generate, {rows} rows", rows * new / duration, "tokens/s")


def kernels(figures: Figures, quick: bool) -> None:
    """Log-probs of the output head in chunks and with whole logits, forward and backward."""
    tokens, vocabulary, hidden_size = (64, 512, 32) if quick else (8192, 151_936, 2048)
    torch.manual_seed(0)
    head = torch.nn.Linear(hidden_size, vocabulary, bias=False, device=DEVICE)
    hidden = torch.randn(tokens, hidden_size, device=DEVICE)
    targets = torch.randint(vocabulary, (tokens,), device=DEVICE)
    upstream = torch.randn(tokens, device=DEVICE)
    head, hidden = head.bfloat16(), hidden.bfloat16().requires_grad_()

    def whole() -> torch.Tensor:
        logits = head(hidden).float()
        return torch.log_softmax(logits, -1).gather(-1, targets[:, None])[:, 0]

    def chunked() -> torch.Tensor:
        return head_logprobs(head, hidden, targets, 1.0)[0]

    for name, way in (("in chunks", chunked), ("plain", whole)):

        def work(way: Callable[[], torch.Tensor] = way) -> None:
            head.weight.grad = hidden.grad = None
            (upstream @ way()).backward()

        with figures.attempt(f"log-probs {name}", may_lack_memory=True):
            memory = peak(work)
            what = f"log-probs {name}, {tokens:,} tokens, vocabulary {vocabulary:,}"
            figures.add(f"{what}, time", seconds(work), "s")
            figures.add(f"{what}, peak memory", memory, "GiB")


# task


def task(figures: Figures, quick: bool, limit: float = math.inf) -> None:
    """Part 3: the built-in task, as `make train` runs it but with engine=hf."""
    few = ["model.warmstart.sft.steps=20", "algorithm=masa", "task.config.train_size=200"]
    settings = few if quick else ["algorithm=masa_efficient"]
    tolerance = {"max": None if quick else 1e-3}
    trained(figures, 2 if quick else 60, limit, tolerance, "experiment=arithmetic", *settings)


def sharded(figures: Figures, quick: bool, limit: float = math.inf) -> None:
    """Part 4: the same under FSDP2 on one device, with a KL reference."""
    few = ["model.warmstart.sft.steps=20", "task.config.train_size=200"] if quick else []
    of_strategy = ["strategy=fsdp", "strategy.devices=1", "algorithm.kl_beta=0.001"]
    of_strategy += [] if quick else ["strategy.cpu_offload=true"]
    settings = [*few, *of_strategy, "algorithm=masa"]
    tolerance = {"max": None if quick else 1e-3}
    trained(figures, 2 if quick else 10, limit, tolerance, "experiment=arithmetic", *settings)


def sharded_bfloat16(figures: Figures, quick: bool, limit: float = math.inf) -> None:
    """Part 5: FSDP2 as on many devices: parameters on the device, computing in bfloat16."""
    few = ["model.warmstart.sft.steps=20", "task.config.train_size=200"] if quick else []
    of_strategy = ["strategy=fsdp", "strategy.devices=1", "trainer.precision=bf16-mixed"]
    of_strategy += ["trainer.logprob_tolerance=5", "trainer.logprob_mean_tolerance=0.05"]
    settings = [*few, *of_strategy, "algorithm=masa"]
    tolerance = {"mean": None if quick else 0.05}
    trained(figures, 2 if quick else 10, limit, tolerance, "experiment=arithmetic", *settings)


def pretrained(
    figures: Figures, quick: bool, limit: float = math.inf, model: Path | None = None
) -> None:
    """Part 6, with --model: a pretrained model in bfloat16 on problems of reasoning-gym."""
    if model is None:
        raise RuntimeError("name its folder: --model DIR, as scripts/smollm2.py makes one")
    few = [
        "algorithm.control.start_step=0",
        "trainer.prompts_per_rollout=2",
        "task.validation_size=12",
        "trainer.val_samples=2",
    ]
    settings = [*few, "algorithm.response_limit=16", "algorithm.meta.response_limit=16"]
    # transformers takes 25 ms a token for a batch of any size
    full = ["algorithm.control.start_step=2", "task.validation_size=32", "engine.max_num_seqs=512"]
    settings = settings if quick else full
    # eager attention and the number of threads are for a CPU
    of_gpu = ("model.attn_implementation=null", "~engine.threads")
    base = ("experiment=smollm2_cloned", f"model.name={model.resolve()}", *of_gpu)
    tolerance = {"mean": None if quick else 0.05}
    trained(figures, 1 if quick else 5, limit, tolerance, *base, *settings)


def trained(
    figures: Figures,
    rollouts: int,
    limit: float,
    tolerance: Mapping[str, float | None],
    *overrides: str,
) -> None:
    """A run of `masa-train`: how far it came, what it learned, and what its parts took.

    Args:
        figures: of the part.
        rollouts: of the run.
        limit: seconds.
        tolerance: differences of engine and policy that are allowed: max, mean (nats).
        overrides: settings of the run.
    """
    import pandas as pd

    folder, name = figures.path.parent, figures.path.stem
    shutil.rmtree(folder / name, ignore_errors=True)
    more = [f"trainer.max_rollouts={rollouts}", f"trainer.val_every={-(-rollouts // 2)}"]
    run = masa_train(folder, name, *overrides, *more)
    failure = ""
    try:
        run.wait(None if math.isinf(limit) else limit)
        finish(run)
    except subprocess.TimeoutExpired:
        failure = f"not finished after {limit:g} s"
        run.kill()
    except RuntimeError as error:
        failure = str(error)
    if failure and not (folder / name / "timings.csv").exists():
        raise RuntimeError(failure)
    metrics = pd.read_csv(folder / name / "metrics.csv")
    timings = pd.read_csv(folder / name / "timings.csv")
    figures.add("rollouts", float(metrics["step"].max()), f"of {rollouts}")
    for column, what in (
        ("val/accuracy", "held-out accuracy"),
        ("val/meta/pass_rate_corr", "held-out correlation of predicted and actual pass rate"),
    ):
        if column in metrics:
            validated = metrics.set_index("step")[column].dropna()
            for step, value in validated.items():
                figures.add(f"{what} after rollout {step}", float(value))
    for part in ("step", "generate", "weight_sync", "forward_backward", "optimizer", "verify"):
        # a rollout without advantages has no update
        if f"timing_s/{part}" in timings:
            median = timings[f"timing_s/{part}"].median()
            figures.add(f"median of timing_s/{part}", float(median), "s")
    for kind, allowed in tolerance.items():
        # a rollout without advantages has no update
        column = metrics.get(f"sampling/sampling_logp_difference/{kind}")
        difference = math.nan if column is None else float(column.max())
        figures.add(f"engine against policy, {kind} difference", difference, "nats", allowed)
    if failure:
        raise RuntimeError(failure)


PARTS: dict[str, Callable[..., None]] = {
    "correctness": correctness,
    "shapes": shapes,
    "task": task,
    "sharded": sharded,
    "sharded_bfloat16": sharded_bfloat16,
    "pretrained": pretrained,
}


def machine() -> dict[str, str]:
    """Device and package versions."""
    card = torch.cuda.get_device_name() if DEVICE == "cuda" else f"CPU {platform.machine()}"
    facts = {"device": card, "python": platform.python_version()}
    for package in ("torch", "transformers", "lightning"):
        facts[package] = version(package)
    return facts


def table(out: Path) -> str:
    """All figures in `out`, as Markdown."""
    lines = []
    for path in sorted(out.glob("*.json")):
        saved = json.loads(path.read_text())
        facts = dict(saved["machine"])
        origin = f"{facts.pop('device')}, " + ", ".join(f"{k} {v}" for k, v in facts.items())
        lines += [f"\n### {path.stem}\n", f"`{saved['command']}` on {origin}\n"]
        lines += ["| what | value | limit |", "|---|---|---|", *map(line, saved["rows"])]
    return "\n".join(lines).strip() + "\n"


def main() -> int:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"))
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--limit", type=float, default=300, help="seconds that a part may take")
    parser.add_argument("--quick", action="store_true", help="test the script itself")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--command", default="", help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help="folder of a pretrained model, for that part")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--table", action="store_true", help="only print the figures in --out")
    args = parser.parse_args()
    if args.table:
        print(table(args.out), end="")
        return 0
    if DEVICE == "cpu" and not args.quick:
        parser.error("PyTorch finds no CUDA device here; --quick tries the script without one")
    args.out.mkdir(parents=True, exist_ok=True)
    args.parts = args.parts or [part for part in PARTS if part != "pretrained" or args.model]
    command = f"python scripts/gpu_check.py {shlex.join(sys.argv[1:])}"
    if args.part:
        figures = Figures(args.out / f"{args.part}.json", args.command)
        # the task needs some seconds of its limit to read the files of its run
        more: dict[str, dict[str, Any]] = {
            "shapes": {"sizes": args.sizes},
            "task": {"limit": args.limit - 20},
            "sharded": {"limit": args.limit - 20},
            "sharded_bfloat16": {"limit": args.limit - 20},
            "pretrained": {"limit": args.limit - 20, "model": args.model},
        }
        with figures.attempt(args.part):
            PARTS[args.part](figures, args.quick, **more.get(args.part, {}))
        return 0
    for part in args.parts:
        (args.out / f"{part}.json").unlink(missing_ok=True)
        print(f"\n{part}", flush=True)
        problem = run_part(part, args, command)
        if problem:
            Figures(args.out / f"{part}.json", command).save(
                {"what": part, "error": problem, "kept": False}
            )
    (args.out / "table.md").write_text(table(args.out))
    print(f"\n{table(args.out)}")
    rows = [row for part in args.parts for row in rows_of(args.out / f"{part}.json")]
    return any(row["kept"] is False for row in rows)


def run_part(part: str, args: argparse.Namespace, command_line: str) -> str:
    """Run one part to its end or its limit; returns the error, or an empty text."""
    command = [sys.executable, __file__, f"--part={part}", f"--command={command_line}"]
    command += [
        f"--out={args.out}",
        f"--limit={args.limit}",
        "--sizes",
        *args.sizes,
        *(["--quick"] if args.quick else []),
        *([f"--model={args.model}"] if args.model else []),
    ]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": _path()}, start_new_session=True
    )
    try:
        status = process.wait(args.limit)
    except subprocess.TimeoutExpired:
        return f"not finished after {args.limit:g} s"
    finally:
        # else child processes of a part would run beside the next one
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"exit status {status}" if status else ""


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The figures in a file."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


if __name__ == "__main__":
    sys.exit(main())
