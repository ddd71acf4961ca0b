"""The function that the workers of `verifier` apply. Imports SymPy, unlike its caller."""

from masa.verifiers.math.equality import same_answer


def is_right(item: tuple[list[str], list[str], float]) -> bool:
    """A JSON item (accepted golds, boxes of the answer, tolerance) -> verdict."""
    golds, boxes, tolerance = item
    return bool(boxes) and all(
        any(same_answer(gold, box, tolerance) for gold in golds) for box in boxes
    )
