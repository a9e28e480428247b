"""Check a model's tokenizer: where a folder has no files of one, transformers makes one up that knows no word.

A model whose words are all unknown answers every text alike, and confidently.
"""

import pathlib
from typing import Any

from guardfleet.errors import ConfigurationError

FILES = ("tokenizer.json", "vocab.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
PAIR = ("vocab.json", "merges.txt")  # of byte pairs; the first alone would cut words into bytes
LEAST_FILLED = 0.5  # of a model's embeddings that must have a token; published models, padded to round numbers, have 0.98 and more
MOST_UNKNOWN = 0.5  # of the tokens of the text that the tokenizer reads best
PLAIN = (  # one would be read by a model of almost any language
    "What did you say when the weather was good?",
    "\u00bfD\u00f3nde est\u00e1 la casa de mi amigo?",
    "\u041c\u044b \u0441\u0435\u0433\u043e\u0434\u043d\u044f \u0438\u0434\u0451\u043c \u0434\u043e\u043c\u043e\u0439.",
    "\u03a4\u03b9 \u03ba\u03ac\u03bd\u03b5\u03b9\u03c2 \u03c3\u03ae\u03bc\u03b5\u03c1\u03b1;",
    "\u0643\u064a\u0641 \u062d\u0627\u0644\u0643 \u0627\u0644\u064a\u0648\u0645\u061f",
    "\u05de\u05d4 \u05e9\u05dc\u05d5\u05de\u05da \u05d4\u05d9\u05d5\u05dd?",
    "\u0906\u092a \u0915\u0948\u0938\u0947 \u0939\u0948\u0902?",
    "\u0e27\u0e31\u0e19\u0e19\u0e35\u0e49\u0e2d\u0e32\u0e01\u0e32\u0e28\u0e14\u0e35",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u306d\u3002",
    "\uc624\ub298 \ub0a0\uc528\uac00 \uc88b\ub124\uc694.",
)


def require_vocabulary(name: str, folder: pathlib.Path) -> None:
    """Refuse a folder without the files of a tokenizer. Raises ConfigurationError."""
    if any((folder / file).is_file() for file in FILES) or all((folder / file).is_file() for file in PAIR):
        return
    raise ConfigurationError(f"model {name!r} has no tokenizer ({FILES[0]}), so it would know no word: download its files again.")


def require_reading(name: str, tokenizer: Any, n_embeddings: int) -> None:
    """Refuse a tokenizer that leaves most of the model's embeddings unused, or reads no plain text. Raises ConfigurationError."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest + 1 < LEAST_FILLED * n_embeddings:
        raise ConfigurationError(
            f"model {name!r}: its tokenizer has {highest + 1} entries, but its weights {n_embeddings}: it is another model's, or "
            "damaged; download its files again."
        )
    if min(_unknown(tokenizer, text) for text in PLAIN) > MOST_UNKNOWN:
        raise ConfigurationError(
            f"model {name!r}: its tokenizer knows almost no word of plain texts in {len(PLAIN)} languages: "
            "download its files again."
        )


def _unknown(tokenizer: Any, text: str) -> float:
    """Return the share of unknown tokens; 1 of a text that becomes none."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return sum(number == tokenizer.unk_token_id for number in ids) / len(ids) if ids else 1.0
