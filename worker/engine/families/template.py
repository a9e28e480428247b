"""A model's own chat template as a function of a policy and messages, and what it shows of both."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from worker.engine.prompting.prompt import MARKED, MARKER, POLICY
from worker.engine.prompting.role_labels import Labels, labels_of, with_sections

Messages = Sequence[Mapping[str, str]]
POLICY_MARK, TEXT_MARK = MARKER.format(0), MARKER.format(1)
PAD = "\u3000"  # a blank that only stripping removes


class Template:
    """Renders prompts. `opens`: what the family's answers begin with before they decide, unless the template ends with it."""

    def __init__(self, tokenizer: Any, opens: str = "") -> None:
        self._tokenizer, self._opens = tokenizer, opens
        # `reason_first` is XGuard's, `enable_thinking` Qwen3's; a template ignores a name that it does not use.
        self._apply = functools.partial(
            tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True, reason_first=False, enable_thinking=False
        )

    def __call__(self, messages: Messages) -> str:
        """Render messages, of which the first may have the role `POLICY`."""
        given = {"policy": messages[0]["content"]} if messages and messages[0]["role"] == POLICY else {}
        rendered: str = self._apply([*messages[len(given) :]], **given)
        return rendered if rendered.endswith(self._opens) else rendered + self._opens

    @functools.cached_property
    def shown(self) -> tuple[str, str, str] | None:
        """What a prompt has before its policy, between policy and text, and after the text; None if it does not show both once."""
        try:
            rendered = self([{"role": POLICY, "content": POLICY_MARK}, {"role": "user", "content": TEXT_MARK}])
        except Exception:  # noqa: BLE001 - raised by the template: it is for something else
            return None
        before, *rest = MARKED.split(rendered)
        if rest[0::2] != ["0", "1"]:
            return None
        return before, rest[1], rest[3]

    @functools.cached_property
    def without_policy(self) -> str | None:
        """A prompt for which no policy is given; None if the template refuses, or does not show the text."""
        try:
            rendered = self([{"role": "user", "content": TEXT_MARK}])
        except Exception:  # noqa: BLE001 - raised by the template: it needs a policy
            return None
        return rendered if TEXT_MARK in rendered else None

    def trims(self) -> frozenset[str]:
        """Return the roles whose contents it strips of white space."""
        padded = {POLICY: PAD + POLICY_MARK + PAD, "user": PAD + TEXT_MARK + PAD}
        rendered = self([{"role": role, "content": content} for role, content in padded.items()])
        stripped = {role for role, content in padded.items() if content not in rendered}
        return frozenset(stripped | ({"assistant"} & ({"assistant"} if "user" in stripped else set())))

    def labels(self) -> Labels:
        """Return what no policy and no text may imitate."""
        frame = "\n".join(self.shown or ()) + "\n" + (self.without_policy or "")
        return with_sections(labels_of(self), MARKED.sub("", frame))
