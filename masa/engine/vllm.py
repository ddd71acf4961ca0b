"""The vLLM engine, in this process: the same code on a CPU and on a GPU beside the policy.

This is the only file that imports vLLM. Each workaround has its reason beside it.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.distributed as dist

from masa.errors import ConfigError
from masa.types import Completion, Request


class VllmEngine:
    """In-process vLLM engine that takes its weights from the policy.

    Args:
        model_path: folder with the Hugging Face config; weights are not read from it.
        eos_token_ids: tokens that end a completion.
        max_model_len: largest prompt plus completion (tokens).
        temperature: sampling temperature; top-p and top-k are off.
        dtype: dtype of the weights in the engine.
        kv_cache_gib: size of the KV cache on a CPU (GiB).
        gpu_memory_utilization: share of GPU memory for the engine.
        max_num_seqs: sequences decoded at once.
        enforce_eager: no graph capture; always so on a CPU.
        threads: CPU threads while generating. One is fastest below some 10M parameters; more of
            them wait for each other at every small operator.
        tensor_parallel_size: consecutive ranks that share one engine; each of them builds one part
            and makes the same calls.
        trust_remote_code: run the code that comes with the model.
        lora_rank: of the policy's adapter, which the engine then computes beside the weights and
            which is all that a weight sync sends; null: the weights, with the adapter merged.
    """

    def __init__(
        self,
        model_path: Path,
        eos_token_ids: Sequence[int],
        max_model_len: int,
        temperature: float = 1.0,
        dtype: str = "float32",
        kv_cache_gib: int = 1,
        gpu_memory_utilization: float = 0.4,
        max_num_seqs: int = 256,
        enforce_eager: bool = False,
        threads: int = 1,
        tensor_parallel_size: int = 1,
        trust_remote_code: bool = False,
        lora_rank: int | None = None,
    ) -> None:
        self.on_cpu = not torch.cuda.is_available()
        self.shares_process_group = dist.is_initialized() and dist.get_world_size() > 1
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
        if self.on_cpu:
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
            _never_compile()
        elif dtype == "float32":
            # else Triton multiplies with 10 bits of mantissa, and log-probs are not the policy's
            os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")
        logging.getLogger("vllm").setLevel(logging.INFO)
        options: dict[str, Any] = {}
        if self.on_cpu:
            _require_known_heads(model_path, trust_remote_code)
            options |= _whole_prompts(max_model_len)
        if self.shares_process_group:
            options |= _beside_the_policy(tensor_parallel_size)
        if lora_rank is not None:
            if not self.on_cpu and dtype == "float32":
                raise ConfigError(
                    "engine.lora_rank: on a GPU vLLM computes adapters in bfloat16 or float16: set "
                    "engine.dtype=bfloat16, or engine.lora_rank=null to merge the adapter"
                )
            options |= _one_adapter(lora_rank)
        with _torch_threads(threads):
            from vllm import LLM, SamplingParams

            if self.on_cpu:
                _never_pack_the_head()
            self._sampling_params = SamplingParams
            # vLLM collects several times as it starts, and freezes all that is there at the end
            gc.collect()
            gc.freeze()
            self.llm = LLM(
                model=str(model_path),
                skip_tokenizer_init=True,
                load_format="dummy",
                trust_remote_code=trust_remote_code,
                dtype=dtype,  # type: ignore[arg-type]
                max_model_len=max_model_len,
                max_num_seqs=max_num_seqs,
                enforce_eager=enforce_eager or self.on_cpu,
                gpu_memory_utilization=gpu_memory_utilization,
                enable_sleep_mode=not self.on_cpu,
                # the log-probs of the distribution that was sampled from
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                disable_log_stats=True,
                seed=0,
                **options,
            )
        self.eos_token_ids = list(eos_token_ids)
        self.temperature = temperature
        self.threads = threads
        self.lora_rank = lora_rank
        self._adapter: Any = None
        self._cache_sleeps = False
        self.version = -1

    @staticmethod
    def check_available() -> None:
        """Raise ConfigError where vLLM is not installed, with what to do about it."""
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                f"engine=vllm: vLLM is not installed (it has no build for {platform.system()}, "
                "unless that is Linux: run `make setup`); use engine=hf"
            )

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """See `Engine.generate`."""
        prompts: list[Any] = []
        params = []
        for request in requests:
            for seed in request.seeds:
                prompts.append({"prompt_token_ids": request.prompt_ids.tolist()})
                params.append(
                    self._sampling_params(
                        temperature=self.temperature,
                        top_p=1.0,
                        top_k=0,
                        max_tokens=request.max_tokens,
                        seed=seed,
                        stop_token_ids=self.eos_token_ids,
                        # else those of the model's generation config end it as well
                        ignore_eos=True,
                        logprobs=0,
                        flat_logprobs=True,
                        detokenize=False,
                    )
                )
        if not prompts:
            return [[] for _ in requests]
        if self._cache_sleeps:
            self.llm.wake_up(tags=["kv_cache"])
            self._cache_sleeps = False
        with _torch_threads(self.threads):
            outputs = iter(self._sampled(prompts, params))
        return [[self._completion(next(outputs)) for _ in request.seeds] for request in requests]

    def _sampled(self, prompts: Any, params: Any) -> Any:
        return self.llm.generate(prompts, params, use_tqdm=False, lora_request=self._adapter)

    def load_weights(self, named: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """See `Engine.load_weights`."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": named})
        self.llm.reset_prefix_cache()
        self.version = version

    def load_adapter(
        self, config: Any, named: Iterator[tuple[str, torch.Tensor]], version: int
    ) -> None:
        """See `Engine.load_adapter`."""
        from safetensors.torch import save_file
        from vllm.lora.request import LoRARequest

        # vLLM takes adapters from files alone
        with tempfile.TemporaryDirectory() as folder:
            config.save_pretrained(folder)
            tensors = {name: tensor.cpu().contiguous() for name, tensor in named}
            save_file(tensors, Path(folder) / "adapter_model.safetensors")
            self.llm.llm_engine.add_lora(LoRARequest("policy", 1, folder, load_inplace=True))
        # it is in the engine from now on, whatever the path
        self._adapter = LoRARequest("policy", 1, "in the engine")
        self.llm.reset_prefix_cache()
        self.version = version

    def sleep(self) -> None:
        """See `Engine.sleep`; on a CPU there is nothing to free."""
        if not self.on_cpu:
            # weights that come anew need no copy in the CPU's memory; an adapter's base comes once
            self.llm.sleep(level=2 if self.lora_rank is None else 1)
            self._cache_sleeps = True

    def wake(self) -> None:
        """See `Engine.wake`; the KV cache, whose room a weight sync may need, wakes after it."""
        if self._cache_sleeps:
            self.llm.wake_up(tags=["weights"])

    def close(self) -> None:
        """See `Engine.close`: another engine may follow in this process (a multirun)."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        if not self.shares_process_group:
            cleanup_dist_env_and_memory()

    def _completion(self, output: Any) -> Completion:
        sampled = output.outputs[0]
        return Completion(
            token_ids=np.asarray(sampled.token_ids, np.int32),
            logprobs=np.asarray(sampled.logprobs.logprobs, np.float32),
            finished=sampled.finish_reason == "stop",
            version=self.version,
        )


def _require_known_heads(model_path: Path, trust_remote_code: bool) -> None:
    """Raise ConfigError for a head size without a CPU kernel.

    vLLM itself fails only when the first request runs.
    """
    from transformers import AutoConfig
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size not in supported:
        raise ConfigError(
            f"engine=vllm: on a CPU heads of {size} are not supported, only "
            f"{', '.join(map(str, supported))}: use engine=hf"
        )


def _never_compile() -> None:
    """Turn torch.compile off: on a CPU it compiles two sampler helpers for 17 s and saves nothing.

    TORCH_COMPILE_DISABLE has no effect here: Lightning or peft has imported torch._dynamo already.
    """
    import torch._dynamo.config

    torch._dynamo.config.disable = True


def _never_pack_the_head() -> None:
    """Let the output head read its weights as they are.

    vLLM packs weights for a CPU's matrix kernels when they are loaded; a weight sync packs those of
    the layers anew, but a head tied to the embedding would go on with the old ones, without an
    error.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    def process_weights_after_loading(self: Any, layer: torch.nn.Module) -> None:
        layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]

    UnquantizedEmbeddingMethod.process_weights_after_loading = (  # type: ignore[method-assign]
        process_weights_after_loading
    )


