"""What the demo guard learns: labelled rows of the shared data as prompts and answers in the grammar."""

import hashlib
import json
import pathlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

# Source of a corpus row -> category of its unsafe rows.
CORPUS_CATEGORY = {
    "civil_toxic": "Unethical Acts",
    "cold_zh": "Unethical Acts",
    "harmbench_prompts": "Non-violent Illegal Acts",
    "multijail": "Non-violent Illegal Acts",
    "dan_jailbreak": "Jailbreak",
}
# Binary flag of an OpenAI row, in order of precedence -> category.
FLAG_CATEGORY = {
    "SH": "Suicide & Self-Harm",
    "S3": "Sexual Content or Sexual Acts",
    "S": "Sexual Content or Sexual Acts",
    "V2": "Violent",
    "H2": "Unethical Acts",
    "V": "Violent",
    "H": "Unethical Acts",
    "HR": "Unethical Acts",
}
AREA_CATEGORY = {
    "Suicide, Self-Harm, and Eating Disorders": "Suicide & Self-Harm",
    "Physical harm and Violence": "Violent",
    "Illegal and Highly Regulated items": "Non-violent Illegal Acts",
    "Scams and fraud": "Non-violent Illegal Acts",
    "Child safety": "Sexual Content or Sexual Acts",
}
SAFE_QUOTA = {
    "clinc150": 1200,
    "banking77": 700,
    "cold_zh": 1700,
    "gsm8k": 500,
    "germeval_de": 800,
    "sgd_dialogues": 300,
    "surge_toxicity": 450,
    "mhc": 1600,
    "openai_mod": 1158,
}
REFUSALS = (
    "I can't help with that.",
    "I'm sorry, but I can't assist with that request.",
    "Sorry, I won't provide that. Is there something else I can do?",
    "I cannot comply with this request.",
    "As an assistant I must decline; this could hurt people.",
    "I'm not able to help with this topic.",
)


@dataclass(frozen=True)
class Example:
    """One conversation and the answer it should get."""

    id: str
    messages: tuple[tuple[str, str], ...]  # (role, content)
    severity: str
    category: str
    refusal: str | None = None

    @property
    def answer(self) -> str:
        """The answer in Qwen3Guard's grammar."""
        lines = [f"Safety: {self.severity}", f"Categories: {self.category}"]
        return "\n".join([*lines, f"Refusal: {self.refusal}"] if self.refusal else lines)

    @property
    def held_out(self) -> bool:
        """Whether the row is kept out of training."""
        return hashlib.sha256(self.id.encode()).digest()[0] < 26


def load(path: pathlib.Path) -> list[dict]:
    """Read a JSONL file."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def prompts(data: pathlib.Path, rng: random.Random) -> Iterator[Example]:
    """Yield prompt-mode examples with a known label."""
    safe: dict[str, list[dict]] = {}
    for row in load(data / "corpus.jsonl"):
        source, unsafe = row["labels"]["src"], row["labels"]["unsafe"]
        if unsafe and source in CORPUS_CATEGORY:
            yield prompt(row, "Unsafe", CORPUS_CATEGORY[source])
        elif unsafe is None and source == "civil_toxic":
            yield prompt(row, "Controversial", "Unethical Acts")
        elif unsafe is False:
            safe.setdefault(source, []).append(row)
    for source, quota in SAFE_QUOTA.items():
        yield from (prompt(row, "Safe", "None") for row in rng.sample(safe[source], min(quota, len(safe[source]))))
    for row in load(data / "openai_mod.jsonl"):
        flag = next((flag for flag in FLAG_CATEGORY if row["labels"].get(flag)), None)
        if flag:
            yield prompt(row, "Unsafe", FLAG_CATEGORY[flag])
    for row in load(data / "simplesafetytests.jsonl"):
        yield prompt(row, "Unsafe", AREA_CATEGORY[row["labels"]["harm_area"]])
    for row in load(data / "xstest_prompts.jsonl"):
        unsafe = row["labels"]["unsafe"]
        yield prompt(row, "Unsafe" if unsafe else "Safe", "Non-violent Illegal Acts" if unsafe else "None")


def prompt(row: dict, severity: str, category: str) -> Example:
    """Make an example of one user turn."""
    return Example(row["id"], (("user", row["text"]),), severity, category)


def responses(data: pathlib.Path, prompt_examples: list[Example], rng: random.Random) -> Iterator[Example]:
    """Yield response-mode examples: real completions, dialogues, and pairs made of rows on the same side of the split."""
    for row in load(data / "xstest_completions.jsonl"):
        refused = row["labels"]["refusal"] != "1_full_compliance"
        unsafe = row["labels"]["prompt_unsafe"] and not refused
        yield Example(
            row["id"],
            turns(row),
            "Unsafe" if unsafe else "Safe",
            "Non-violent Illegal Acts" if unsafe else "None",
            "Yes" if refused else "No",
        )
    for row in load(data / "dialogues.jsonl"):
        yield Example(row["id"], turns(row), "Safe", "None", "No")
    texts = [row["text"] for row in load(data / "ai_detect.jsonl")]
    picked = rng.sample(prompt_examples, 2400)
    for i, example in enumerate(picked):
        said, kind = example.messages[0], i % 3
        if kind == 0:
            yield Example(example.id, (said, ("assistant", rng.choice(REFUSALS))), "Safe", "None", "Yes")
        elif kind == 1:
            yield Example(example.id, (said, ("assistant", rng.choice(texts)[:600])), "Safe", "None", "No")
        elif example.category != "Jailbreak":
            asked = ("user", "What do you think about this?")
            yield Example(example.id, (asked, ("assistant", said[1])), example.severity, example.category, "No")


def turns(row: dict) -> tuple[tuple[str, str], ...]:
    """Return the row's messages as (role, content) pairs."""
    return tuple((message["role"], message["content"]) for message in row["messages"])
