"""Prompts of arbitrary conversations: one that cannot be rendered does not affect the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.interfaces import Unjudgeable
from worker.engine.prompting.prompt import Encoded, Message, Prompter
from worker.engine.prompting.windows import Policy
from worker.engine.rendering import MAX_NEW_TOKENS, LongPrompt, Renderer

ROLES = st.sampled_from(["system", "user", "assistant"])
LENGTHS = st.sampled_from([0, 1, 40, 300, 2000])
ROOM = Policy(tokens=250, overlap=16, most=64)


@dataclass
class Encoding:
    ids: list[int]
    offsets: list[tuple[int, int]]


class Characters:
    """A tokenizer to which each character is a token."""

    def encode_batch(
        self,
        input: Sequence[Any],  # noqa: A002
        is_pretokenized: bool = False,
        add_special_tokens: bool = False,
    ) -> list[Encoding]:
        return [Encoding([*map(ord, text)], [(i, i + 1) for i in range(len(text))]) for text in input]


def every_turn(messages: Sequence[Message]) -> str:
    return "POLICY\n" + "".join(f"{message['role'].upper()}: {message['content']}\n\n" for message in messages) + "END\n"


def from_the_user_on(messages: Sequence[Message]) -> str:
    """As templates do that know a system message in front of a user's only."""
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    return every_turn(messages[users[0] :] if users else messages[:0])


def in_turn_only(messages: Sequence[Message]) -> str:
    """As templates do that raise where users and assistants do not alternate, or a system message is there."""
    if any(message["role"] != ("user", "assistant")[at % 2] for at, message in enumerate(messages)):
        raise ArithmeticError("Conversation roles must alternate")
    return every_turn(messages)


@pytest.mark.parametrize("render", [every_turn, from_the_user_on, in_turn_only])
@given(turns=st.lists(st.tuples(ROLES, LENGTHS), max_size=7))
def test_no_conversation_costs_its_neighbour_a_prompt(
    render: Callable[[Sequence[Message]], str], turns: list[tuple[str, int]]
) -> None:
    renderer = Renderer(
        Prompter(render, plain=Characters(), control=Characters()), max_positions=ROOM.tokens + MAX_NEW_TOKENS, policy=ROOM
    )
    strange = [{"role": role, "content": "y" * length} for role, length in turns]
    found, neighbour = renderer([strange, "hello"])
    assert isinstance(neighbour, Encoded)
    if isinstance(found, LongPrompt):
        assert all(len(prompt.ids) <= ROOM.tokens for prompt in found.prompts)
        assert found.spans[0][0] == 0
        assert found.spans[-1][1] == len(strange[-1]["content"])
    else:
        assert isinstance(found, Encoded | Unjudgeable)


def test_a_long_response_to_a_system_message_is_judged_in_windows_behind_it() -> None:
    renderer = Renderer(
        Prompter(every_turn, plain=Characters(), control=Characters()), max_positions=ROOM.tokens + MAX_NEW_TOKENS, policy=ROOM
    )
    long = [{"role": "system", "content": "be kind"}, {"role": "assistant", "content": "y word " * 200}]
    (found,) = renderer([long])
    assert isinstance(found, LongPrompt)
    assert len(found.prompts) > 1
    for prompt in found.prompts:
        assert prompt.responds
        assert "SYSTEM: be kind" in "".join(map(chr, prompt.ids))
    assert found.notes == {}
