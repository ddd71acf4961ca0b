"""Peak memory of an update of two micro-batches: `measure_update.py FOLDER TOKENS CHECKPOINTING
PRECISION`.

Prints bytes above what the process held before it loaded the policy.
"""

import sys
from pathlib import Path

import torch
from memory import peak, resident

from masa.config import OptimizerConfig
from masa.training.logprobs import token_logprobs
from masa.training.models import HubModel
from masa.training.optimizer import build_adamw
from masa.types import MicroBatch

folder, tokens, checkpointing = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
precision = sys.argv[4]
torch.set_num_threads(1)
before = resident()

policy = HubModel(str(folder), gradient_checkpointing=checkpointing).load(folder).train()
optimizer = build_adamw(policy.parameters(), OptimizerConfig(lr=1e-5))
one = torch.ones(1, tokens)
batch = MicroBatch(
    input_ids=torch.randint(0, 1000, (1, tokens)),
    attention_mask=one.long(),
    position_ids=torch.arange(tokens)[None] % 512,
    behaviour_logprobs=-one,
    advantages=one,
    weights={"solution": one / tokens, "meta": 0 * one, "bc": 0 * one},
)
# the second has the optimizer's state, and gradients of its first micro-batch
for micro_batches in (1, 2):
    for _ in range(micro_batches):
        with torch.autocast(
            "cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False
        ):
            logprobs, _ = token_logprobs(policy, batch, 1.0)
            loss = -logprobs.mean()
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(peak() - before)
