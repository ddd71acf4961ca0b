"""Settings that change no number of a run but in its last digits."""

SECONDS = ("task.reward_seconds", "task.score_seconds")
"""Time limits, after which a run ends."""
KEPT = (
    *("trainer.checkpoint_every", "trainer.keep_best", "trainer.log_every"),
    *("trainer.record_tokens", "trainer.report", "trainer.show_every"),
)
"""What a run keeps and prints."""
LAYOUT = (
    *("trainer.accelerator", "trainer.packing", "trainer.micro_batch_tokens"),
    *("trainer.check_syncs", "trainer.logprob_tolerance", "trainer.logprob_mean_tolerance"),
    "trainer.max_nonfinite_updates",
    *KEPT,
    *SECONDS,
)
"""They lay work out, save or check it."""
