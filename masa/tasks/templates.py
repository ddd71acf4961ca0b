"""Prompt templates (solution, meta, hint), and the parser of predictions."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from masa.errors import ConfigError
from masa.tasks.chat import chat_prompt, ending_tokens, leading_token
from masa.tasks.decoding import Decoder
from masa.tasks.encoding import Encoder, Marks
from masa.types import MetaPrediction, Prompt, Recent, TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_REASONING = "</meta>"
PASS_RATE_SCALE = 8
"""A pass rate is written as an integer 0..8."""
MIXED_SCALE = 100
"""The probability of a mixed group is written in percent: .03 and .3 are different words."""
MAX_BRACES = 16
"""Opening braces that are tried as the start of the JSON object: \\boxed{5} may precede it."""
_PLACEHOLDER = re.compile(r"\{(problem|hint|min_length|max_length|group_size|mixed)\}")


def parse_meta(
    text: str, min_length: int = 1, max_length: int | None = None, mixed: bool = False
) -> MetaPrediction:
    """Parse the prediction in a meta rollout. Never raises, whatever the text.

    The first JSON object after the last `</meta>` counts. A field that is missing, of another type
    or out of range is None; `error` then names the problem.

    Args:
        text: full text of the rollout.
        min_length, max_length: range of an acceptable `solution_length` (tokens).
        mixed: whether the field `mixed` was asked for; it is not read where it was not.
    """
    parsed = _find_object(text)
    if isinstance(parsed, str):
        return MetaPrediction(error=parsed)
    fields = parsed[0]
    errors = []

    pass_rate = fields.get("pass_rate")
    if not _is_integer(pass_rate) or not 0 <= pass_rate <= PASS_RATE_SCALE:
        pass_rate = None
        errors.append(f"pass_rate is not an integer from 0 to {PASS_RATE_SCALE}")

    length = fields.get("solution_length")
    longest = math.inf if max_length is None else max_length
    if not _is_integer(length) or not min_length <= length <= longest:
        length = None
        errors.append(f"solution_length is not an integer from {min_length} to {longest}")

    notions = fields.get("math_notion")
    if not isinstance(notions, list) or not all(map(is_text, notions)):
        notions = None
        errors.append("math_notion is not a list of strings")

    percent = fields.get("mixed") if mixed else None
    if not _is_integer(percent) or not 0 <= percent <= MIXED_SCALE:
        percent = None
        if mixed:
            errors.append(f"mixed is not an integer from 0 to {MIXED_SCALE}")

    return MetaPrediction(
        pass_rate=None if pass_rate is None else pass_rate / PASS_RATE_SCALE,
        length=length,
        notions=None if notions is None else tuple(notions),
        mixed=None if percent is None else percent / MIXED_SCALE,
        error="; ".join(errors) or None,
    )


def rewrite_meta(text: str, pass_rate: int, length: int, mixed: bool | None = None) -> str | None:
    """The rollout with its numbers replaced: same reasoning, same notions, valid JSON.

    Args:
        text: text of a meta rollout.
        pass_rate: 0..8.
        length: tokens.
        mixed: was the group? None where the prediction was not asked for it.

    Returns:
        The new text, or None where the notions cannot be read.
    """
    parsed = _find_object(text)
    prediction = parse_meta(text)
    if isinstance(parsed, str) or prediction.notions is None:
        return None
    percent = None if mixed is None else MIXED_SCALE * mixed
    return text[: parsed[1]] + fields_json(prediction.notions, pass_rate, length, percent)


def fields_json(
    notions: Sequence[str], pass_rate: int, length: int, percent: int | None = None
) -> str:
    """The fields of a prediction as they are written.

    Args:
        notions: any texts.
        pass_rate: 0..8.
        length: tokens.
        percent: chance of a mixed group, 0..100; None where it is not asked for.
    """
    fields: dict[str, Any] = {
        "math_notion": list(notions),
        "pass_rate": pass_rate,
        "solution_length": length,
    }
    if percent is not None:
        fields["mixed"] = percent
    # a notion must not contain another end of the reasoning
    return json.dumps(fields, ensure_ascii=False).replace("</", "<\\/")


def _find_object(text: str) -> tuple[dict[str, Any], int] | str:
    """The first JSON object after the last `</meta>` and its position, or the error."""
    end = text.rfind(END_OF_REASONING)
    if end < 0:
        return f"no {END_OF_REASONING}"
    start = text.find("{", end + len(END_OF_REASONING))
    if start < 0:
        return f"no JSON object after {END_OF_REASONING}"
    for _ in range(MAX_BRACES):
        try:
            return json.JSONDecoder().raw_decode(text, start)[0], start
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
        if start < 0:
            break
    return "malformed JSON"


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_text(value: Any) -> bool:
    """True for a string that can be encoded: JSON can have half a character."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _fill(template: str, **values: str) -> str:
    # not str.format: \\boxed{} and the JSON example of a template have other braces; one pass, so
    # that a problem's text is never read as a placeholder
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


