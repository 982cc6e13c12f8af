"""The estimate is an upper bound: of any text in any tokenizer, and of any conversation however it changes."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget_guard import Budget, Prompt, Usage, token_bound, weigh
from budget_guard.estimate.calibration import Calibration
from budget_guard.estimate.prompt import with_messages
from tests.builders import Way, call, session

TEXTS = st.text(max_size=60)
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/1"}}]}
HANGUL = range(0xAC00, 0xD7A4)


def size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# --- text


@given(TEXTS, TEXTS)
def test_a_message_weighs_at_least_its_texts_in_whatever_shape_it_comes(role: str, text: str) -> None:
    texts = token_bound(role) + token_bound(text)
    for message in ({"role": role, "content": text}, {"role": role, "content": [{"text": text}]}, f"{role} {text}"):
        assert weigh(messages=[message]).text >= texts


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_text_takes_at_most_its_bytes(text: str) -> None:
    assert token_bound(text) == len(text)


@given(st.text())
def test_text_takes_at_most_its_bytes_or_those_of_any_normal_form(text: str) -> None:
    bound = token_bound(text)
    assert bound >= size(text)
    assert bound >= size(unicodedata.normalize("NFC", text))
    assert bound >= size(unicodedata.normalize("NFKC", text))
    if not any(ord(character) in HANGUL for character in text):
        assert bound >= size(unicodedata.normalize("NFKD", text))


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_no_single_character_is_worth_less_than_its_bytes_in_any_normal_form(form: Any) -> None:
    for number in [*range(0x3400), *range(0xA000, 0xAC00), *range(0xD7A4, 0x20000), *range(0x2F800, 0x2FA20)]:
        character = chr(number)
        assert token_bound(character) >= size(unicodedata.normalize(form, character)), hex(number)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("", 0),
        ("naïve", 7),  # ï is i and a combining mark in two bytes
        ("\ufdfa", 33),  # one character that decomposes to eighteen
        ("한국어", 9),  # decomposed Hangul is composed again before it is cut into tokens
        ("\ud800", 3),  # half a surrogate pair, as broken JSON has them
        ("\U000e0fff", 33),  # not assigned: a later Unicode may decompose it
        ("👩\u200d👩\u200d👧", 18),
    ],
)
def test_characters_that_have_fooled_byte_counts(text: str, bound: int) -> None:
    assert token_bound(text) == bound


# --- messages


@pytest.mark.parametrize(
    "message",
    [
        "a long text",
        {"role": "user", "content": "a long text"},
        {"role": "user", "content": [{"type": "text", "text": "a long text"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": "a long text"}'}}]},
        {"type": ["a long text"], "input": {"type": {"type": "string"}}},
        {"n": 12345678901, "b": True, "none": None, "float": 1.5, "odd": object()},
    ],
)
def test_every_text_in_a_message_is_weighed_and_messages_differ_by_content(message: Any) -> None:
    once, twice, other = (weigh(messages=messages) for messages in ([message], [message] * 2, ["other"]))
    assert once.text >= len("a long text")
    assert once.text == once.parts[0][1] and twice.text == 2 * once.text
    assert twice.parts == once.parts * 2
    assert once.parts[0][0] != other.parts[0][0]
    assert not once.unweighed


def test_what_has_no_bound_is_told_once_however_often_it_is_there() -> None:
    file = {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}
    once, twice = (Calibration()["a model"].bound(weigh(messages=[file] * many)) for many in (1, 2))
    assert once[1] and once[1] == twice[1]


def test_conversations_that_begin_with_other_words_of_the_same_weight_are_other_ones() -> None:
    first, other, later = ({"role": "user", "content": text} for text in ("abc", "xyz", "def"))
    begun = [weigh(messages=[each, later]) for each in (first, other, first)]
    assert begun[0].conversation == begun[2].conversation != begun[1].conversation != 0
    again = [with_messages(weigh(), [each, later], None, ())[0] for each in (first, other, first)]
    assert [each.conversation for each in again] == [each.conversation for each in begun]


def test_a_single_text_is_a_conversation_of_one_message() -> None:
    assert weigh(messages="hello") == weigh(messages=["hello"])


@pytest.mark.parametrize("more", [{"system": "You are"}, {"tools": [{"name": "f"}]}, {"schema": {"type": "object"}}])
def test_instructions_tools_and_schema_weigh_and_make_another_conversation(more: dict[str, Any]) -> None:
    bare, full = weigh(messages="hi"), weigh(messages="hi", **more)
    assert full.base > bare.base
    assert full.base_key != bare.base_key
    assert full.parts == bare.parts


def test_text_that_may_be_sent_escaped_is_weighed_escaped() -> None:
    grown = weigh(tools=[{"name": "é" * 100}]).base - weigh(tools=[{"name": ""}]).base
    assert grown >= 100 * len("\\u00e9")


# --- conversations, against a tokenizer whose every count is known


class Tokenizer:
    """A byte-level tokenizer with some merges: the truth that a bound must never be below."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        alphabet = "abc é한ﷺ"
        self._merges = {"".join(rng.choices(alphabet, k=rng.randint(2, 5))).encode() for _ in range(40)}
        self._system, self._framing = rng.randint(0, 170), rng.randint(0, 7)
        self._form: Literal["NFC", "NFKC"] | None = rng.choice([None, "NFC", "NFKC"])

    def count(self, text: str) -> int:
        text = text if self._form is None else unicodedata.normalize(self._form, text)
        data, at, tokens = text.encode(), 0, 0
        while at < len(data):
            at += next((n for n in range(12, 1, -1) if data[at : at + n] in self._merges), 1)
            tokens += 1
        return tokens

    def request(self, messages: Sequence[str]) -> int:
        return self._system + sum(self.count(message) + self._framing for message in messages)


