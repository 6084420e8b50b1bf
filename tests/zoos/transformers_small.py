"""transformers: tiny configurations made in code, for any type of model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from tests.zoos.specimen import Specimen

LARGEST = 15_000_000
VOCABULARY = 99
HIDDEN = 32

_SIZES: dict[int, str] = {
    1: """
        n_group topk_group first_k_dense_replace mamba_n_groups n_groups first_last_k
    """,
    2: """
        num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers
        num_decoder_layers num_key_value_heads num_kv_heads num_experts_per_tok num_local_experts_per_tok
        encoder_num_layers decoder_num_layers encoder_num_hidden_layers decoder_num_hidden_layers moe_topk
        num_hidden_groups n_shared_heads expert_capacity moe_top_k num_codevector_groups num_experts_per_token
        num_global_key_value_heads swa_num_key_value_heads
    """,
    3: "conv_kernel_size",
    4: """
        num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads
        num_local_experts num_experts n_routed_experts moe_num_experts encoder_num_attention_heads
        decoder_num_attention_heads num_mem_heads mamba_n_heads relative_attention_num_buckets mamba_num_heads
        swa_num_attention_heads linear_num_value_heads linear_num_key_heads
    """,
    8: """
        head_dim d_kv d_head kv_channels qk_rope_head_dim v_head_dim qk_nope_head_dim kv_lora_rank
        attention_head_dim global_head_dim state_size mamba_d_state ssm_state_size time_step_rank
        linear_key_head_dim linear_value_head_dim swa_head_dim window_size attention_window index_head_dim
        patch_size rotary_dim swa_v_head_dim
    """,
    16: "mamba_d_head",
    HIDDEN: """
        hidden_size d_model n_embd dim embedding_size lru_width projection_dim embed_dim emb_dim
        attention_hidden_size moe_intermediate_size shared_expert_intermediate_size image_size encoder_hidden_size
        decoder_hidden_size q_lora_rank word_embed_proj_dim true_hidden_size intra_bottleneck_size
        hidden_size_per_layer_input backbone_dim output_hidden_size codevector_dim proj_codevector_dim
        classifier_proj_size embedding_dim text_embed_dim d_embed cross_attention_hidden_size sliding_window n_ctx
        decoder_embed_dim moe_shared_expert_intermediate_size router_hidden_size
    """,
    2 * HIDDEN: """
        intermediate_size ffn_dim d_ff d_inner encoder_ffn_dim decoder_ffn_dim hidden_dim n_inner ffn_hidden_size
        max_position_embeddings n_positions max_seq_len max_sequence_length encoder_intermediate_size
        decoder_intermediate_size max_source_positions max_target_positions feed_forward_size
        dense_intermediate_size attention_intermediate_size max_encoder_position_embeddings
        max_decoder_position_embeddings expert_ffn_hidden_size encoder_intermediate_dim
    """,
    VOCABULARY: """
        vocab_size type_vocab_size n_words vocab_size_per_layer_input encoder_vocab_size
    """,
}
SMALL = {name: size for size, names in _SIZES.items() for name in names.split()}
_STAGES = {"depths": 1, "encoder_depths": 1, "num_stages_layers": 1, "hidden_sizes": 16, "encoder_hidden_sizes": 16}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "sep_token_id": 2}


def small(kind: str, **overrides: Any) -> Any:
    """A configuration of type `kind` in which every known size is small, parts of it included.

    Args:
        kind: transformers' name of the type, such as ``gpt2``.
        overrides: values of its own; for a part, a mapping of values.
    """
    from transformers import CONFIG_MAPPING

    return _shrunk(CONFIG_MAPPING[kind], overrides)


def specimen(name: str, kind: str, feed: Callable[[], dict[str, Any]], **overrides: Any) -> Specimen:
    """A model of class `name`, with a configuration of type `kind`, called with the keywords that `feed` makes."""
    return Specimen(
        "transformers",
        name,
        lambda: model_of(name, small(kind, **overrides)),
        lambda: ((), feed()),
        simpler=Plain,
    )


def model_of(name: str, config: Any) -> nn.Module:
    """A model of transformers' class `name` with random weights.

    Raises:
        ValueError: the configuration is not small after all.
    """
    import transformers

    cls = getattr(transformers, name)
    with torch.device("meta"):
        entries = sum(p.numel() for p in cls(copy.deepcopy(config)).parameters())
    if entries > LARGEST:
        raise ValueError(f"{name} has {entries:,} parameter entries, more than {LARGEST:,}")
    model: nn.Module = cls(config)
    return model


class Plain(nn.Module):
    """A model without a cache of keys and values, that returns a plain dictionary.

    The library's own output classes hold every tensor twice, as an entry and as an attribute.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            if hasattr(config := getattr(module, "config", None), "use_cache"):
                config.use_cache = False

    def forward(self, **kwargs: Any) -> dict[str, Any]:
        return dict(self.model(**kwargs))


def _shrunk(cls: Any, overrides: Mapping[str, Any]) -> Any:
    default = cls()
    given: dict[str, Any] = {k: v for k, v in SMALL.items() if isinstance(_own(default, k), int)}
    given |= {k: [v] * len(_own(default, k)) for k, v in _STAGES.items() if isinstance(_own(default, k), (list, tuple))}
    given |= {k: v for k, v in _TOKENS.items() if isinstance(_own(default, k), (int, list))}
    if getattr(default, "is_encoder_decoder", False):
        given["decoder_start_token_id"] = _TOKENS["decoder_start_token_id"]
    parts = getattr(cls, "sub_configs", {})
    for part in parts:
        inner = _own(default, part)
        if hasattr(inner, "to_dict"):
            own = overrides.get(part, {})
            given[part] = _shrunk(type(inner), own) if isinstance(own, Mapping) else own
    return cls(**{**given, **{k: v for k, v in overrides.items() if k not in parts or k not in given}})


def _own(config: Any, name: str) -> Any:
    """An entry of a configuration; None if it has none, computes it, or has another for every layer."""
    if isinstance(getattr(type(config), name, None), property):
        return None
    try:
        return getattr(config, name, None)
    except Exception:
        return None
