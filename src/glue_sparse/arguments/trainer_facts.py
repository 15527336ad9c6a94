"""What the flags of transformers take and need, which its TrainingArguments do not say themselves."""

from glue_sparse.arguments.flags import Needs
from glue_sparse.writing.bounds import COUNT, NOT_NEGATIVE, POSITIVE, SEED, STEPS, Bounds

_BATCH = Bounds(1, 2**20)
_DECAY = Bounds(0, 1, is_below=True)
_BELOW_FLOAT32 = 1e38

BOUNDS: dict[str, Bounds] = {
    "per_device_train_batch_size": _BATCH, "per_device_eval_batch_size": _BATCH, "gradient_accumulation_steps": COUNT,
    "num_train_epochs": NOT_NEGATIVE, "max_steps": Bounds(1, also=(-1,)), "learning_rate": Bounds(0, _BELOW_FLOAT32),
    "warmup_steps": Bounds(0, is_share=True), "weight_decay": NOT_NEGATIVE, "adam_beta1": _DECAY, "adam_beta2": _DECAY,
    "adam_epsilon": POSITIVE, "max_grad_norm": Bounds(0, _BELOW_FLOAT32), "label_smoothing_factor": _DECAY,
    "neftune_noise_alpha": POSITIVE, "torch_empty_cache_steps": COUNT, "logging_steps": STEPS, "eval_steps": STEPS,
    "save_steps": STEPS, "eval_delay": NOT_NEGATIVE, "eval_accumulation_steps": COUNT, "save_total_limit": COUNT,
    "seed": SEED, "data_seed": SEED, "dataloader_num_workers": Bounds(0, 1024), "dataloader_prefetch_factor": COUNT,
    "ddp_bucket_cap_mb": COUNT, "ddp_timeout": COUNT, "local_rank": Bounds(-1),
}  # fmt: skip
"""Every number that transformers takes; a test finds the one that a new version brings."""

_SAVES: Needs = {"save_strategy": ("steps", "epoch", "best")}
_BEST: Needs = {"load_best_model_at_end": (True,), "save_strategy": ("best",),
                "lr_scheduler_type": ("reduce_lr_on_plateau", "greedy")}  # fmt: skip
_WORKERS: Needs = {"dataloader_num_workers": ()}
_RECOMPUTES: Needs = {"gradient_checkpointing": (True,), "activation_checkpointing": (True,)}
_HUB: Needs = {"push_to_hub": (True,)}
_TRACKIO: Needs = {"report_to": ("trackio", "all")}
_PROJECTS: Needs = {"report_to": ("trackio", "wandb", "all")}
ADAM = (
    "adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision",
    "adamw_torch_4bit", "adamw_torch_8bit", "adamw_8bit", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit",
    "ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit", "grokadamw", "schedule_free_radam",
    "schedule_free_adamw", "stable_adamw", "galore_adamw", "galore_adamw_8bit", "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise", "apollo_adamw", "apollo_adamw_layerwise",
)  # fmt: skip
"""Optimizers with Adam's means."""
LION = ("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit")
LOW_RANK = (
    "galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise", "apollo_adamw", "apollo_adamw_layerwise",
)  # fmt: skip
"""Optimizers that train some modules by matrices of low rank."""
WITH_WARMUP = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
)  # fmt: skip
"""Schedules of the learning rate that begin with a warmup."""

_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")

CHOICES: dict[str, tuple[str, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length"), "log_level": _LEVELS,
    "log_level_replica": _LEVELS, "include_for_metrics": ("inputs", "loss"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs", "lite"),
}  # fmt: skip
"""Words that transformers would look at too late, or not at all."""

OF = {"optim_args": "optim", "lr_scheduler_kwargs": "lr_scheduler_type"}
"""Whose arguments these are: a YAML's are for what the YAML names, and for nothing else that a user asks for."""

NEEDS: dict[str, Needs] = {
    "eval_steps": {"eval_strategy": ("steps",)}, "eval_delay": {"eval_strategy": ("steps", "epoch")},
    "save_steps": {"save_strategy": ("steps",)}, "save_total_limit": _SAVES, "save_only_model": _SAVES,
    "logging_steps": {"logging_strategy": ("steps",), "eval_strategy": ("steps",)},
    "load_best_model_at_end": _SAVES, "metric_for_best_model": _BEST, "greater_is_better": _BEST,
    "warmup_steps": {"lr_scheduler_type": WITH_WARMUP},
    "dataloader_prefetch_factor": _WORKERS, "dataloader_persistent_workers": _WORKERS,
    "dataloader_multiprocessing_context": _WORKERS, "gradient_checkpointing_kwargs": _RECOMPUTES,
    "activation_checkpointing_kwargs": _RECOMPUTES, "optim_target_modules": {"optim": LOW_RANK},
    **dict.fromkeys(("adam_beta1", "adam_beta2"), {"optim": (*ADAM, *LION)}), "adam_epsilon": {"optim": ADAM},
    "liger_kernel_config": {"use_liger_kernel": (True,)}, "fsdp_config": {"fsdp": ()},
    "length_column_name": {"train_sampling_strategy": ("group_by_length",)},
    "hub_model_id": _HUB, "hub_strategy": _HUB, "hub_token": _HUB, "hub_private_repo": _HUB, "hub_always_push": _HUB,
    "hub_revision": _HUB, "project": _PROJECTS, "trackio_space_id": _TRACKIO, "trackio_bucket_id": _TRACKIO,
    "trackio_static_space_id": _TRACKIO,
}  # fmt: skip
"""Flags that transformers would ignore with the values of others."""
