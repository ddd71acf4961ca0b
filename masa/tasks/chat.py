"""Chat templates, and the tokens that begin a prompt and end a completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from masa.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DATE = "26 Jul 2024"
_QUESTION = "a question of the user"
_ANSWER = "an answer of the assistant"


def chat_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` as a user's message, up to the start of the assistant's turn.

    Raises:
        ConfigError: the template fails.
    """
    return _render(tokenizer, [{"role": "user", "content": text}], add_generation_prompt=True)


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ConfigError where there is a chat template that fails or leaves messages out."""
    if tokenizer.chat_template:
        _end_of_turn(tokenizer)
        if _QUESTION not in chat_prompt(tokenizer, _QUESTION):
            raise _template_error(tokenizer, "leaves out the user's message")


def leading_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The beginning-of-sequence token, where the tokenizer itself puts one before a text."""
    ids = tokenizer("a")["input_ids"]
    return int(ids[0]) if ids and ids[0] == tokenizer.bos_token_id else None


def ending_tokens(
    tokenizer: PreTrainedTokenizerBase, generation: Sequence[int] = ()
) -> tuple[int, ...]:
    """Tokens that end a completion; the first is the one for texts of our own.

    Args:
        tokenizer: its chat template has the token after an assistant's message; without a template
            it is the end-of-sequence token.
        generation: `eos_token_id` of the model's generation config.

    Raises:
        ValueError: the tokenizer has no end-of-sequence token.
        ConfigError: the template fails.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-sequence token")
    last = [_end_of_turn(tokenizer)] if tokenizer.chat_template else []
    # a dict keeps the order
    return tuple(dict.fromkeys([*last, int(tokenizer.eos_token_id), *generation]))


def _end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
    _, before, ending = _render(tokenizer, messages).rpartition(_ANSWER)
    if not before:
        return int(tokenizer.eos_token_id)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = tokenizer(ending, add_special_tokens=False)["input_ids"]
    return int(next((i for i in ids if i in special), tokenizer.eos_token_id))


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    add_generation_prompt: bool = False,
) -> str:
    try:
        text = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            # some templates contain today's date, and a resumed run would have other prompts
            date_string=_DATE,
        )
    # a template is a program, which may raise anything
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise _template_error(tokenizer, f"fails ({reason[:200]})") from error
    return str(text)


def _template_error(tokenizer: PreTrainedTokenizerBase, problem: str) -> ConfigError:
    return ConfigError(
        f"{tokenizer.name_or_path}: the tokenizer's chat template {problem}: correct its "
        "chat_template, or remove it for plain prompts"
    )
