"""An environment of the verifiers package: spell words backwards."""

import random
from difflib import SequenceMatcher

import verifiers as vf
from datasets import Dataset


def similarity(parser: vf.Parser, completion: vf.Messages, answer: str) -> float:
    """Share of the letters that are right and in order."""
    return SequenceMatcher(None, parser.parse_answer(completion) or "", answer).ratio()


def load_environment(size: int = 400, letters: int = 8, seed: int = 0) -> vf.Environment:
    """`size` random words of `letters` letters."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefgh", k=letters)) for _ in range(size)]
    parser = vf.XMLParser(["answer"])
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list([{"question": word, "answer": word[::-1]} for word in words]),
        system_prompt="Spell the word backwards, between <answer> and </answer>.",
        parser=parser,
        rubric=vf.Rubric(
            funcs=[similarity, parser.get_format_reward_func()], weights=[0.8, 0.2], parser=parser
        ),
    )
