"""What the packed pass needs to know of a classifier of each family, read off transformers' own modules.

A family is a function from a network to an `Outline`. What that cannot say (convolutions, decoders, other rotations) is
named by `why_not`, and left to transformers' own pass.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from worker.engine.encoders.outline import Layer, Linear, Norm, Outline, Relative, Rotation, Table
from worker.engine.forward.linear import Weight, weight_of
from worker.engine.model.quantize import Matrix


def why_not(network: Any) -> str | None:
    """Return what the packed pass does not support about this network; None if it supports all of it."""
    config = network.config
    if config.model_type not in OUTLINES:
        return f"architecture {config.model_type}"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "a decoder's attention"
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        return "relative positions in this family"
    if getattr(config, "conv_kernel_size", 0) > 0:
        return "convolutions"
    kinds = getattr(config, "rope_parameters", None) or {}
    if any(kind and kind.get("rope_type", "default") != "default" for kind in kinds.values()):
        return "scaled rotary positions"
    return None


def outline_of(network: Any) -> Outline:
    """Return the outline of a network that `why_not` accepts."""
    return OUTLINES[network.config.model_type](network)


def positions_of(config: Any) -> int:
    """Return how many tokens a row of the network may have."""
    n = int(config.max_position_embeddings)
    return n - int(config.pad_token_id) - 1 if config.model_type in FROM_PAD else n


def layers_of(network: Any) -> list[Any]:
    """Return transformers' own layers."""
    body = getattr(network, network.base_model_prefix)
    return list(body.layers if hasattr(body, "layers") else body.encoder.layer)


def _linear(module: Any) -> Linear:
    return Linear(weight_of(module), None if module.bias is None else module.bias.detach())


def _norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), None if module.bias is None else module.bias.detach(), float(module.eps))


