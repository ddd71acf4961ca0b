"""The engine of plain transformers: batched `generate`, wherever PyTorch runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PretrainedConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from masa.errors import ConfigError
from masa.types import Completion, Logprobs, Request, TokenIds

DROP_SHARE = 0.25
"""Share of finished rows at which they are dropped from the batch."""


def faithful_attention(config: PretrainedConfig, requested: str | None = None) -> str | None:
    """The attention implementation to load a model with; None is transformers' own choice.

    Raises:
        ConfigError: `requested` leaves out the soft cap on attention scores that Gemma 2 has.
    """
    if getattr(config.get_text_config(), "attn_logit_softcapping", None) is None:
        return requested
    if requested == "sdpa":
        raise ConfigError(
            "model.attn_implementation=sdpa leaves out this model's soft cap on attention scores: "
            "use eager, or flash_attention_2 on a GPU"
        )
    return requested or "eager"


class HfEngine:
    """A copy of the policy that samples with `generate`.

    Args:
        model_path: folder with the Hugging Face config; weights are not read from it.
        eos_token_ids: tokens that end a completion.
        max_model_len: unused here; vLLM needs it.
        temperature: sampling temperature; top-p and top-k are off.
        dtype: dtype of the weights in the engine.
        max_num_seqs: sequences decoded at once.
        trust_remote_code: run the code that comes with the model.

    Raises:
        ConfigError: the model has no key-value cache.
    """

    def __init__(
        self,
        model_path: Path,
        eos_token_ids: Sequence[int],
        max_model_len: int,
        temperature: float = 1.0,
        dtype: str = "float32",
        max_num_seqs: int = 256,
        trust_remote_code: bool = False,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        # the policy's weights are loaded later; billions of random ones take minutes on a CPU
        with self.device:
            self.model = AutoModelForCausalLM.from_config(
                config,
                dtype=getattr(torch, dtype),
                attn_implementation=faithful_attention(config),
                trust_remote_code=trust_remote_code,
            )
        if "past_key_values" not in signature(self.model.forward).parameters:
            raise ConfigError(
                f"engine=hf needs a model with a key-value cache, {config.model_type} has none: "
                "use engine=vllm"
            )
        self.model.eval()
        self.eos_token_ids = tuple(eos_token_ids)
        self.temperature = temperature
        self.max_num_seqs = max_num_seqs
        self.version = -1

    @staticmethod
    def check_available() -> None:
        """transformers is always installed."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`."""
        rows = [
            (request.prompt_ids, seed, request.max_tokens)
            for request in requests
            for seed in request.seeds
        ]
        # rows of like limits together: a batch runs until its longest row ends
        order = sorted(range(len(rows)), key=lambda i: (rows[i][2], len(rows[i][0])))
        completions: dict[int, Completion] = {}
        for start in range(0, len(order), self.max_num_seqs):
            chunk = order[start : start + self.max_num_seqs]
            completions.update(zip(chunk, self._sample([rows[i] for i in chunk]), strict=True))
        in_order = iter(completions[i] for i in range(len(rows)))
        return [[next(in_order) for _ in request.seeds] for request in requests]

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in named:
                parameters.pop(name).copy_(tensor)
        if parameters:
            raise RuntimeError(f"weight sync left out {sorted(parameters)}")
        self.version = version

    def sleep(self) -> None:
        """See `Engine.sleep`; the copy stays in memory."""

    def wake(self) -> None:
        """See `Engine.wake`."""

    def close(self) -> None:
        """See `Engine.close`."""
        del self.model

    @torch.inference_mode()
    def _sample(self, rows: Sequence[tuple[TokenIds, int, int]]) -> list[Completion]:
        longest = max(len(prompt) for prompt, _, _ in rows)
        pad = self.eos_token_ids[0]
        input_ids = torch.full((len(rows), longest), pad, device=self.device)  # [B, P]
        mask = torch.zeros_like(input_ids)
        for i, (prompt, _, _) in enumerate(rows):
            input_ids[i, longest - len(prompt) :] = torch.as_tensor(prompt, device=self.device)
            mask[i, longest - len(prompt) :] = 1
        noise = _SeededSampling([seed for _, seed, _ in rows], self.temperature, self.device)
        ends = torch.tensor([longest + limit for _, _, limit in rows], device=self.device)
        active, completions = list(range(len(rows))), dict[int, Completion]()
        cache = None
        while active:
            stop = _RowEnds(ends, self.eos_token_ids)
            output = self.model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=GenerationConfig(
                    do_sample=False,
                    max_length=int(ends.max()),
                    eos_token_id=list(self.eos_token_ids),
                    pad_token_id=pad,
                    return_dict_in_generate=True,
                ),
                logits_processor=LogitsProcessorList([noise]),
                stopping_criteria=StoppingCriteriaList([stop]),
            )
            ended = stop.ended.nonzero()[:, 0]
            tokens = output.sequences[ended, longest:].cpu().numpy()  # [ended, T]
            logprobs = noise.logprobs()[ended].cpu().numpy()
            for i, drawn, of_drawn in zip(ended.tolist(), tokens, logprobs, strict=True):
                row = active[i]
                completions[row] = self._completion(drawn, of_drawn, rows[row][2])
            unfinished = (~stop.ended).nonzero()[:, 0]
            active = [active[i] for i in unfinished.tolist()]
            cache = output.past_key_values
            cache.reorder_cache(unfinished)  # made for beams, but takes fewer rows as well
            noise.keep(unfinished)
            input_ids, ends = output.sequences[unfinished], ends[unfinished]
            mask = F.pad(mask[unfinished], (0, input_ids.shape[1] - mask.shape[1]), value=1)
        return [completions[i] for i in range(len(rows))]

    def _completion(
        self, tokens: npt.NDArray[np.int64], logprobs: Logprobs, limit: int
    ) -> Completion:
        ends = np.flatnonzero(np.isin(tokens[:limit], self.eos_token_ids))
        length = ends[0] + 1 if len(ends) else min(limit, len(tokens))
        # a copy does not keep the other rows in memory
        drawn = tokens[:length].astype(np.int32), logprobs[:length].copy()
        return Completion(*drawn, bool(len(ends)), self.version)