WORDS = st.text(st.sampled_from("abc é한ﷺ"), max_size=40)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("say"), WORDS),
        st.tuples(st.just("repeat"), st.integers(0, 20)),
        st.tuples(st.just("drop"), st.integers(0, 20)),
        st.tuples(st.just("compact"), WORDS),
        st.tuples(st.just("swap"), st.integers(0, 20)),
        st.tuples(st.just("edit"), st.integers(0, 20)),
        st.tuples(st.just("start over"), WORDS),
    ),
    max_size=25,
)


def changed(messages: list[str], how: str, what: Any) -> list[str]:
    if how == "say":
        return [*messages, what]
    if how == "start over":
        return [what]
    if how == "compact":
        return [messages[0], what, *messages[-2:]]
    at = what % len(messages)
    if how == "repeat":
        return [*messages, messages[at]]
    if how == "drop":
        return messages[:at] + messages[at + 1 :] or ["again"]
    if how == "swap":
        return [*messages[:at], *reversed(messages[at:])]
    return [*messages[:at], messages[at] + "!", *messages[at + 1 :]]


@given(st.integers(0, 20), CHANGES, st.integers(1, 4))
def test_the_anchored_bound_is_never_below_the_truth_however_a_conversation_changes(
    seed: int, changes: list[tuple[str, Any]], capacity: int
) -> None:
    tokenizer, calibration, messages = Tokenizer(seed), Calibration(capacity), ["a"]
    for how, what in changes:
        messages = changed(messages, how, what)
        prompt, truth = weigh(messages=messages), tokenizer.request(messages)
        bound, unbounded = calibration["m"].bound(prompt)
        assert unbounded is None
        assert truth <= bound <= prompt.base + prompt.text, "neither below the truth nor looser than the bytes"
        calibration["m"].learn(prompt, truth, 5)


def test_the_anchor_makes_the_bound_tight() -> None:
    calibration, history = Calibration(), ["word " * 200]
    calibration["m"].learn(weigh(messages=history), 210, 5)
    prompt = weigh(messages=[*history, "more"])
    assert calibration["m"].bound(prompt)[0] == 210 + prompt.parts[1][1]
    assert calibration["another model"].bound(prompt)[0] == prompt.base + prompt.text
    other = weigh(system="other", messages=[*history, "more"])
    assert calibration["m"].bound(other)[0] == other.base + other.text


def test_a_model_that_passed_its_bound_once_is_never_anchored_again() -> None:
    calibration, prompt = Calibration(), weigh(messages=["word " * 200])
    for model in ("liar", "honest"):
        calibration[model].learn(prompt, 10, 5)
    calibration["liar"].distrust()
    calibration["liar"].learn(prompt, 10, 5)
    assert calibration["liar"].bound(prompt)[0] == prompt.base + prompt.text
    assert calibration["honest"].bound(prompt)[0] == 10


def test_a_session_distrusts_a_model_that_passed_its_bound(way: Way) -> None:
    run, prompt = session(Budget("$1")), weigh(messages=["word " * 100])
    asked = call("large", cap=50)._replace(prompt=prompt)
    full = prompt.base + prompt.text
    way.pay(run, asked, Usage(input=150, output=5))
    assert way.authorize(run, asked).estimate.input_tokens == 150
    way.pay(run, asked, Usage(input=151, output=5))
    assert way.authorize(run, asked).estimate.input_tokens == full
    way.pay(run, asked, Usage(input=150, output=5))
    assert way.authorize(run, asked).estimate.input_tokens == full


