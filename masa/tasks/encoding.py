"""Texts to token ids, where text of a data set or a model never becomes a special token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from masa.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Marks = Mapping[str, str]
"""Placeholder characters of a foreign text -> the special tokens that they stand for."""


class Encoder:
    """A tokenizer that reads special tokens in templates and not in foreign text.

    `<|im_start|>` in a problem is split like any other word; in a template it is the special token.
    A text without such words has the ids of the tokenizer itself.

    Args:
        tokenizer: fast or slow.
        allow_special_tokens: read special tokens in foreign text as well.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, allow_special_tokens: bool) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        self._special = {token.content: i for i, token in added if token.special}
        names = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._allowed = allow_special_tokens
        self._renamed: tuple[Mapping[str, str], Tokenizer] | None = None

    def protect(self, texts: Sequence[str]) -> tuple[list[str], Marks]:
        """Foreign texts with placeholders for special tokens, and the placeholders."""
        all_texts = "".join(texts)
        special = {} if self._allowed else dict.fromkeys(self._pattern.findall(all_texts))
        marks = dict(zip(special, _unused(all_texts, 0x100000), strict=False))
        protected = [self._pattern.sub(lambda m: marks.get(m[0], m[0]), text) for text in texts]
        return protected, {mark: token for token, mark in marks.items()}

    def encode(self, text: str, marks: Marks) -> tuple[int, ...]:
        """Token ids of a text that has the marks of `protect`.

        Raises:
            ConfigError: the tokenizer has special tokens in its vocabulary of words.
        """
        # the token of unknown words may be anywhere
        special = set(self._special.values()) - {self.tokenizer.unk_token_id}
        expected = [self._special[name] for name in self._pattern.findall(text)]
        expected = [i for i in expected if i in special]
        if not marks:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            # normalisation can make a special token of other letters, as of full-width brackets
            if self._allowed or sum(i in special for i in ids) <= len(expected):
                return tuple(ids)
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        ids = self._split(text, marks) if backend is None else self._fast(backend, text, marks)
        if [i for i in ids if i in special] != expected:
            raise ConfigError(
                f"the tokenizer cannot distinguish {', '.join(marks.values()) or text[:80]!r} in a "
                "problem's text from its special tokens: take such problems out, or set "
                "allow_special_tokens=true"
            )
        return tuple(ids)

    def encode_foreign(self, text: str) -> tuple[int, ...]:
        """Token ids of a text without a template."""
        (text,), marks = self.protect([text])
        return self.encode(text, marks)

    def _fast(self, backend: Tokenizer, text: str, marks: Marks) -> list[int]:
        """Encode by a copy of the tokenizer in which the special tokens have other names."""
        unused = islice(_unused(text, 0xF0000), len(self._special))
        names = dict(zip(self._special, unused, strict=True))
        if self._renamed is None or self._renamed[0] != names:
            self._renamed = names, _with_renamed_tokens(backend, names)
        text = _without_marks(self._pattern.sub(lambda match: names[match[0]], text), marks)
        return self._renamed[1].encode(text, add_special_tokens=False).ids

    def _split(self, text: str, marks: Marks) -> list[int]:
        """Encode piece by piece, as a slow tokenizer splits a text at its special tokens."""
        ids: list[int] = []
        for piece in re.split(f"({self._pattern.pattern})", text):
            if piece in self._special:
                ids.append(self._special[piece])
            elif piece:
                piece = _without_marks(piece, marks)
                split = self._pattern.search(piece) is not None
                ids += self.tokenizer(piece, add_special_tokens=False, split_special_tokens=split)[
                    "input_ids"
                ]
        return ids


def _with_renamed_tokens(backend: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    """A copy with other names for some tokens, with the same ids; the old names are plain text."""
    state = json.loads(backend.to_str())
    state["added_tokens"] = [
        token | {"content": names.get(token["content"], token["content"])}
        for token in state["added_tokens"]
    ]
    model = state["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(word, word): i for word, i in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(word, word), score] for word, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [
            pair for pair in model["merges"] if not {*pair, "".join(pair)} & names.keys()
        ]
    copy = Tokenizer.from_str(json.dumps(state))
    copy.no_truncation()
    copy.no_padding()
    return copy


def _without_marks(text: str, marks: Marks) -> str:
    for mark, token in marks.items():
        text = text.replace(mark, token)
    return text


def _unused(text: str, first: int) -> Iterator[str]:
    """Private-use characters that are not in the text."""
    return (char for char in map(chr, range(first, first + 0xFFFE)) if char not in text)