def _whole_prompts(max_model_len: int) -> dict[str, Any]:
    """Options that keep each prompt in one step.

    A prompt split over two steps draws a token that is discarded, and vLLM then rewinds the
    request's random generator, which PyTorch's CPU generator cannot do.
    """
    return {
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(16384, max_model_len),
    }


def _beside_the_policy(tensor_parallel_size: int) -> dict[str, Any]:
    """Options that let vLLM join the policy's process group.

    vLLM reads RANK and LOCAL_RANK, which not every launcher sets.
    """
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    os.environ["RANK"] = str(dist.get_rank())
    os.environ.setdefault("LOCAL_RANK", str(device))
    return {
        "distributed_executor_backend": "external_launcher",
        "tensor_parallel_size": tensor_parallel_size,
    }


def _one_adapter(rank: int) -> dict[str, Any]:
    """Options that reserve room for an adapter; vLLM has some ranks, and pads the others."""
    from vllm.config.lora import MaxLoRARanks

    ranks = [known for known in get_args(MaxLoRARanks) if known >= rank]
    if not ranks:
        raise ConfigError(f"engine.lora_rank is {rank}, vLLM has {get_args(MaxLoRARanks)[-1]}")
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": ranks[0]}


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Run with `count` CPU threads, and undo what vLLM's CPU worker does to the whole process.

    The worker lowers torch's thread count, forbids changing it and pins the process to cores. All
    of these would slow the policy's training down.
    """
    before, setter = torch.get_num_threads(), torch.set_num_threads
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    setter(count)
    try:
        yield
    finally:
        torch.set_num_threads = setter
        torch.set_num_threads(before)
        if cores is not None:
            os.sched_setaffinity(0, cores)
