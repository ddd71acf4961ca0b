"""Groups, tokenizers, models and rollout contexts of a few numbers for tests."""

from __future__ import annotations

import atexit
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from scripted_engine import ScriptedEngine
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from masa.algorithm.controller import Controller
from masa.algorithm.step import RolloutContext
from masa.config import AlgorithmConfig
from masa.rollout.samplers import ShuffledEpochs
from masa.tasks.templates import parse_meta
from masa.types import (
    Completion,
    MetaPrediction,
    Prompt,
    PromptPlan,
    Recent,
    RolloutGroup,
    Sample,
)

EOS = 0


def algorithm(**settings: Any) -> AlgorithmConfig:
    """AlgorithmConfig of small numbers; `meta={"coef": 2}` sets a part of a section."""
    small = {
        "group_size": 4,
        "response_limit": 64,
        "meta": {"group_size": 4, "min_length": 4, "response_limit": 200},
        "control": {"start_step": 0, "window": 8, "min_evidence": 2, "audit_fraction": 0.0},
    }
    settings = {
        name: with_settings(value) if name in ("gate", "cutoff") else value
        for name, value in settings.items()
    }
    merged = OmegaConf.merge(OmegaConf.structured(AlgorithmConfig), small, settings)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, AlgorithmConfig)
    return config


def with_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """A plug-in's own settings apart from those of the framework."""
    of_framework = ("enabled", "min_precision", "min_gain", "max_lost")
    own = {name: value for name, value in section.items() if name not in of_framework}
    rest = {name: value for name, value in section.items() if name in of_framework}
    return rest | ({"settings": own} if own else {})


# --- groups made by hand


def prompt(name: str = "p", problem: str = "problem", answer: str = "7", level: int = 0) -> Prompt:
    return Prompt(name, problem, answer, level)


def prompts(count: int) -> list[Prompt]:
    return [prompt(f"id{i}", f"problem {i}", str(i)) for i in range(count)]


def epochs(count: int, per_step: int, seed: int) -> Callable[[int], list[Prompt]]:
    """Draws of shuffled epochs over `count` prompts, by number."""
    pool = prompts(count)
    return lambda number: ShuffledEpochs().draw(pool, per_step, number, seed)


def completion(
    length: int = 5, *, text: str = "", finished: bool = True, version: int = 0
) -> Completion:
    """A completion of `length` tokens."""
    tokens = (9,) * (length - finished) + (EOS,) * finished
    return Completion(tokens, (-0.5,) * length, finished, version, text)


def prediction(
    pass_rate: int | None = 4,
    length: int | None = 10,
    notions: Sequence[str] | None = (),
    mixed: float | None = None,
) -> MetaPrediction:
    """A prediction with its pass rate in eighths; None makes a field unreadable, but `mixed`, which
    it then was not asked for."""
    missing = [x for x in (pass_rate, length, notions) if x is None]
    return MetaPrediction(
        pass_rate=None if pass_rate is None else pass_rate / 8,
        length=length,
        notions=None if notions is None else tuple(notions),
        mixed=mixed,
        error="unreadable" if missing else None,
    )


def plan(**changes: Any) -> PromptPlan:
    """A plan in shadow mode; `enforced=True` has gate and cutoff active."""
    if "enforced" in changes:
        changes["gate_active"] = changes["cutoff_active"] = changes.pop("enforced")
    audited = changes.get("audited", False)
    active = changes.get("gate_active", False) or changes.get("cutoff_active", False)
    shadow = PromptPlan(
        would_skip=False,
        gate_active=False,
        cutoff_tokens=64,
        cutoff_active=False,
        audited=False,
        exempt_from_cutoff=audited or not active,
        max_tokens=64,
    )
    return replace(shadow, **changes)


def group(
    correct: Sequence[bool] = (True, False),
    lengths: Sequence[int] | None = None,
    *,
    decided: PromptPlan | None = None,
    predictions: Sequence[MetaPrediction] = (),
    uncensored: bool | None = None,
    **fields: Any,
) -> RolloutGroup:
    """A group with these verdicts and solution lengths; rewards and advantages only if given."""
    lengths = [5] * len(correct) if lengths is None else lengths
    decided = plan() if decided is None else decided
    group_of_fields = RolloutGroup(
        prompt=prompt(),
        meta_prompt_ids=(1, 2),
        solution_prompt_ids=(3,),
        plan=decided,
        meta=tuple(completion(3) for _ in predictions),
        predictions=tuple(predictions),
        solutions=tuple(completion(n) for n in lengths),
        scores=tuple(map(float, correct)),
        correct=tuple(correct),
        task_rewards=tuple({} for _ in correct),
        shaped_scores=tuple(map(float, correct)),
        uncensored=bool(correct) if uncensored is None else uncensored,
    )
    return replace(group_of_fields, **fields)


# --- a renderer whose tokens are characters, and an engine with a script