@dataclass(frozen=True)
class Templates:
    """Prompt texts with {problem}, and optionally {hint}, {min_length}, {max_length} and
    {group_size}."""

    solution: str
    """q_sol."""
    meta: str
    """q_meta."""
    hint: str
    """Replaces {problem} in q_sol where there are hints."""
    meta_mixed: str | None = None
    """q_meta that also asks for `mixed`, the percent chance that of {group_size} solutions some are
    right and some wrong; None: the task has none."""
    # not in the repr, by which first weights are named: no demonstration shows outcomes
    recent: str | None = field(default=None, repr=False)
    """A recent outcome, of {problem} and {mixed} (100 or 0), in front of `meta_mixed`; None: the
    task has none."""

    def __post_init__(self) -> None:
        for name, needed in (
            ("solution", "{problem}"),
            ("meta", "{problem}"),
            ("hint", "{problem}"),
            ("hint", "{hint}"),
            ("meta_mixed", "{problem}"),
            ("recent", "{problem}"),
            ("recent", "{mixed}"),
        ):
            text = getattr(self, name)
            if text is not None and needed not in text:
                raise ValueError(f"template {name} has no {needed}")

    def solution_text(self, problem: str, hints: Sequence[str] = ()) -> str:
        """q_sol of a problem, with the hints appended."""
        if hints:
            problem = _fill(self.hint, problem=problem, hint=", ".join(hints))
        return _fill(self.solution, problem=problem)

    def meta_text(
        self,
        problem: str,
        min_length: int,
        max_length: int,
        mixed_of: int | None = None,
        recent: Recent = (),
    ) -> str:
        """q_meta of a problem.

        Args:
            problem: its text.
            min_length, max_length: range of lengths that may be predicted (tokens).
            mixed_of: G, where the probability of a mixed group is asked for as well.
            recent: outcomes that are shown before it.

        Raises:
            ConfigError: that is asked for, and there is no such text.
        """
        numbers = {"min_length": str(min_length), "max_length": str(max_length)}
        if mixed_of is None:
            return _fill(self.meta, problem=problem, **numbers)
        numbers["group_size"] = str(mixed_of)
        shown = [
            _fill(self.showing_recent(), problem=earlier, mixed=str(MIXED_SCALE * mixed))
            for earlier, mixed in recent
        ]
        return "".join(shown) + _fill(self.asking_for_mixed(), problem=problem, **numbers)

    def asking_for_mixed(self) -> str:
        """`meta_mixed`.

        Raises:
            ConfigError: there is none.
        """
        if self.meta_mixed is None:
            raise ConfigError(
                "algorithm.meta.predict_mixed, sft.mixed_predictions and predict_mixed of "
                "masa-eval need a text that asks for it: the task's templates have no meta_mixed "
                "(conf/templates/boxed.yaml has one); or set them to false and 0"
            )
        return self.meta_mixed

    def showing_recent(self) -> str:
        """`recent`.

        Raises:
            ConfigError: there is none.
        """
        if self.recent is None:
            raise ConfigError(
                "algorithm.meta.recent needs a text that shows an outcome: the task's templates "
                "have no recent (conf/templates/boxed.yaml has one)"
            )
        return self.recent


