"""transformers: language models with their own loss. Every type that the library lists for a task, made small."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tests.zoos.specimen import Specimen
from tests.zoos.transformers_small import VOCABULARY, specimen

TASKS = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM")
LENGTH = 16
LENGTHS = {"big_bird": 64, "bigbird_pegasus": 64, "perceiver": 64}
# What the general rules of `small` get wrong for a type.
MLA = {"num_key_value_heads": 4}  # latent attention: as many keys as queries
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
HYBRID = {"layers_block_type": ["mamba", "hybrid"] * 2, "num_hidden_layers": 4, "attention_hidden_size": 64}
OVERRIDES: dict[str, dict[str, Any]] = {
    "axk1": MLA,
    "axk2": MLA,
    "bailing_hybrid": {"use_cache": False},
    "bamba": {"attn_layer_indices": [1]},
    "big_bird": {"block_size": 4, "num_random_blocks": 2},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 2},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "deepseek_v2": {**MLA, "num_experts_per_tok": 2},
    "deepseek_v3": MLA,
    "deepseek_v32": MLA,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": 0, "mask_token_id": 3},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm4_moe_lite": MLA,
    "glm_moe_dsa": MLA,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": ROPE,
    "hunyuan_v1_moe": ROPE,
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "expert_layer_offset": 1, "expert_layer_period": 2},
    "lfm3": {"use_cache": False},
    "longcat_flash": MLA,
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "perceiver": {"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2, "num_cross_attention_heads": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_shape": [4, 4],
        "axial_pos_embds_dim": [8, 24],
        "attn_layers": ["local", "lsh"],
        "hash_seed": 0,
    },
    "xlstm": {"chunk_size": 16},
    "zamba": HYBRID,
    "zamba2": {**HYBRID, "mamba_headdim": 8, "n_mamba_heads": 8},
}
LEFT_OUT = frozenset({"git", "blt", "dbrx"})  # needs images; cannot be made small


def specimens() -> Iterator[Specimen]:
    """All of them, each class once."""
    from transformers.models.auto import modeling_auto

    kinds: dict[str, str] = {}
    for task in TASKS:
        for kind, names in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES").items():
            if kind not in LEFT_OUT:  # the last type wins: it is that of the text part, where there is one
                kinds[names if isinstance(names, str) else names[0]] = kind
    for name, kind in kinds.items():
        feed = functools.partial(_sentences, name, LENGTHS.get(kind, LENGTH))
        yield specimen(name, kind, feed, **OVERRIDES.get(kind, {}))


def _sentences(name: str, length: int) -> dict[str, Tensor]:
    """Two random sentences, the second of them padded, that are their own labels."""
    import transformers

    ids = torch.randint(3, VOCABULARY, (2, length))
    mask = torch.ones_like(ids)
    mask[1, -3:] = 0
    accepted: Callable[..., Any] = getattr(transformers, name).forward
    given = {"input_ids": ids, "attention_mask": mask, "labels": ids.clone()}
    return {key: value for key, value in given.items() if key in inspect.signature(accepted).parameters}