class _SeededSampling(LogitsProcessor):
    """Adds Gumbel noise from one generator per row, and keeps the log-probs of the samples.

    The greedy choice is then a sample that depends on the row's seed alone.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        self.history: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        logprobs = torch.log_softmax(scores.float() / self.temperature, dim=-1)  # [B, V]
        drawn = torch.empty_like(logprobs)
        for row, generator in zip(drawn, self.generators, strict=True):
            row.exponential_(generator=generator)
        noisy = logprobs - drawn.log()
        self.history.append(logprobs.gather(-1, noisy.argmax(-1, keepdim=True)))
        return noisy  # type: ignore[return-value]

    def logprobs(self) -> torch.Tensor:
        """[B, T] log-probs of the tokens drawn."""
        return torch.cat(self.history, dim=-1)

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.generators = [self.generators[i] for i in rows.tolist()]
        self.history = [self.logprobs()[rows]]


class _RowEnds(StoppingCriteria):
    """Ends each row at its own length, and interrupts all rows once many have ended.

    Ended rows would else be decoded, and their cache copied, until the last one ends.
    """

    def __init__(self, ends: torch.Tensor, eos_token_ids: Sequence[int]) -> None:
        self.ends = ends
        self.eos_token_ids = torch.tensor(eos_token_ids, device=ends.device)
        self.ended = torch.zeros_like(ends, dtype=torch.bool)

    def __call__(  # type: ignore[override]
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        self.ended |= torch.isin(input_ids[:, -1], self.eos_token_ids)
        self.ended |= input_ids.shape[1] >= self.ends
        return self.ended | (self.ended.float().mean() >= DROP_SHARE)
