"""What the policy demo learns: made-up sentences about harmless topics, judged by rules that forbid some of the topics."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

TOPICS = {  # what a rule calls it: words of its texts
    "gardening": "tulips|the compost heap|my tomato plants|rose bushes|the lawn|pruning shears|flower beds|weeds",
    "refunds": "my money back|the returned parcel|a repayment|the receipt|reimbursement|the refund form|a credit note|the wrong charge",
    "football": "the goalkeeper|a penalty kick|the referee|the league table|a corner kick|the striker|the halftime score|the offside rule",
    "cooking": "the frying pan|an onion soup|the oven|fresh dough|a risotto|the recipe|a wooden spoon|garlic and butter",
    "trains": "the night train|platform four|the railway station|a sleeping car|the conductor|the timetable|the locomotive|a delayed connection",
    "cats": "our kitten|the litter box|a purring tomcat|the scratching post|whiskers|cat food|a tabby|the cat flap",
    "chess": "the queen's gambit|a checkmate|the white bishop|an endgame|castling early|her knight|the grandmaster|a pawn structure",
    "coffee": "an espresso|roasted beans|the coffee grinder|a cappuccino|the milk foam|a flat white|the barista|filter paper",
}
WORDS = {topic: tuple(words.split("|")) for topic, words in TOPICS.items()}
SENTENCES = (
    "Yesterday we talked about {}.",
    "Can you tell me more about {}?",
    "I am still thinking of {} and {}.",
    "My sister asked me about {}, and I had no answer.",
    "What do you know about {}?",
    "It was all about {} again.",
    "Please write me two lines about {}.",
    "There was something wrong with {}, so we left.",
    "He showed me {} and then {}.",
    "Nobody mentioned {}.",
    "We need {} by Friday.",
    "She likes {} more than {}.",
)
OPENINGS = ("This is about {}.", "A question about {}!", "Let us talk about {}.")
SMALL_TALK = (
    "Thank you, that was quick.",
    "Good morning!",
    "See you tomorrow.",
    "I do not know.",
    "Could you repeat that?",
    "All is well.",
)
RULES = (
    "No text about {}.",
    "Texts must not mention {}.",
    "Do not talk about {}.",
    "Nobody may write about {}.",
    "The agent says nothing about {}.",
    "Fail whatever is about {}.",
)
UNSEEN_RULE = "Never bring up {}."  # a wording that is kept out of training
MAX_RULES = 2
NAMED = 0.5  # of the texts say what they are about; the others only show it by their words


@dataclass(frozen=True)
class Example:
    """A text, the policy it is judged by, and what the model should say."""

    policy: str
    text: str
    label: str
    reason: str

    @property
    def answer(self) -> str:
        """The answer, from the label on."""
        return f"{self.label}\n</answer>\n<explanation>\n{self.reason}\n</explanation>"

    @property
    def held_out(self) -> bool:
        """Whether the text is kept out of training, under every policy."""
        return hashlib.sha256(self.text.encode()).digest()[0] < 26


def examples(n: int, rng: random.Random, *, stage: int = 2, wordings: tuple[str, ...] = RULES) -> Iterator[Example]:
    """Yield `n` examples, about half of which break a rule.

    A curriculum, without which so small a network does not find out that texts and rules have to do with each other. `stage` 0: one
    rule, and a topic's name for a text; 1: one rule, and a name or a word of the topic, or a sentence; 2: as they are judged.
    """
    for _ in range(n):
        topic = rng.choice(list(WORDS)) if stage < 2 or rng.random() < 0.95 else None
        forbidden = rng.sample([name for name in WORDS if name != topic], 1 if stage < 2 else rng.randint(1, MAX_RULES))
        if topic and rng.random() < 0.52:
            forbidden[rng.randrange(len(forbidden))] = topic
        yield Example(policy_of(forbidden, rng, wordings), said_of(topic, stage, rng), *verdict_of(topic, forbidden))


def said_of(topic: str | None, stage: int, rng: random.Random) -> str:
    """Return a text of a stage of the curriculum."""
    if topic and (stage == 0 or (stage == 1 and rng.random() < 0.3)):
        return topic
    if topic and stage == 1 and rng.random() < 0.5:
        return rng.choice(WORDS[topic])
    return text_of(topic, rng)


def policy_of(forbidden: list[str], rng: random.Random, wordings: tuple[str, ...]) -> str:
    """Return numbered rules that forbid the topics."""
    return "\n".join(f"{at}. {rng.choice(wordings).format(name)}" for at, name in enumerate(forbidden, 1))


def text_of(topic: str | None, rng: random.Random) -> str:
    """Return a sentence or two about a topic, or small talk."""
    if topic is None:
        return rng.choice(SMALL_TALK)
    said = rng.choice(SENTENCES).format(*rng.sample(WORDS[topic], 2))
    if rng.random() < NAMED:
        return f"{rng.choice(OPENINGS).format(topic)} {said}"
    kind = rng.random()
    if kind < 0.2:
        return f"{rng.choice(SMALL_TALK)} {said}"
    return f"{said} {rng.choice(SENTENCES).format(*rng.sample(WORDS[topic], 2))}" if kind < 0.5 else said


def verdict_of(topic: str | None, forbidden: list[str]) -> tuple[str, str]:
    """Return the label and the reason."""
    if topic in forbidden:
        return "FAIL", f"Rule {forbidden.index(topic) + 1} is broken: the text is about {topic}."
    return "PASS", f"No rule is broken: the text is about {topic or 'nothing that a rule names'}."