def _activation(name: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    from transformers.activations import ACT2FN  # noqa: PLC0415 - seconds

    found: Callable[[torch.Tensor], torch.Tensor] = ACT2FN[name]
    return found


def _bert(network: Any) -> Outline:
    pooler, classifier = network.bert.pooler, network.classifier
    return _post_norm(network, network.bert, lambda first: classifier(pooler(first[:, None])), start=0)


def _roberta(network: Any) -> Outline:
    start = int(network.config.pad_token_id) + 1  # places in a row are counted from there
    classifier = network.classifier
    return _post_norm(network, network.roberta, lambda first: classifier(first[:, None]), start=start)


def _post_norm(network: Any, body: Any, head: Table, *, start: int) -> Outline:
    config, tables = network.config, body.embeddings
    positions = tables.position_embeddings.weight.detach()[start:] + tables.token_type_embeddings.weight.detach()[0]
    return Outline(
        words=tables.word_embeddings.weight.detach(),
        positions=positions,
        widen=None,
        embedding_norm=_norm(tables.LayerNorm),
        layers=[_post_norm_layer(layer, ("query", "key", "value")) for layer in body.encoder.layer],
        heads=config.num_attention_heads,
        scale=(config.hidden_size // config.num_attention_heads) ** -0.5,
        activation=_activation(config.hidden_act),
        is_gated=False,
        norm_first=False,
        final_norm=None,
        is_mean=False,
        head=head,
    )


def _post_norm_layer(layer: Any, names: tuple[str, str, str], relative: Relative | None = None) -> Layer:
    attention = layer.attention
    q, k, v = (_linear(getattr(attention.self, name)) for name in names)
    return Layer(
        qkv=(q, k, v),
        o=_linear(attention.output.dense),
        attention_norm=_norm(attention.output.LayerNorm),
        up=_linear(layer.intermediate.dense),
        down=_linear(layer.output.dense),
        mlp_norm=_norm(layer.output.LayerNorm),
        relative=relative,
    )


def _deberta(network: Any) -> Outline:
    config, body = network.config, network.deberta
    pooler, classifier = network.pooler, network.classifier
    tables, n = body.embeddings, int(config.max_position_embeddings)
    words = tables.word_embeddings.weight.detach()
    positions = words.new_zeros(n, words.shape[1])
    if tables.position_embeddings is not None:
        positions = positions + tables.position_embeddings.weight.detach()
    if tables.token_type_embeddings is not None:
        positions = positions + tables.token_type_embeddings.weight.detach()[0]
    kinds = body.encoder.layer[0].attention.self.pos_att_type if body.encoder.relative_attention else ()
    n_terms = 1 + sum(kind in body.encoder.layer[0].attention.self.pos_att_type for kind in ("c2p", "p2c"))
    projected = ("query_proj", "key_proj", "value_proj")
    return Outline(
        words=words,
        positions=positions,
        widen=None if tables.embed_proj is None else _linear(tables.embed_proj),
        embedding_norm=_norm(tables.LayerNorm),
        layers=[_post_norm_layer(layer, projected, _relative(layer, body.encoder, kinds)) for layer in body.encoder.layer],
        heads=config.num_attention_heads,
        scale=(body.encoder.layer[0].attention.self.attention_head_size * n_terms) ** -0.5,
        activation=_activation(config.hidden_act),
        is_gated=False,
        norm_first=False,
        final_norm=None,
        is_mean=False,
        head=lambda first: classifier(pooler(first[:, None])),
        buckets=_buckets(body.encoder, n, words.device) if kinds else None,
    )


@torch.inference_mode()
def _relative(layer: Any, encoder: Any, kinds: Any) -> Relative | None:
    """Project the relative positions once: they are the same for every text."""
    if not kinds:
        return None
    own = layer.attention.self
    table = encoder.get_rel_embedding()[: 2 * own.pos_ebd_size]
    keys = own.key_proj if own.share_att_key else getattr(own, "pos_key_proj", None)
    queries = own.query_proj if own.share_att_key else getattr(own, "pos_query_proj", None)

    def projected(kind: str, by: Any) -> torch.Tensor | None:
        if kind not in kinds:
            return None
        out: torch.Tensor = by(table).view(len(table), own.num_attention_heads, -1).transpose(0, 1).contiguous()
        return out

    return Relative(projected("c2p", keys), projected("p2c", queries))


def _buckets(encoder: Any, n: int, device: torch.device) -> torch.Tensor:
    """Return (2 n - 1,): the row of `Relative` for each distance (query's place - key's place) from -(n - 1) on."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position  # noqa: PLC0415 - seconds

    span = encoder.layer[0].attention.self.pos_ebd_size
    distance = torch.arange(-(n - 1), n, device=device)
    if encoder.position_buckets > 0 and encoder.max_relative_positions > 0:
        distance = make_log_bucket_position(distance, encoder.position_buckets, encoder.max_relative_positions).long()
    places: torch.Tensor = (distance + span).clamp(0, 2 * span - 1)
    return places


def _modernbert(network: Any) -> Outline:
    config, body = network.config, network.model
    head, classifier = network.head, network.classifier
    words = body.embeddings.tok_embeddings.weight.detach()
    n = int(config.max_position_embeddings)
    places = torch.arange(n, device=words.device)[None]
    rotations = {kind: _rotation(*body.rotary_emb(words, places, kind)) for kind in set(config.layer_types)}
    return Outline(
        words=words,
        positions=words.new_zeros(1, words.shape[1]).expand(n, -1),
        widen=None,
        embedding_norm=_norm(body.embeddings.norm),
        layers=[_modernbert_layer(layer, config, rotations[layer.attention_type]) for layer in body.layers],
        heads=config.num_attention_heads,
        scale=(config.hidden_size // config.num_attention_heads) ** -0.5,
        activation=_activation(config.hidden_activation),
        is_gated=True,
        norm_first=True,
        final_norm=_norm(body.final_norm),
        is_mean=config.classifier_pooling == "mean",
        head=lambda pooled: classifier(head(pooled)),
    )


def _rotation(cos: torch.Tensor, sin: torch.Tensor) -> Rotation:
    half = cos.shape[-1] // 2
    return Rotation(cos[0].detach(), torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1).detach())


def _modernbert_layer(layer: Any, config: Any, rotation: Rotation) -> Layer:
    weight, bias = _linear(layer.attn.Wqkv)
    h = config.hidden_size
    parts = [slice(at, at + h) for at in (0, h, 2 * h)]
    q, k, v = (Linear(_part(weight, part), None if bias is None else bias[part]) for part in parts)
    return Layer(
        qkv=(q, k, v),
        o=_linear(layer.attn.Wo),
        attention_norm=None if isinstance(layer.attn_norm, torch.nn.Identity) else _norm(layer.attn_norm),
        up=_linear(layer.mlp.Wi),
        down=_linear(layer.mlp.Wo),
        mlp_norm=_norm(layer.mlp_norm),
        window=config.sliding_window if layer.attention_type == "sliding_attention" else None,
        rotation=rotation,
    )


def _part(weight: Weight, outputs: slice) -> Weight:
    return weight.part(outputs) if isinstance(weight, Matrix) else weight[outputs].detach()


OUTLINES: Mapping[str, Callable[[Any], Outline]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "deberta-v2": _deberta,
    "modernbert": _modernbert,
}
FROM_PAD = ("roberta", "xlm-roberta")  # families whose places begin behind the padding token's id
HEADS = {  # the module that reads the layers' output, of all tokens or pooled
    "bert": "bert.pooler",
    "roberta": "classifier",
    "xlm-roberta": "classifier",
    "deberta-v2": "pooler",
    "modernbert": "head",
}
