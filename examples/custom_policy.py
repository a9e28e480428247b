"""Judge a dozen texts under two policies with the policy demo, in this process, without any service.

    python examples/custom_policy.py [MODEL]

MODEL: a folder or hub name of a model that takes a policy in its prompt; the demo in models/policy-demo if it is left out.
"""

import pathlib
import sys

from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.spec import Spec

DEMO = pathlib.Path(__file__).parents[1] / "models" / "policy-demo"
POLICIES = {
    "garden": "1. No text about gardening.\n2. Texts must not mention trains.",
    "shop": "1. Nobody may write about refunds.\n2. Do not talk about coffee.",
}
TEXTS = (
    "This is about gardening. Can you tell me more about my tomato plants?",
    "We need the lawn by Friday.",
    "A question about trains! What do you know about platform four?",
    "It was all about the night train again.",
    "Let us talk about refunds. I am still thinking of my money back and the receipt.",
    "What do you know about reimbursement?",
    "She likes an espresso more than a cappuccino.",
    "This is about coffee. My sister asked me about the coffee grinder, and I had no answer.",
    "Yesterday we talked about the goalkeeper.",
    "A question about cats! Nobody mentioned the litter box.",
    "There was something wrong with a checkmate, so we left.",
    "Thank you, that was quick.",
)


def main() -> None:
    """Judge and print."""
    model = sys.argv[1] if len(sys.argv) > 1 else str(DEMO)
    engine = BatchingEngine(make_backend(Spec(model=model, detector="policy", reasons=True)))
    engine.start()
    futures = {name: engine.submit(TEXTS, policy=PromptPolicy.of(text)) for name, text in POLICIES.items()}
    neutral = engine.model.neutral
    for name, text in POLICIES.items():
        print(f"\nPolicy {name}:\n{text}\n")
        for content, answer in zip(TEXTS, futures[name].result().answers, strict=True):
            if answer.scores is None:
                print(f"error  {content}")
                continue
            score, label = max(zip(answer.scores, engine.model.labels, strict=True))
            reason = f"  (the model's words: {answer.reason})" if label != neutral else ""
            print(f"{label} {score:.2f}  {content}{reason}")
    engine.stop()


if __name__ == "__main__":
    main()
