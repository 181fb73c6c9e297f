"""Headers of real models, as sparse GGUF files of a few kilobytes on disk that llama.cpp accepts with ``no_alloc``.

Dimensions, tensors and their shapes are those of the published models. The vocabulary has no strings, so that llama.cpp
reads them in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.gguf_files import ARRAY, FakeTensor, TypedValue, Value, gguf_bytes

F32, F16, Q4_K, BF16, MXFP4 = 0, 1, 12, 30, 39
Shapes = Mapping[str, tuple[int, ...]]
"""Shapes by the tensor's name within its layer, without ``.weight``; ``!`` ends a name that has no such suffix."""


@dataclass(frozen=True, slots=True)
class RealModel:
    """``context`` is what the model was trained for, in tokens."""

    name: str
    architecture: str
    context: int
    values: Mapping[str, Value]
    tensors: tuple[FakeTensor, ...]

    def write(self, folder: Path) -> Path:
        return write_sparse(folder / f"{self.name}.gguf", self.values, self.tensors)


def write_sparse(path: Path, values: Mapping[str, Value], tensors: Iterable[FakeTensor]) -> Path:
    """Write the header, and the tensors as a hole."""
    tensors = list(tensors)
    header = gguf_bytes(values, tensors, data=False)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(sum(-(-size // 32) * 32 for size in (len(header), *(tensor.size for tensor in tensors))))
    return path


def _model(
    name: str,
    architecture: str,
    numbers: Mapping[str, Value],
    layers: Iterable[Shapes],
    *,
    output: bool = True,
    norm: str = "output_norm",
    extra: Mapping[str, Value] | None = None,
    further: Shapes | None = None,
) -> RealModel:
    """Build a model from the numbers of its architecture and the tensors of every layer."""
    embedding, vocabulary, context = (numbers[key] for key in ("embedding_length", "vocab_size", "context_length"))
    assert isinstance(embedding, int)
    assert isinstance(vocabulary, int)
    assert isinstance(context, int)
    matrix = (embedding, vocabulary)
    outer = {"token_embd": matrix, norm: (embedding,), **({"output": matrix} if output else {}), **(further or {})}
    layers = list(layers)
    values: dict[str, Value] = {"general.architecture": architecture, "tokenizer.ggml.model": "none"}
    values |= {f"{architecture}.{key}": value for key, value in numbers.items()}
    values |= {f"{architecture}.block_count": len(layers), **(extra or {})}
    for epsilon in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        values[f"{architecture}.{epsilon}"] = 1e-5
    tensors = [_tensor(key, shape) for key, shape in outer.items()]
    tensors += [_tensor(f"blk.{at}.{key}", shape) for at, layer in enumerate(layers) for key, shape in layer.items()]
    return RealModel(name, architecture, context, values, tuple(tensors))


def _tensor(name: str, shape: tuple[int, ...]) -> FakeTensor:
    full = name.removesuffix("!") if name.endswith((".bias", "!")) else f"{name}.weight"
    if len(shape) == 1 or name.endswith((".bias", "!", "ssm_conv1d", "ssm_norm", "conv", "ffn_gate_inp")):
        return FakeTensor(full, shape, F32)
    if name.endswith(("attn_k_b", "attn_v_b")):  # quantized ones fail an assertion of llama.cpp on a CPU with AMX
        return FakeTensor(full, shape, BF16)
    if shape[0] % 256:
        return FakeTensor(full, shape, MXFP4 if name.endswith("_exps") else F16)
    return FakeTensor(full, shape, Q4_K)


def _attention(width: int, query: int, key: int, value: int = 0, *, bias: bool = False, norm: int = 0) -> Shapes:
    value = value or key
    shapes: dict[str, tuple[int, ...]] = {"attn_norm": (width,)}
    shapes |= {"attn_q": (width, query), "attn_k": (width, key), "attn_v": (width, value)}
    shapes["attn_output"] = (query, width)
    if bias:
        shapes |= {"attn_q.bias": (query,), "attn_k.bias": (key,), "attn_v.bias": (value,)}
    return {**shapes, **({"attn_q_norm": (norm,), "attn_k_norm": (norm,)} if norm else {})}


def _feed_forward(width: int, inner: int) -> Shapes:
    return {"ffn_norm": (width,), "ffn_gate": (width, inner), "ffn_up": (width, inner), "ffn_down": (inner, width)}


def _experts(width: int, inner: int, count: int, *, shared: int = 0) -> Shapes:
    shapes: dict[str, tuple[int, ...]] = {"ffn_norm": (width,), "ffn_gate_inp": (width, count)}
    shapes |= {"ffn_gate_exps": (width, inner, count), "ffn_up_exps": (width, inner, count)}
    shapes["ffn_down_exps"] = (inner, width, count)
    if shared:
        shapes |= {
            "ffn_gate_shexp": (width, shared),
            "ffn_up_shexp": (width, shared),
            "ffn_down_shexp": (shared, width),
        }
    return shapes


def _numbers(
    width: int, inner: int, heads: int, kv_heads: int, head: int, vocabulary: int, context: int, **others: Value
) -> dict[str, Value]:
    """Return the numbers of a decoder; in the names of further ones ``__`` is a full stop."""
    found: dict[str, Value] = {"embedding_length": width, "feed_forward_length": inner, "vocab_size": vocabulary}
    found |= {"context_length": context, "attention.head_count": heads, "attention.head_count_kv": kv_heads}
    found |= {"attention.key_length": head, "attention.value_length": head, "rope.dimension_count": head}
    return found | {name.replace("__", "."): value for name, value in others.items()}


def _llama(name: str, layers: int, numbers: dict[str, Value], *, experts: int = 0) -> RealModel:
    width, inner, head = (
        _int(numbers, key) for key in ("embedding_length", "feed_forward_length", "rope.dimension_count")
    )
    query, key = (head * _int(numbers, f"attention.head_count{kind}") for kind in ("", "_kv"))
    feed_forward = _experts(width, inner, experts) if experts else _feed_forward(width, inner)
    return _model(name, "llama", numbers, [{**_attention(width, query, key), **feed_forward}] * layers)


def _int(numbers: Mapping[str, Value], key: str) -> int:
    number = numbers[key]
    assert isinstance(number, int)
    return number


def _qwen() -> list[RealModel]:
    qwen25 = {**_attention(3584, 3584, 512, bias=True), **_feed_forward(3584, 18944)}
    qwen3 = {**_attention(4096, 4096, 1024, norm=128), **_feed_forward(4096, 12288)}
    mixture = {**_attention(2048, 4096, 512, norm=128), **_experts(2048, 768, 128)}
    experts: dict[str, Value] = {"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768}
    return [
        _model("Qwen2.5-7B", "qwen2", _numbers(3584, 18944, 28, 4, 128, 152064, 32768), [qwen25] * 28),
        _model("Qwen3-8B", "qwen3", _numbers(4096, 12288, 32, 8, 128, 151936, 40960), [qwen3] * 36),
        _model(
            "Qwen3-30B-A3B",
            "qwen3moe",
            {**_numbers(2048, 6144, 32, 4, 128, 151936, 262144), **experts},
            [mixture] * 48,
        ),
        _qwen3next(),
    ]


def _qwen3next() -> RealModel:
    experts = {
        **_experts(2048, 512, 512, shared=512),
        "ffn_gate_inp_shexp": (2048,),
        "post_attention_norm": (2048,),
    }
    attention = {**_attention(2048, 8192, 512, norm=256), "attn_output": (4096, 2048), **experts}
    recurrent: Shapes = {
        "attn_norm": (2048,),
        "attn_qkv": (2048, 8192),
        "attn_gate": (2048, 4096),
        "ssm_conv1d": (4, 8192),
        "ssm_dt.bias": (32,),
        "ssm_a!": (32,),
        "ssm_ba": (2048, 64),
        "ssm_norm": (128,),
        "ssm_out": (4096, 2048),
        **experts,
    }
    numbers = _numbers(2048, 5120, 16, 2, 256, 151936, 262144, ssm__conv_kernel=4, ssm__inner_size=4096)
    numbers |= {"ssm.state_size": 128, "ssm.time_step_rank": 32, "ssm.group_count": 16}
    numbers |= {"expert_count": 512, "expert_used_count": 10, "expert_feed_forward_length": 512}
    numbers["expert_shared_feed_forward_length"] = 512
    layers = [recurrent if (at + 1) % 4 else attention for at in range(48)]
    return _model("Qwen3-Next-80B", "qwen3next", numbers, [_drop(layer, "ffn_norm") for layer in layers])


def _drop(shapes: Shapes, name: str) -> Shapes:
    return {key: shape for key, shape in shapes.items() if key != name}


def _gemma(name: str, layers: int, width: int, inner: int, heads: int, kv_heads: int, head: int) -> RealModel:
    norms: Shapes = {"post_attention_norm": (width,), "post_ffw_norm": (width,)}
    layer = {**_attention(width, heads * head, kv_heads * head, norm=head), **_feed_forward(width, inner), **norms}
    numbers = _numbers(width, inner, heads, kv_heads, head, 262208, 131072, attention__sliding_window=1024)
    return _model(name, "gemma3", numbers, [layer] * layers, output=False)


def _gpt_oss() -> RealModel:
    width, count = 2880, 32
    layer: dict[str, tuple[int, ...]] = {
        **_attention(width, 4096, 512, bias=True),
        **_experts(width, width, count),
        "attn_output.bias": (width,),
        "attn_sinks": (64,),
        "post_attention_norm": (width,),
        "ffn_gate_inp.bias": (count,),
        **{f"ffn_{kind}_exps.bias": (width, count) for kind in ("gate", "up", "down")},
    }
    numbers = _numbers(width, width, 64, 8, 64, 201088, 131072, attention__sliding_window=128)
    numbers |= {"expert_count": count, "expert_used_count": 4, "expert_feed_forward_length": width}
    return _model("gpt-oss-20b", "gpt-oss", numbers, [_drop(layer, "ffn_norm")] * 24)


def _deepseek_v3() -> RealModel:
    width, heads, rank = 7168, 128, 512
    attention: Shapes = {
        "attn_norm": (width,),
        "attn_q_a": (width, 1536),
        "attn_q_a_norm": (1536,),
        "attn_q_b": (1536, heads * 192),
        "attn_kv_a_mqa": (width, rank + 64),
        "attn_kv_a_norm": (rank,),
        "attn_k_b": (128, rank, heads),
        "attn_v_b": (rank, 128, heads),
        "attn_output": (heads * 128, width),
    }
    experts = {**_experts(width, 2048, 256, shared=2048), "exp_probs_b.bias": (256,)}
    numbers = _numbers(width, 18432, heads, 1, 576, 129280, 163840, attention__q_lora_rank=1536)
    numbers |= {"attention.value_length": rank, "attention.key_length_mla": 192, "attention.value_length_mla": 128}
    numbers |= {"attention.kv_lora_rank": rank, "rope.dimension_count": 64, "leading_dense_block_count": 3}
    numbers |= {"expert_count": 256, "expert_used_count": 8, "expert_feed_forward_length": 2048}
    numbers |= {"expert_shared_count": 1, "expert_group_count": 8, "expert_group_used_count": 4}
    numbers["expert_gating_func"] = 2
    dense = _feed_forward(width, 18432)
    return _model(
        "DeepSeek-V3", "deepseek2", numbers, [{**attention, **(dense if at < 3 else experts)} for at in range(61)]
    )


def _deepseek_v2_lite() -> RealModel:
    width, heads, rank = 2048, 16, 512
    attention: Shapes = {
        "attn_norm": (width,),
        "attn_q": (width, heads * 192),
        "attn_kv_a_mqa": (width, rank + 64),
        "attn_kv_a_norm": (rank,),
        "attn_kv_b": (rank, heads * 256),
        "attn_output": (heads * 128, width),
    }
    experts = _experts(width, 1408, 64, shared=2816)
    numbers = _numbers(width, 10944, heads, heads, 192, 102400, 163840, attention__kv_lora_rank=rank)
    numbers |= {"attention.value_length": 128, "rope.dimension_count": 64, "leading_dense_block_count": 1}
    numbers |= {"expert_count": 64, "expert_used_count": 6, "expert_feed_forward_length": 1408}
    numbers["expert_shared_count"] = 2
    dense = _feed_forward(width, 10944)
    return _model(
        "DeepSeek-V2-Lite", "deepseek2", numbers, [{**attention, **(experts if at else dense)} for at in range(27)]
    )


def _phi(name: str, layers: int, numbers: dict[str, Value]) -> RealModel:
    width, inner, head = (
        _int(numbers, key) for key in ("embedding_length", "feed_forward_length", "rope.dimension_count")
    )
    layer: Shapes = {
        "attn_norm": (width,),
        "attn_qkv": (width, width + 2 * head * _int(numbers, "attention.head_count_kv")),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_up": (width, 2 * inner),
        "ffn_down": (inner, width),
    }
    return _model(name, "phi3", numbers, [layer] * layers)


def _falcon_h1() -> RealModel:
    width, inner, state, heads = 3072, 3072, 256, 24
    layer: Shapes = {
        **_attention(width, 12 * 128, 2 * 128),
        **_drop(_feed_forward(width, 12288), "ffn_norm"),
        "ffn_norm!": (width,),
        "ssm_in": (width, 2 * inner + 2 * state + heads),
        "ssm_conv1d": (4, inner + 2 * state),
        "ssm_conv1d.bias": (inner + 2 * state,),
        "ssm_dt.bias": (heads,),
        "ssm_a!": (1, heads),
        "ssm_d!": (1, heads),
        "ssm_norm": (inner, 1),
        "ssm_out": (inner, width),
    }
    numbers = _numbers(width, 12288, 12, 2, 128, 130049, 262144, ssm__conv_kernel=4, ssm__inner_size=inner)
    numbers |= {"ssm.state_size": state, "ssm.time_step_rank": heads, "ssm.group_count": 1}
    return _model("Falcon-H1-7B", "falcon-h1", numbers, [layer] * 44)


def _lfm2() -> RealModel:
    width, attending = 2048, (2, 5, 8, 10, 12, 14)
    attention = {**_attention(width, width, 512, norm=64), **_feed_forward(width, 8192)}
    convolution: Shapes = {
        "attn_norm": (width,),
        "shortconv.conv": (3, width),
        "shortconv.in_proj": (width, 3 * width),
        "shortconv.out_proj": (width, width),
        **_feed_forward(width, 8192),
    }
    kv_heads = TypedValue(ARRAY, [8 if at in attending else 0 for at in range(16)])
    numbers = _numbers(width, 8192, 32, 8, 64, 65536, 128000, shortconv__l_cache=3)
    numbers["attention.head_count_kv"] = kv_heads
    layers = [attention if at in attending else convolution for at in range(16)]
    return _model("LFM2-1.2B", "lfm2", numbers, layers, output=False, norm="token_embd_norm")


def _mamba2() -> RealModel:
    width, inner, state, groups, heads = 4096, 8192, 128, 8, 128
    convolved = inner + 2 * groups * state
    layer: Shapes = {
        "attn_norm": (width,),
        "ssm_in": (width, inner + convolved + heads),
        "ssm_conv1d": (4, convolved),
        "ssm_conv1d.bias": (convolved,),
        "ssm_dt.bias": (heads,),
        "ssm_a!": (1, heads),
        "ssm_d!": (1, heads),
        "ssm_norm": (inner // groups, groups),
        "ssm_out": (inner, width),
    }
    numbers: dict[str, Value] = {"embedding_length": width, "vocab_size": 32768, "context_length": 1048576}
    numbers |= {"feed_forward_length": 0, "attention.head_count": 0, "ssm.conv_kernel": 4, "ssm.inner_size": inner}
    numbers |= {"ssm.state_size": state, "ssm.time_step_rank": heads, "ssm.group_count": groups}
    return _model("Mamba2-7B", "mamba2", numbers, [layer] * 64)


def _nomic() -> RealModel:
    width = 768
    layer: Shapes = {
        "attn_qkv": (width, 3 * width),
        "attn_output": (width, width),
        "attn_output_norm": (width,),
        "attn_output_norm.bias": (width,),
        **_drop(_feed_forward(width, 3072), "ffn_norm"),
        "layer_output_norm": (width,),
        "layer_output_norm.bias": (width,),
    }
    numbers = _numbers(width, 3072, 12, 12, 64, 30522, 2048, pooling_type=1, attention__causal=False)
    return _model(
        "nomic-embed-text",
        "nomic-bert",
        numbers,
        [layer] * 12,
        output=False,
        norm="token_embd_norm",
        extra={"tokenizer.ggml.token_type_count": 2},
        further={"token_types": (width, 2), "token_embd_norm.bias": (width,)},
    )


def real_models() -> list[RealModel]:
    """Return the models, decoders first, the embedding model last."""
    mixtral = _numbers(4096, 14336, 32, 8, 128, 32000, 32768, expert_count=8, expert_used_count=2)
    return [
        _llama("Llama-3.1-8B", 32, _numbers(4096, 14336, 32, 8, 128, 128256, 131072)),
        _llama("Llama-3.3-70B", 80, _numbers(8192, 28672, 64, 8, 128, 128256, 131072)),
        _llama("Mixtral-8x7B", 32, mixtral, experts=8),
        *_qwen(),
        _gemma("Gemma-3-4B", 34, 2560, 10240, 8, 4, 256),
        _gemma("Gemma-3-27B", 62, 5376, 21504, 32, 16, 128),
        _gpt_oss(),
        _deepseek_v3(),
        _deepseek_v2_lite(),
        _phi("Phi-3-mini", 32, _numbers(3072, 8192, 32, 32, 96, 32064, 4096, attention__sliding_window=2047)),
        _phi("Phi-4", 40, _numbers(5120, 17920, 40, 10, 128, 100352, 16384)),
        _falcon_h1(),
        _lfm2(),
        _mamba2(),
        _nomic(),
    ]
