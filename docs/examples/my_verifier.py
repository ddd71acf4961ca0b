"""A verifier: the last box must have the gold answer, letter by letter."""

from masa.verifiers.extract import extract_box


def exact(answer: str, response: str) -> bool:
    """Text alone counts: 0.5 is not 1/2."""
    return extract_box(response) == answer
