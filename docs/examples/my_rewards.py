"""Rewards of solutions, with the signature of TRL's `reward_funcs`."""

import asyncio
import re


def brevity(completions, completion_ids, tokens=100, **columns):
    """1 for an empty solution, falling to 0 at `tokens`."""
    return [max(0.0, 1 - len(ids) / tokens) for ids in completion_ids]


def boxed(completions, **columns):
    """1 where there is exactly one box."""
    return [float(text_of(one).count(r"\boxed{") == 1) for one in completions]


async def digits(completions, answer, **columns):
    """Share of the answer's digits that the last number has; None for an answer without digits."""

    async def judge(text, gold):
        await asyncio.sleep(0)  # here a model is asked
        wanted = re.sub(r"\D", "", gold)
        last = (re.findall(r"\d+", text) or [""])[-1]
        matching = sum(a == b for a, b in zip(last, wanted, strict=False))
        return matching / len(wanted) if wanted else None

    return await asyncio.gather(*map(judge, map(text_of, completions), answer))


def text_of(completion):
    """A model with a chat template gives lists of one message, any other model texts."""
    return completion if isinstance(completion, str) else completion[0]["content"]