def test_conversations_are_remembered_in_bounded_memory() -> None:
    calibration = Calibration(capacity=8)
    for number in range(1_000):
        calibration["m"].learn(weigh(messages=[f"{number} " * 50]), 10, 5)
    assert len(calibration["m"]._billed) <= 8
    last = weigh(messages=["999 " * 50])
    assert calibration["m"].bound(last)[0] == 10


def test_models_are_remembered_in_bounded_memory() -> None:
    calibration, prompt = Calibration(), weigh(messages=["hi " * 500])
    for number in range(1_000):
        calibration[f"m{number}"].learn(prompt, 10, 5)
    assert len(calibration) <= 100
    assert calibration["m0"].bound(prompt) == (10, None)
    assert calibration["m999"].bound(prompt) == (prompt.base + prompt.text, None)


# --- what has no weight


def test_an_image_is_unbounded_until_it_was_billed_and_counts_again_when_it_is_new() -> None:
    calibration, first = Calibration(), weigh(messages=[IMAGE])
    assert calibration["m"].bound(first)[1] == "an image"
    calibration["m"].learn(first, 1_500, 5)
    tokens, unbounded = calibration["m"].bound(first)
    assert (tokens, unbounded) == (1_500, None)
    again = weigh(messages=[IMAGE, "and", IMAGE])
    assert calibration["m"].bound(again)[1] == "an image"
    other = weigh(messages=[IMAGE, {"type": "image_url", "image_url": {"url": "https://x/2"}}])
    assert calibration["m"].bound(other)[1] == "an image"


def test_a_billed_image_is_never_bounded_by_its_bytes_alone() -> None:
    calibration = Calibration()
    calibration["m"].learn(weigh(messages=[IMAGE]), 50_000, 5)
    assert calibration["m"].bound(weigh(messages=[IMAGE, "more"]))[0] > 50_000


def test_history_that_the_provider_keeps_is_never_anchored() -> None:
    calibration, kept = Calibration(), weigh(messages=["hi"], opaque=["history kept by the provider"])
    calibration["m"].learn(kept, 5, 5)
    tokens, unbounded = calibration["m"].bound(kept)
    assert (tokens, unbounded) == (kept.base + kept.text, "history kept by the provider")


def test_kept_reasoning_is_bounded_by_the_longest_output_so_far() -> None:
    calibration = Calibration()
    history: list[Any] = ["question"]
    assert calibration["m"].bound(weigh(messages=[*history, REASONING]))[1] is not None
    calibration["m"].learn(weigh(messages=history), 20, 4_000)
    prompt: Prompt = weigh(messages=[*history, REASONING, "answer"])
    new = sum(weight for _, weight in prompt.parts[1:])
    assert calibration["m"].bound(prompt) == (20 + new + 4_000, None)
    shown = weigh(messages=[*history, {**REASONING, "encrypted_content": "x" * 100}, "answer"])
    assert calibration["m"].bound(shown)[0] < 20 + 4_000


def test_the_usual_output_follows_the_largest_of_the_latest() -> None:
    calibration, prompt = Calibration(), weigh(messages="hi")
    assert calibration["m"].usual_output == 0
    calibration["m"].learn(prompt, 5, 1_000)
    for _ in range(3):
        calibration["m"].learn(prompt, 5, 10)
    assert calibration["m"].usual_output == 729


def test_the_names_of_fields_are_weighed_too() -> None:
    short, long = ({"role": "user", "content": [{"type": "data", name: {name: 1}}]} for name in ("n", "n" * 500))
    assert weigh(messages=[long]).text >= weigh(messages=[short]).text + 998


@pytest.mark.parametrize("kind", ["input_image", "image_url", "input_file", "item_reference", "compaction", "video"])
def test_a_message_that_is_more_than_text_is_so_without_anybody_who_looks_into_it(kind: str) -> None:
    assert weigh(messages=[{"type": kind, "id": "x"}]).unweighed
    assert not weigh(messages=[{"type": "message", "id": "x"}]).unweighed


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("schema", [False, True])
@pytest.mark.parametrize("reasoning", [False, True])
@pytest.mark.parametrize("carried", [(), ("an image",), ("audio",), ("a file",), ("an image", "audio", "a video")])
def test_a_call_needs_what_its_request_offers_asks_for_and_carries(
    tools: bool, schema: bool, reasoning: bool, carried: tuple[str, ...]
) -> None:
    prompt = Prompt(1, 1, (), 0, dict(enumerate(carried)))
    expected = {
        *(["tools"] if tools else []),
        *(["json_schema"] if schema else []),
        *(["reasoning"] if reasoning else []),
        *(["vision"] if "an image" in carried else []),
        *(["audio"] if "audio" in carried else []),
    }
    assert prompt.needs(tools=tools, schema=schema, reasoning=reasoning) == expected
    if not reasoning:
        assert prompt.needs(tools=tools, schema=schema) == expected
