"""Token ids to texts, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer, decoders

from masa.types import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Decoder:
    """Texts without special tokens, each as the tokenizer's own `decode` gives it.

    Args:
        tokenizer: fast or slow.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def texts(self, sequences: Sequence[TokenIds]) -> list[str]:
        """One text per sequence."""
        if self._table is not None:
            return list(map(self._table.text, sequences))
        lists = [ids.tolist() for ids in sequences]
        if self._backend is not None:
            return list(self._backend.decode_batch(lists, skip_special_tokens=True))
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return [str(self.tokenizer.decode(ids, **options)) for ids in lists]

    @cached_property
    def _backend(self) -> Tokenizer | None:
        """The tokenizer of the tokenizers library; None where transformers decodes without it."""
        from transformers import TokenizersBackend

        kind = type(self.tokenizer)
        if not isinstance(self.tokenizer, TokenizersBackend):
            return None
        plain = TokenizersBackend.decode, TokenizersBackend._decode
        return self.tokenizer.backend_tokenizer if (kind.decode, kind._decode) == plain else None

    @cached_property
    def _table(self) -> _ByteTable | None:
        """For byte-level tokenizers (GPT-2, Llama 3, Qwen), None elsewhere."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        backend = self._backend
        if backend is None or not isinstance(backend.decoder, decoders.ByteLevel):
            return None
        ids = range(max(backend.get_vocab(with_added_tokens=True).values()) + 1)
        alone = backend.decode_batch([[i] for i in ids], skip_special_tokens=True)
        byte_of = {char: byte for byte, char in bytes_to_unicode().items()}
        tokens = []
        for i, text in zip(ids, alone, strict=True):
            # special tokens and gaps in the vocabulary have no text
            token = (backend.id_to_token(i) if text else None) or ""
            known = all(char in byte_of for char in token)
            tokens.append(bytes(map(byte_of.__getitem__, token)) if known else token.encode())
        return _ByteTable(tokens)


class _ByteTable:
    """Texts that are the bytes of their tokens end to end.

    The library goes from characters to bytes for each token of each text anew.

    Args:
        tokens: bytes of each token id.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        # the last one is for ids beyond the vocabulary, which a model's output can have and which
        # the library leaves out
        self.lengths = np.array([*map(len, tokens), 0])  # [V + 1]
        self.starts = self.lengths.cumsum() - self.lengths
        self.bytes = np.frombuffer(b"".join(tokens), np.uint8)

    def text(self, token_ids: TokenIds) -> str:
        """Text of one sequence; bytes that are no UTF-8 become U+FFFD."""
        lengths = self.lengths.take(token_ids, mode="clip")
        shifts = self.starts.take(token_ids, mode="clip") - lengths.cumsum() + lengths
        places = shifts.repeat(lengths)
        places += np.arange(len(places))
        return self.bytes.take(places).tobytes().decode("utf-8", "replace")
