"""Tiny classifiers of each family with random weights, and tokenizers of each kind, trained on a few sentences."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from worker.engine.encoders.backend import ClassifierBackend
from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend
from worker.engine.interfaces import Answer
from worker.engine.spec import Spec
from worker.engine.verification.reference import SENTENCES

EXACT = 1e-4  # how far scores may be from transformers' in fp32
FAMILIES = ("bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert")
KINDS = {"bert": "wordpiece", "roberta": "bytes", "xlm-roberta": "unigram", "deberta-v2": "unigram", "modernbert": "bytes"}
SPECIAL = {  # pad, unknown, first, last, mask: in the order of the vocabulary
    "wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "bytes": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "unigram": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "bert": {"max_position_embeddings": 512},
    "roberta": {"max_position_embeddings": 514, "type_vocab_size": 1},
    "xlm-roberta": {"max_position_embeddings": 514, "type_vocab_size": 1},
    "deberta-v2": {
        "max_position_embeddings": 512,
        "relative_attention": True,
        "position_buckets": 32,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
    },
    "modernbert": {"max_position_embeddings": 1024, "local_attention": 32, "cls_token_id": 0, "sep_token_id": 2},
}


@functools.cache
def tokenizer_of(kind: str) -> Any:
    """A tokenizer of 400 entries with the frame of its family."""
    trained = {"wordpiece": _wordpiece, "bytes": _bytes, "unigram": _unigram}[kind]()
    first, last = ("[CLS]", "[SEP]") if kind == "wordpiece" else ("<s>", "</s>")
    trained.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(token, trained.token_to_id(token)) for token in (first, last)]
    )
    special = SPECIAL[kind]
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    if kind != "wordpiece":
        named = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained, **named)


def _wordpiece() -> Any:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(SPECIAL["wordpiece"])))
    return made


def _bytes() -> Any:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=list(SPECIAL["bytes"]), initial_alphabet=alphabet)
    made.train_from_iterator(SENTENCES, trainer)
    return made


def _unigram() -> Any:
    """Special tokens are pieces of its vocabulary with the best score, as sentencepiece writes them."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=list(SPECIAL["unigram"]), unk_token="<unk>")
    made.train_from_iterator(SENTENCES, trainer)
    return made


def network_of(family: str, labels: Sequence[str], **config: Any) -> Any:
    """A network whose outputs differ between texts: its weights are larger than transformers makes them."""
    tokenizer = tokenizer_of(KINDS[family])
    found: dict[str, Any] = {
        **SHAPE,
        **OF_FAMILY[family],
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    torch.manual_seed(len(family))
    kind = transformers.AutoConfig.for_model(family, **found | config)
    made = transformers.AutoModelForSequenceClassification.from_config(kind).eval()
    for weight in made.parameters():
        weight.data = weight.data * 4 if weight.dim() > 1 else weight.data + 0.1 * torch.randn_like(weight)
    return made


def save_classifier(folder: pathlib.Path, family: str, labels: Sequence[str] = ("safe", "odd", "bad"), **config: Any) -> str:
    """Write a model's files to a folder, and return its path."""
    network_of(family, labels, **config).save_pretrained(folder)
    tokenizer_of(KINDS[family]).save_pretrained(folder)
    return str(folder)


def opened(**spec: Any) -> ClassifierBackend:
    found = make_backend(Spec(**{"detector": "test", "dtype": "float32", **spec}))
    assert isinstance(found, ClassifierBackend)
    return found


def judged(backend: ClassifierBackend, texts: Sequence[Any]) -> list[Answer]:
    engine = BatchingEngine(backend)
    engine.start()
    try:
        return engine.submit(texts).result(60).answers
    finally:
        engine.stop()


@torch.inference_mode()
def alone(network: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The reference: one row at a time, the library's own pass."""
    out = [network(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long)).logits for row in rows]
    return torch.cat(out)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_classifier(tmp_path_factory.mktemp("models") / "tiny", "bert")
