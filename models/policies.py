"""What the policy demo learns: made-up sentences about harmless topics, judged by rules that forbid some of the topics."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

TOPICS = {  # what a rule calls it: words of its texts
    "gardening": "tulips|the compost heap|my tomato plants|rose bushes|the lawn|pruning shears|flower beds|weeds|the greenhouse|seedlings",
    "refunds": "my money back|the returned parcel|a repayment|the receipt|reimbursement|the refund form|a credit note|the wrong charge|the invoice|store credit",
    "football": "the goalkeeper|a penalty kick|the referee|the league table|a corner kick|the striker|the halftime score|the offside rule|the pitch|the cup final",
    "cooking": "the frying pan|an onion soup|the oven|fresh dough|a risotto|the recipe|a wooden spoon|garlic and butter|the roast|a pinch of salt",
    "weather": "the thunderstorm|heavy rain|the forecast|a cold front|the snowfall|sunshine|fog in the valley|the heat wave|hail|strong wind",
    "trains": "the night train|platform four|the railway station|a sleeping car|the conductor|the timetable|the locomotive|a delayed connection|the tracks|a return ticket",
    "cats": "our kitten|the litter box|a purring tomcat|the scratching post|whiskers|cat food|a tabby|the cat flap|her paws|meowing at night",
    "astronomy": "the telescope|Saturn's rings|a comet|the Milky Way|a lunar eclipse|distant galaxies|the observatory|shooting stars|Jupiter's moons|a nebula",
    "chess": "the queen's gambit|a checkmate|the white bishop|an endgame|castling early|her knight|the grandmaster|a pawn structure|the rook|a stalemate",
    "music": "the violin|a piano sonata|the choir|a guitar chord|the orchestra|a drum solo|the melody|the concert hall|a flute|the bass line",
    "camping": "the tent|a campfire|the sleeping bag|our caravan|a gas stove|the tent pegs|a hiking trail|the backpack|the campsite|a hammock",
    "painting": "the canvas|watercolours|an oil painting|the brush|a portrait|the easel|bright pigments|a still life|the gallery|charcoal sketches",
    "coffee": "an espresso|roasted beans|the coffee grinder|a cappuccino|the milk foam|a flat white|the barista|filter paper|the moka pot|decaf",
    "cycling": "the bicycle chain|a flat tyre|the handlebars|my helmet|a mountain bike|the saddle|the bike lane|her pedals|a steep climb|the spokes",
    "dentists": "a toothache|the filling|my wisdom teeth|the dental chair|a root canal|the drill|the braces|dental floss|the hygienist|a crown on the molar",
    "holidays": "the beach hotel|our flight|the travel agency|a cruise|the suitcase|an island|the passport|a guided tour|the hostel|the souvenir shop",
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
MAX_RULES = 4


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


def examples(n: int, rng: random.Random, *, wordings: tuple[str, ...] = RULES) -> Iterator[Example]:
    """Yield `n` examples, about half of which break a rule."""
    for _ in range(n):
        topic = rng.choice(list(WORDS)) if rng.random() < 0.95 else None
        forbidden = rng.sample([name for name in WORDS if name != topic], rng.randint(1, MAX_RULES))
        if topic and rng.random() < 0.53:
            forbidden[rng.randrange(len(forbidden))] = topic
        yield Example(policy_of(forbidden, rng, wordings), text_of(topic, rng), *verdict_of(topic, forbidden))


def policy_of(forbidden: list[str], rng: random.Random, wordings: tuple[str, ...]) -> str:
    """Return numbered rules that forbid the topics."""
    return "\n".join(f"{at}. {rng.choice(wordings).format(name)}" for at, name in enumerate(forbidden, 1))


def text_of(topic: str | None, rng: random.Random) -> str:
    """Return a sentence or two about a topic, or small talk."""
    if topic is None:
        return rng.choice(SMALL_TALK)
    said = rng.choice(SENTENCES).format(*rng.sample(WORDS[topic], 2))
    kind = rng.random()
    if kind < 0.2:
        return f"{rng.choice(SMALL_TALK)} {said}"
    return f"{said} {rng.choice(SENTENCES).format(*rng.sample(WORDS[topic], 2))}" if kind < 0.5 else said


def verdict_of(topic: str | None, forbidden: list[str]) -> tuple[str, str]:
    """Return the label and the reason."""
    if topic in forbidden:
        return "FAIL", f"Rule {forbidden.index(topic) + 1} is broken: the text is about {topic}."
    return "PASS", f"No rule is broken: the text is about {topic or 'nothing that a rule names'}."
