"""The built-in task: problems, verdicts, demonstrations and tokenizer of a profile."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from masa.tasks.arithmetic import families, uniform
from masa.tasks.arithmetic.config import LARGEST_POOL, ArithmeticConfig
from masa.tasks.demonstrations import Demonstrated
from masa.tasks.templates import Templates
from masa.types import MetaPrediction, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_HELD_OUT_SHARE = 10  # one problem in ten, by its hash, may only serve for validation
_SPECIALS = ("<pad>", "<eos>", "<unk>")
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_JOINED_BOXES = re.compile(r"(?=\\boxed\{([^{}]*)\}\s*or\s*\\boxed\{([^{}]*)\})")
_INTEGER = re.compile(r"\s*([+-]?[0-9]{1,9})\s*")


class Profile(Protocol):
    """What the modules `uniform` and `families` have in common."""

    TEMPLATES: Templates
    NOTIONS: tuple[str, ...]
    LITERALS: tuple[str, ...]
    """Fixed parts of all texts, each a token."""
    LEVEL_WEIGHTS: tuple[int, ...]
    """Shares of the levels in the demonstrations."""

    def draw(
        self, level: int, config: ArithmeticConfig, rng: random.Random, seen: bool | None
    ) -> tuple[str, int, Mapping[str, Any]]:
        """A random problem, its answer and its columns."""
        ...

    def solution(self, text: str, config: ArithmeticConfig, rng: random.Random) -> str:
        """A demonstrated solution of a problem, right or wrong."""
        ...

    def prediction(self, text: str, rng: random.Random, mixed: bool = False) -> str:
        """A demonstrated prediction on a problem."""
        ...

    def write_prediction(self, text: str, prediction: MetaPrediction) -> str:
        """The text of a given prediction on a problem."""
        ...


PROFILES: Mapping[str, Profile] = {"uniform": uniform, "families": families}


class ArithmeticTask:
    """The built-in task: problems, verdicts, demonstrations and tokenizer."""

    def __init__(self, config: ArithmeticConfig | None = None) -> None:
        self.config = config or ArithmeticConfig()
        self.profile: Profile = PROFILES[self.config.profile]
        self.templates = self.profile.TEMPLATES
        self.notions = self.profile.NOTIONS

    @cached_property
    def train(self) -> list[Prompt]:
        """The finite pool to train on, levels in turn, the same on every call and machine."""
        return self._pool("train", self.config.train_size, False, turn=self.config.turn)

    @cached_property
    def validation(self) -> list[Prompt]:
        """Held-out problems, levels in turn; none of them occurs in `train` or a demonstration."""
        levels, name = self.config.levels, self.config.held_out
        size = self.config.validation_size_per_level * levels
        # a smaller pool is the start of a larger one, so this excludes every validation pool
        reported = self._pool("validation", LARGEST_POOL * levels, True) if name == "tuning" else ()
        return self._pool(name, size, True, {prompt.problem for prompt in reported})

    def _pool(
        self,
        name: str,
        size: int,
        held_out: bool,
        excluded: Collection[str] = (),
        seen: bool = True,
        turn: Sequence[int] = (),
    ) -> list[Prompt]:
        turn = turn or range(1, self.config.levels + 1)
        rng = random.Random(f"{name}-{self.config.seed}")
        pool: dict[str, Prompt] = {}
        while len(pool) < size:
            prompt = self.draw(turn[len(pool) % len(turn)], rng, held_out, seen)
            if prompt.problem not in excluded:
                pool.setdefault(prompt.problem, prompt)
        return list(pool.values())

    @cached_property
    def unseen(self) -> list[Prompt]:
        """Problems of families that no prompt of `train` belongs to; none in the profile uniform.
        Predictions about them can only be right by what the policy knows of itself."""
        if self.config.profile == "uniform":
            return []
        levels, name = self.config.levels, self.config.held_out
        size = -(-self.config.validation_size_per_level // 3) * levels
        reported: Collection[str] = ()
        if name == "tuning":
            largest = LARGEST_POOL // 3 * levels
            pool = self._pool("unseen-validation", largest, held_out=True, seen=False)
            reported = {prompt.problem for prompt in pool}
        return self._pool(f"unseen-{name}", size, True, reported, seen=False)

    def draw(
        self,
        level: int,
        rng: random.Random,
        held_out: bool = False,
        seen: bool | None = True,
    ) -> Prompt:
        """A random problem of a level, held out or for training.

        Args:
            level: 1 to 6.
            rng: source of randomness.
            held_out: see `is_held_out`.
            seen: of families that are trained on, of the others, or (None) of all.
        """
        while True:
            text, answer, columns = self.profile.draw(level, self.config, rng, seen)
            if is_held_out(text) == held_out:
                return Prompt(f"arith-{level}-{_digest(text)}", text, str(answer), level, columns)

    @property
    def report(self) -> dict[str, Any]:
        """The source; problems are generated, so none is left out."""
        return {"source": "arithmetic"}

    def verify(self, answers: Sequence[tuple[Prompt, str]]) -> list[bool]:
        r"""True where the last \boxed{} has the answer and no "or" joins it to another one."""
        return [int(prompt.answer) == _answer(text) for prompt, text in answers]

    def same(self, a: str, b: str) -> bool:
        """True where both have an answer and it is the same number."""
        answer = _answer(a)
        return answer is not None and answer == _answer(b)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Word-level tokenizer: a token per digit and per fixed part of the texts."""
        from transformers import PreTrainedTokenizerFast

        literals = self.profile.LITERALS
        vocabulary = {token: i for i, token in enumerate((*_SPECIALS, *literals))}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        pattern = "|".join(re.escape(t) for t in sorted(literals, key=len, reverse=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        tokenizer.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            eos_token="<eos>",
            unk_token="<unk>",
            clean_up_tokenization_spaces=False,
            model_max_length=512,
        )

    def demonstrations(self, count: int, seed: int) -> Demonstrated:
        """Solutions, some of them wrong, to fresh problems that are never held out, whatever the
        sizes of the pools."""
        rng = random.Random(f"demonstrations-{seed}")
        weights = self.profile.LEVEL_WEIGHTS[: self.config.levels]
        levels = rng.choices(range(1, self.config.levels + 1), weights, k=count)
        prompts = (self.draw(level, rng, seen=None) for level in levels)
        solutions = [
            (prompt, self.profile.solution(prompt.problem, self.config, rng)) for prompt in prompts
        ]
        return Demonstrated(solutions, wrong_too=True)

    def prediction(self, prompt: Prompt, rng: random.Random, mixed: bool = False) -> str:
        """A demonstrated prediction on a problem, which knows nothing of the outcome; in the
        profile families with the field `mixed`, where that is wanted."""
        return self.profile.prediction(prompt.problem, rng, mixed)

    def write_prediction(self, prompt: Prompt, prediction: MetaPrediction) -> str:
        """The text of a given prediction on a problem."""
        return self.profile.write_prediction(prompt.problem, prediction)


def is_held_out(problem: str) -> bool:
    """True where the problem may only serve for validation, whatever the seed and the sizes."""
    return int(_digest(problem), 16) % _HELD_OUT_SHARE == 0


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def _answer(text: str) -> int | None:
    boxes = _BOX.findall(text)
    hedged = any(_integer(a) != _integer(b) for a, b in _JOINED_BOXES.findall(text))
    return _integer(boxes[-1]) if boxes and not hedged else None


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    return int(match[1]) if match else None