class CharRenderer:
    """Token id = code point, 0 ends a text; prompts begin with their kind."""

    def __init__(
        self, min_length: int = 1, max_length: int | None = None, mixed: bool = False
    ) -> None:
        self.min_length = min_length
        self.max_length = max_length
        self.mixed = mixed

    def meta_prompt(self, prompt: Prompt, recent: Recent = ()) -> tuple[int, ...]:
        shown = "".join(f"{problem}={int(mixed)};" for problem, mixed in recent)
        return encode(f"meta:{shown}{prompt.problem}")

    def solution_prompt(self, prompt: Prompt, hints: Sequence[str]) -> tuple[int, ...]:
        hint = f"#{','.join(hints)}" if hints else ""
        return encode(f"solve:{prompt.problem}{hint}")

    def texts(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        return list(map(decode, sequences))

    def parse(self, text: str) -> MetaPrediction:
        return parse_meta(text, self.min_length, self.max_length, self.mixed)

    def rewrite(
        self, text: str, pass_rate: int, length: int, mixed: bool
    ) -> tuple[int, ...] | None:
        return (*encode(f"{text}|{pass_rate}|{length}"), EOS)


def encode(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def decode(token_ids: Sequence[int]) -> str:
    return "".join(chr(t) for t in token_ids if t != EOS)


def meta_text(
    pass_rate: Any, length: Any, notions: Any = (), before: str = "<meta>hm", **further: Any
) -> str:
    """A meta rollout in the format of the prompt, with further fields."""
    fields = {"math_notion": list(notions), "pass_rate": pass_rate, "solution_length": length}
    fields |= further
    return f"{before}</meta>{json.dumps(fields)}"


Say = Callable[[str, int], str]
"""(problem, seed) -> text."""


class World:
    """An engine that plays `meta` and `solve`, with all that `collect` needs.

    A solution is right where it ends with "=" and the answer.
    """

    def __init__(self, config: AlgorithmConfig, meta: Say, solve: Say, seed: int = 0) -> None:
        self.config = config
        self.meta = meta
        self.solve = solve
        self.engine = ScriptedEngine(self._script, EOS)
        self.controller = Controller(config, seed)
        self.renderer = CharRenderer(
            config.meta.min_length, config.response_limit, config.meta.predict_mixed
        )
        self.verified: list[tuple[Prompt, str]] = []
        self.seed = seed

    def at(self, step: int) -> RolloutContext:
        """What a step is rolled out with."""
        return RolloutContext(
            renderer=self.renderer,
            generate=self.engine.generate,
            verify=self._verify,
            controller=self.controller,
            config=self.config,
            step=step,
            seed=self.seed,
        )

    def requested(self, kind: str) -> list[str]:
        """Prompts of this kind with at least one requested completion, in order."""
        texts = [decode(r.prompt_ids) for call in self.engine.calls for r in call if r.seeds]
        return [text.partition(":")[2] for text in texts if text.startswith(kind)]

    def _script(self, prompt_ids: tuple[int, ...], seed: int) -> tuple[int, ...]:
        kind, _, problem = decode(prompt_ids).partition(":")
        script = {"meta": self.meta, "solve": self.solve}[kind]
        return (*encode(script(problem.partition("#")[0], seed)), EOS)

    def _verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        self.verified += answers
        return [text.endswith(f"={prompt.answer}") for prompt, text in answers]


# --- tokenizers, models, samples


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every text round-trips: one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0, **{char: i + 1 for i, char in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def tiny_qwen3(tied: bool = False, seed: int = 0) -> torch.nn.Module:
    """A Qwen3 of 2 layers and width 32 with random weights, in float32."""
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=48,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=48,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # weights of the usual 0.02 make log-probs that hardly differ
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim > 1 else 1)
    torch.random.set_rng_state(generator_state)
    return model


def model_folder(folder: Path, head_dim: int = 32) -> Path:
    """A random Qwen3 of one layer on disk, with a tokenizer of bytes and a context of 2048."""
    shutil.copytree(_model_folder(head_dim), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    return folder


@functools.cache
def _model_folder(head_dim: int) -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(
        "qwen3", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=head_dim, intermediate_size=48,
        max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def random_samples(count: int, seed: int = 0, objectives: str = "smb") -> list[Sample]:
    """Samples of random lengths and tokens; every fourth solution or meta has advantage 0."""
    rng = random.Random(seed)
    names = {"s": "solution", "m": "meta", "b": "bc"}
    samples = []
    for i in range(count):
        objective = names[objectives[i % len(objectives)]]
        prompt_ids = tuple(rng.randrange(48) for _ in range(rng.randint(1, 6)))
        token_ids = tuple(rng.randrange(48) for _ in range(rng.randint(1, 12)))
        bc = objective == "bc"
        logprobs = [0.0 if bc else float32(-rng.uniform(2, 6)) for _ in token_ids]
        advantage = 0.0 if bc or i % 4 == 3 else float32(rng.gauss(0, 1))
        samples.append(Sample(prompt_ids, token_ids, tuple(logprobs), advantage, objective))
    return samples


def float32(value: float) -> float:
    """The nearest float32: what a tensor keeps of a float."""
    return float(torch.tensor(value, dtype=torch.float32))


def nested_keys(plain: Mapping[str, Any], prefix: str = "") -> set[str]:
    """a.b.c for every leaf of nested mappings."""
    keys = set()
    for key, value in plain.items():
        name = f"{prefix}{key}"
        keys |= nested_keys(value, f"{name}.") if isinstance(value, Mapping) else {name}
    return keys


def hub_run_config(folder):
    """config.yaml of a run on a local model, as far as an export reads it."""
    return {
        "name": "x", "seed": 0, "algorithm": {"name": "grpo"},
        "task": {"_target_": "toy_task.EvenTask"},
        "model": {"_target_": "masa.training.models.HubModel", "name": str(folder)},
    }  # fmt: skip
