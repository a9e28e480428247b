"""A bag of word pieces, fitted exactly, and written as a BERT of one layer that any loader of sequence classifiers opens.

The score of a text is the mean of its pieces' weights, fitted by ridge logistic regression: a convex problem, so the same data give
the same weights, and with so few texts it is less misled than a network that is trained. As BERT: a piece's embedding has its weight
in the first number; queries and keys are 0, so that the first token attends to all alike; the values hand the first number on, the
pooler squashes it and the classifier puts it on the scale of probabilities. The feed-forward part and positions are 0.
"""

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import BpeTrainer
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

HIDDEN, HEADS, POSITIONS = 64, 2, 512
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS = {0: "human", 1: "generated"}


@dataclass(frozen=True)
class Bag:
    """Weights by piece of the vocabulary, and what makes the log-odds of their mean: `slope` and `intercept`."""

    weights: np.ndarray
    slope: float
    intercept: float


def tokenizer_of(texts: list[str], size: int, *, lower: bool) -> BertTokenizer:
    """Make a WordPiece tokenizer: each piece that byte-pair encoding finds, at the start of a word and within one.

    The trainer of WordPiece itself numbers the latter at random, and with them breaks ties.
    """
    trained = Tokenizer(BPE())
    trained.normalizer, trained.pre_tokenizer = BertNormalizer(lowercase=lower), BertPreTokenizer()
    trained.train_from_iterator(texts, BpeTrainer(vocab_size=size // 2, show_progress=False))
    pieces = sorted(trained.get_vocab())
    vocabulary = [*CONTROL, *pieces, *(f"##{piece}" for piece in pieces)]
    tokenizer = BertTokenizer(vocab={piece: at for at, piece in enumerate(vocabulary)}, do_lower_case=lower)
    tokenizer.model_max_length = POSITIONS
    return tokenizer


def shares(tokenizer: BertTokenizer, texts: list[str]) -> np.ndarray:
    """Return, for each text, the share of its tokens that each piece has; control tokens are tokens without a share."""
    out = np.zeros((len(texts), len(tokenizer)), np.float32)
    for row, text in zip(out, texts, strict=True):
        ids = tokenizer(text, truncation=True)["input_ids"]
        np.add.at(row, ids, 1 / len(ids))
    out[:, tokenizer.all_special_ids] = 0
    return out


def fitted(found: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
    """Return the weights that minimise the log loss plus `ridge` times their squares, each in units of its piece's frequency."""
    scale = (found.mean(0) + 1e-5) ** -0.5
    x, y = torch.tensor(found * scale), torch.tensor(labels, dtype=torch.float32)
    weights, intercept = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, intercept], max_iter=80)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        out = torch.nn.functional.binary_cross_entropy_with_logits(x @ weights + intercept, y) + ridge * weights @ weights
        out.backward()
        return out

    optimizer.step(loss)
    found_weights = weights.detach().numpy() * scale
    centre = float((found @ found_weights).mean())
    return np.where(found.any(0), found_weights - centre, 0).astype(np.float32)  # so that an average text has a mean near 0


def calibrated(means: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the log-odds of a label by the mean weight, for texts that were not fitted to."""
    spread = float(means.std())
    x, y = torch.tensor(means / spread), torch.tensor(labels, dtype=torch.float64)
    line = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=50)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        out = torch.nn.functional.binary_cross_entropy_with_logits(x * line[0] + line[1], y)
        out.backward()
        return out

    optimizer.step(loss)
    return float(line[0].detach()) / spread, float(line[1].detach())


@torch.no_grad()
def as_bert(bag: Bag, tokenizer: BertTokenizer, spread: float) -> BertForSequenceClassification:
    """Write the bag as a network. `spread`: the standard deviation of mean weights, which becomes 1 inside."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        id2label=LABELS,
        label2id={name: at for at, name in LABELS.items()},
    )
    config.guardfleet_demo = True  # whoever prints one of its scores says that it is a demo
    model = BertForSequenceClassification(config).eval()
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
    largest = float(np.abs(bag.weights).max())
    embeddings = model.bert.embeddings.word_embeddings.weight
    first = torch.tensor(bag.weights / largest, dtype=torch.float32)
    # The other numbers alternate in sign and fill up to variance 1, so that layer normalisation changes nothing.
    rest = ((HIDDEN - 2 * first**2) / (HIDDEN - 2)).sqrt()[:, None] * torch.tensor([1.0, -1.0]).repeat(HIDDEN // 2 - 1)
    embeddings.copy_(torch.cat([first[:, None], -first[:, None], rest], 1))
    attention = model.bert.encoder.layer[0].attention
    attention.self.value.weight[0, 0] = 1.0
    attention.output.dense.weight[0, 0], attention.output.dense.weight[1, 0] = largest / spread, -largest / spread
    model.bert.pooler.dense.weight[0, 0] = 0.25
    steep = 4 * bag.slope * spread  # of the squashed number, near its middle
    for at, sign in ((0, -0.5), (1, 0.5)):
        model.classifier.weight[at, 0], model.classifier.bias[at] = sign * steep, sign * bag.intercept
    return model


@torch.inference_mode()
def scores(model: BertForSequenceClassification, tokenizer: BertTokenizer, texts: list[str]) -> np.ndarray:
    """Return P(generated) of each text, as transformers computes it."""
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    out = np.zeros(len(texts))
    for start in range(0, len(order), 64):
        group = order[start : start + 64]
        batch = tokenizer([texts[at] for at in group], padding=True, truncation=True, return_tensors="pt")
        out[group] = model(**batch).logits.double().softmax(-1)[:, 1].numpy()
    return out
