"""A small config for each model type that transformers can build: widths of 32, two layers, 320 tokens."""
import inspect
import re
from dataclasses import fields, is_dataclass

VOCAB = 320  # more rows than the tokenizer has tokens: a padded vocabulary
LONGEST = 64
SIZES = {
    32:
        'hidden_size d_model n_embd emb_dim dim embedding_size word_embed_proj_dim d_inner '
        'intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner dff feed_forward_size '
        'hidden_dim attention_hidden_size moe_intermediate_size shared_expert_intermediate_size '
        'expert_ffn_dim entity_emb_size dim_ff lru_width output_dim output_embedding_size '
        'ffn_hidden_size expert_ffn_hidden_size moe_shared_expert_intermediate_size '
        'dense_intermediate_size d_latents embedding_dim shared_intermediate_size vocab_embedding_dim '
        'embed_dim proj_dim projection_dim encoder_hidden_size ple_embed_dim shape_embed_dim '
        'pronunciation_embed_dim mm_embed_dim audio_embed_dim nemo_conv_channels ext_pw_out_channel '
        'conv_hidden_size',
    16:
        'head_dim d_kv attention_head_size v_head_dim q_lora_rank kv_lora_rank qk_rope_head_dim '
        'qk_nope_head_dim index_head_dim linear_key_head_dim linear_value_head_dim global_head_dim '
        'o_lora_rank swa_head_dim hidden_size_per_layer_input laurel_rank router_hidden_size '
        'num_mel_bins hc_lowrank adapter_rank max_ast_length image_size',
    8:
        'patch_size mamba_d_state chunk_size mamba_chunk_size state_size ssm_state_size mamba_head_dim '
        'rotary_dim',
    2:
        'num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers '
        'num_attention_heads n_head n_heads encoder_attention_heads decoder_attention_heads num_heads '
        'num_encoder_layers num_decoder_layers num_key_value_heads num_experts_per_tok '
        'num_experts_per_token moe_topk index_n_heads n_group topk_group linear_num_key_heads '
        'linear_num_value_heads swa_num_attention_heads swa_num_key_value_heads num_blocks '
        'num_self_attends_per_block num_self_attention_heads num_cross_attention_heads num_expert_group '
        'moe_k depth num_global_key_value_heads num_linear_attention_heads o_groups mamba_num_heads '
        'top_k_experts',
    4:
        'num_experts num_local_experts n_routed_experts moe_num_experts zero_expert_num num_latents',
    LONGEST:
        'index_topk max_position_embeddings n_positions max_seq_len max_source_positions '
        'max_target_positions max_encoder_position_embeddings '
        'max_decoder_position_embeddings sliding_window n_ctx',
    VOCAB:
        'vocab_size text_vocab_size decoder_vocab_size vocab_size_per_layer_input entity_vocab_size '
        'audio_vocab_size pronunciation_vocab_size shape_vocab_size encoder_hash_byte_group_vocab',
}
SMALL = {name: size for size, names in SIZES.items() for name in names.split()}
LINEAR = dict(layer_types=['linear_attention', 'full_attention'])
MAMBA = dict(mamba_n_heads=4, mamba_d_head=16, num_hidden_layers=2)
# what the sizes above do not fit, with the reason where it is not the number of layers
OTHER = {
    'axk1': dict(n_group=1, topk_group=1),
    'cohere_compass_text': dict(rope_parameters=dict(full_attention=dict(
        rope_type='default', rope_theta=1e4, mrope_section=[4, 2, 2]))),
    'dbrx': dict(attn_config=dict(rope_theta=1e4, clip_qkv=8.0)),
    'dots1': dict(n_shared_experts=1, n_group=1, topk_group=1, num_experts_per_tok=2),
    'dots3_note': dict(text_config=dict(per_layer_config=None)),
    'encoder-decoder': {},
    'gemma3n_text': dict(num_kv_shared_layers=0, layer_types=['sliding_attention', 'full_attention'],
                         activation_sparsity_pattern=[0., 0.]),
    'gemma4_assistant': dict(text_config=dict(hidden_size_per_layer_input=0)),
    'led': dict(max_encoder_position_embeddings=64, attention_window=8),
    'mimo_v2_flash': dict(head_dim=32, v_head_dim=16),
    'nemotron_h': dict(n_groups=1, mamba_num_heads=4),
    'fsmt': dict(src_vocab_size=320, tgt_vocab_size=320),
    'xlstm': dict(embedding_dim=32, hidden_size=32, num_heads=2, qk_dim_factor=1.0),
    'perceiver': dict(max_position_embeddings=64),
    'luke': dict(entity_vocab_size=40),
    'bailing_hybrid': dict(LINEAR, num_hidden_layers=2),
    'bamba': dict(MAMBA, attn_layer_indices=[1]),
    'codegen': dict(n_head=4, rotary_dim=4),
    'gpt_neo': dict(attention_types=[[['global', 'local'], 1]]),
    'gptj': dict(rotary_dim=8),
    'granitemoehybrid': dict(MAMBA, layer_types=['mamba', 'attention']),
    'jamba': dict(attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False),
    'kimi_linear': LINEAR,
    'lfm2_moe': dict(layer_types=['conv', 'full_attention']),
    'lfm3': dict(layer_types=['conv', 'full_attention']),
    'mamba2': dict(num_heads=4, head_dim=16, n_groups=1),
    'qwen3_5_text': LINEAR,
    'qwen3_5_moe_text': LINEAR,
    'qwen3_next': LINEAR,
    'qwen4_exp_text': dict(
        layer_types=['linear_attention', 'indexed_attention'], indexer_n_heads=2, indexer_kv_heads=1,
        indexer_head_dim=16, indexer_budget=16, indexer_compress_ratio=4),
    'recurrent_gemma': dict(block_types=['recurrent', 'attention']),
    'reformer': dict(is_decoder=True, axial_pos_shape=[8, 8], axial_pos_embds_dim=[16, 16],
                     attn_layers=['local', 'lsh'], local_attn_chunk_length=8, lsh_attn_chunk_length=8,
                     num_buckets=4, hash_seed=0, axial_pos_embds=False),
    'xmod': dict(default_language='en_XX'),
    'zamba': dict(num_hidden_layers=4, attention_head_dim=32, attention_hidden_size=64,
                  layers_block_type=['linear_attention', 'hybrid', 'linear_attention', 'hybrid']),
    'zamba2': dict(layers_block_type=['linear_attention', 'hybrid']),
    'zaya': dict(num_experts_per_tok=1),
}