class PromptRenderer:
    """The templates for a tokenizer: in its chat template where it has one, else as plain text.

    Args:
        templates: the texts.
        tokenizer: the policy's tokenizer; needs an end-of-sequence token.
        min_length, max_length: range of solution lengths that may be predicted (tokens).
        eos_token_ids: more tokens that end a completion, from the model's generation config.
        allow_special_tokens: read special tokens in problems and notions as such; else as text.
        mixed_of: G, where predictions also say how probable a mixed group of G solutions is.
        room: tokens of the longest q_meta with recent outcomes.

    Raises:
        ConfigError: `mixed_of` is given, and the templates have no text for it.
    """

    def __init__(
        self,
        templates: Templates,
        tokenizer: PreTrainedTokenizerBase,
        min_length: int,
        max_length: int,
        eos_token_ids: Sequence[int] = (),
        allow_special_tokens: bool = False,
        mixed_of: int | None = None,
        room: int = 0,
    ) -> None:
        if mixed_of is not None:
            templates.asking_for_mixed()
        if room > 0:
            templates.showing_recent()
        self.mixed_of = mixed_of
        self.room = room
        self.eos_token_ids = ending_tokens(tokenizer, eos_token_ids)
        self.templates = templates
        self.tokenizer = tokenizer
        self._encoder = Encoder(tokenizer, allow_special_tokens)
        self.min_length = min_length
        self.max_length = max_length
        self.chat = bool(tokenizer.chat_template)
        self._decoder = Decoder(tokenizer)
        # a chat template has its own
        self._bos = None if self.chat else leading_token(tokenizer)
        pad = tokenizer.pad_token_id
        self.pad_token_id = self.eos_token_ids[0] if pad is None else int(pad)

    def predicting_mixed_of(self, group_size: int | None) -> PromptRenderer:
        """The same with another `mixed_of`.

        Raises:
            ConfigError: as above.
        """
        if group_size is not None:
            self.templates.asking_for_mixed()
        other = copy(self)
        other.mixed_of = group_size
        return other

    def describe(self) -> str:
        """One line on the text around the templates and the ends of completions."""
        names = self.tokenizer.convert_ids_to_tokens(list(self.eos_token_ids))
        if self.chat:
            frame = "in the tokenizer's chat template"
        elif self._bos is None:
            frame = "plain, as the tokenizer has no chat template"
        else:
            frame = f"plain after {self.tokenizer.bos_token}, as the tokenizer has no chat template"
        return f"prompts: {frame}; completions end with {' or '.join(map(str, names))}"

    def meta_prompt(self, prompt: Prompt, recent: Recent = ()) -> TokenIds:
        """Token ids of q_meta, with as many of the newest outcomes as there is room for."""

        def without(oldest: int) -> TokenIds:
            return self._meta_prompt(prompt, recent[oldest:])

        ids = without(0)
        if not recent or len(ids) <= self.room:
            return ids
        counts = range(1, len(recent))
        fits = bisect_left(counts, True, key=lambda n: len(without(n)) <= self.room)
        return without(1 + fits)

    def _meta_prompt(self, prompt: Prompt, recent: Recent) -> TokenIds:
        earlier = [problem for problem, _ in recent]
        (problem, *earlier), marks = self._encoder.protect([prompt.problem, *earlier])
        limits = self.min_length, self.max_length
        shown = [(text, mixed) for text, (_, mixed) in zip(earlier, recent, strict=True)]
        return self._prompt(self.templates.meta_text(problem, *limits, self.mixed_of, shown), marks)

    def solution_prompt(self, prompt: Prompt, hints: Sequence[str]) -> TokenIds:
        """Token ids of q_sol, with the hints appended to the problem."""
        (problem, *hints), marks = self._encoder.protect([prompt.problem, *hints])
        return self._prompt(self.templates.solution_text(problem, hints), marks)

    def texts(self, sequences: Sequence[TokenIds]) -> list[str]:
        """Decoded text of each without special tokens."""
        return self._decoder.texts(sequences)

    def parse(self, text: str) -> MetaPrediction:
        """`parse_meta` within this run's range of lengths."""
        return parse_meta(text, self.min_length, self.max_length, self.mixed_of is not None)

    def rewrite(self, text: str, pass_rate: int, length: int, mixed: bool) -> TokenIds | None:
        """Token ids of `rewrite_meta` and the token that ends a turn, None where it is None."""
        length = min(max(length, self.min_length), self.max_length)
        asked = None if self.mixed_of is None else mixed
        corrected = rewrite_meta(text, pass_rate, length, asked)
        if corrected is None:
            return None
        return self.assistant_turn(corrected)

    def assistant_turn(self, text: str) -> TokenIds:
        """Token ids of a text as the assistant's turn, with the token that ends it."""
        return np.array([*self._encoder.encode_foreign(text), self.eos_token_ids[0]], np.int32)

    def _prompt(self, text: str, marks: Marks) -> TokenIds:
        if self.chat:
            text = chat_prompt(self.tokenizer, text)
        ids = self._encoder.encode(text, marks)
        if not (self._bos is None or ids[:1] == (self._bos,)):
            ids = (self._bos, *ids)
        return np.array(ids, np.int32)
