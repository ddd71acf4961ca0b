"""Memory and time of log-probs by chunks against whole logits, forward and backward.

Each way runs in a separate process and reports the peak memory of its first pass, without torch and
the hidden states, and the median time of later passes. The plain way computes no entropies, the
chunked one does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from process_memory import GIB, peak, resident

from masa.training.logprobs import head_logprobs

PASSES = 3
QUICK = {"tokens": 64, "vocabulary": 1000, "hidden": 32}


def whole(
    head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, None]:
    """Log-softmax of all logits at once."""
    logprobs = torch.log_softmax(head(hidden), -1)
    return logprobs.gather(-1, targets[:, None])[:, 0], None


def chunked(
    head: torch.nn.Linear, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The function of training."""
    return head_logprobs(head, hidden, targets, 1.0)


WAYS = {"plain": whole, "chunked": chunked}


def inputs(tokens: int, vocabulary: int, hidden_size: int, dtype: torch.dtype) -> tuple:
    torch.manual_seed(0)
    head = torch.nn.Linear(hidden_size, vocabulary, bias=False, dtype=dtype)
    hidden = torch.randn(tokens, hidden_size, dtype=dtype, requires_grad=True)
    return head, hidden, torch.randint(vocabulary, (tokens,)), torch.randn(tokens, dtype=dtype)


def measure(way: str, tokens: int, vocabulary: int, hidden_size: int) -> dict[str, float]:
    """Peak memory (GiB) of one forward and backward pass in this process, and median time (s) of
    some more."""
    head, hidden, targets, upstream = inputs(tokens, vocabulary, hidden_size, torch.float32)
    before = resident()
    gib, seconds = 0.0, []
    for index in range(1 + PASSES):
        head.weight.grad = hidden.grad = None
        started = time.perf_counter()
        logprobs, _ = WAYS[way](head, hidden, targets)
        (upstream @ logprobs).backward()
        if index == 0:
            # later passes would include memory that the allocator keeps
            gib = peak() - before
        else:
            seconds.append(time.perf_counter() - started)
    return {"gib": gib + head.weight.nbytes / GIB, "seconds": statistics.median(seconds)}


def available(meminfo: str) -> int:
    """Bytes available without swapping, by the text of /proc/meminfo, with cached file pages."""
    return 1024 * int(meminfo.split("MemAvailable:")[1].split()[0])


def gradient_error(vocabulary: int) -> float:
    """Largest relative error of the chunked gradients in float32 against the plain in float64."""
    results = []
    for dtype, way in ((torch.float32, chunked), (torch.float64, whole)):
        head, hidden, targets, _ = inputs(1000, vocabulary, 64, torch.float32)
        head, hidden = head.to(dtype), hidden.detach().to(dtype).requires_grad_()
        way(head, hidden, targets)[0].sum().backward()
        results.append((hidden.grad.double(), head.weight.grad.double()))
    return max(float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a smoke test: worthless figures")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.tokens, args.vocabulary, args.hidden)))
        return
    import record  # not above: its imports would be in the measured memory

    if args.quick:
        vars(args).update(QUICK)
    pieces = record.Pieces(parser, args, "Log-probs by chunks")
    if pieces.done(""):
        return
    with pieces.piece("", [0]) as report:
        tokens = args.tokens
        free = available(Path("/proc/meminfo").read_text())
        needed = 4 * args.vocabulary
        while tokens > 1 and needed * (3.2 * tokens + 2 * args.hidden) > free - 2 * GIB:
            tokens //= 2
        if tokens < args.tokens:
            report(f"- T {tokens}, not {args.tokens}: only {free / GIB:.1f} GiB are available")
        size = [f"--tokens={tokens}", f"--vocabulary={args.vocabulary}", f"--hidden={args.hidden}"]
        measured = {}
        for way in WAYS:
            command = [sys.executable, __file__, f"--way={way}", *size]
            process = subprocess.run(command, capture_output=True, text=True)
            if process.returncode:
                raise record.Failed(f"{way} failed:\n{process.stderr[-2000:]}")
            measured[way] = json.loads(process.stdout)
        whole_pass, chunked_pass = measured["plain"], measured["chunked"]
        report(
            f"- T {tokens} V {args.vocabulary} H {args.hidden} float32, "
            f"{torch.get_num_threads()} threads, time: median of {PASSES} after one: "
            f"plain {whole_pass['gib']:.2f} GiB {whole_pass['seconds']:.1f} s, "
            f"chunked {chunked_pass['gib']:.2f} GiB {chunked_pass['seconds']:.1f} s: "
            f"1/{whole_pass['gib'] / chunked_pass['gib']:.1f} of the memory "
            f"at {chunked_pass['seconds'] / whole_pass['seconds']:.2f} times the time"
        )
        error = gradient_error(args.vocabulary)
        report(f"- relative error of the gradients against float64: {error:.1e}")
        report.data = {"tokens": tokens, "ways": measured, "gradient error": error}
    pieces.end()


if __name__ == "__main__":
    main()