def takes(cls):
    "The names of the parameters of a config class."
    if is_dataclass(cls):
        return {f.name for f in fields(cls)}
    return set(inspect.signature(cls.__init__).parameters)


def parts(cls):
    "name: class of the configs inside a config."
    from transformers import AutoConfig, PreTrainedConfig

    declared = getattr(cls, 'sub_configs', {})
    if not any(sub is AutoConfig for sub in declared.values()):
        return {k: sub for k, sub in declared.items()}
    made = cls()  # says which type an AutoConfig stands for
    found = {k: getattr(made, k, None) for k in declared}
    return {k: type(c) for k, c in found.items() if isinstance(c, PreTrainedConfig)}


def arguments(cls, ids):
    "What makes a config of this class small."
    names = takes(cls) | set(getattr(cls, 'attribute_map', {}).values())
    made = {k: v for k, v in {**SMALL, **ids}.items() if k in names}
    made |= {k: 0.0 for k in names if re.search('dropout|drop_?rate|layerdrop|pdrop|dropout_prob', k) and
             isinstance(getattr(cls, k, None) if is_dataclass(cls) else 0.0, float)}
    for name, sub in parts(cls).items():
        made[name] = {**arguments(sub, ids), 'model_type': sub.model_type}
    for k, v in OTHER.get(cls.model_type, {}).items():
        made[k] = {**made[k], **v} if isinstance(v, dict) and k in made else v
    return made


def small_config(model_type, ids, **extra):
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    return cls(**{**arguments(cls, ids), **extra})
