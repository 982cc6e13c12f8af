"""Counted tokens: a tighter bound where a tokenizer is installed, and never one that is too low."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budget_guard import Prompt, weigh
from budget_guard.estimate import tokens
from budget_guard.estimate.calibration import Calibration
from budget_guard.estimate.prompt import token_bound
from tests.estimate.reference.texts import ENCODINGS, MANY, texts

REFERENCE = Path(__file__).parent / "reference" / "counts.txt.gz"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tokens, "_counts", {})
    caches: list[Any] = [tokens.is_installed, tokens._counter]
    yield
    monkeypatch.undo()
    for each in caches:
        each.cache_clear()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tokenizer that makes a token of every four characters, and notes what it is asked for."""
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return len(text) // 4

    monkeypatch.setattr(tokens, "is_installed", lambda: True)
    monkeypatch.setattr(tokens, "_counter", lambda encoding: count)
    return asked


def bound(prompt: Prompt, model: str = "gpt-4o") -> int:
    most, _ = Calibration()[model].bound(prompt)
    return most


def say(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


# --- the table


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("chatgpt-4o-latest", "o200k_base"),
        ("openai/gpt-4.1-nano", "o200k_base"),
        ("gpt-5", "o200k_base"),
        ("gpt-5.1-codex-mini", "o200k_base"),
        ("o3-mini-2025-01-31", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:acme::1", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base"),
        ("gpt-3.5-turbo-0125", "cl100k_base"),
        ("gpt-4o-mini-foo", None),
        ("my-gpt-4o", None),
        ("gpt-6-sol", None),
        ("gpt-4o-audio-preview", None),
        ("claude-sonnet-4-5", None),
        ("someone/gpt-4o", None),
        ("ft:", None),
    ],
)
def test_only_names_that_are_known_for_certain_have_an_encoding(model: str, encoding: str | None) -> None:
    assert tokens.encoding_of(model) == encoding


# --- the counts


def test_every_text_takes_at_least_what_openais_tokenizer_makes_of_it() -> None:
    digest, *reference = gzip.decompress(REFERENCE.read_bytes()).decode().split("\n")
    counters: list[Callable[[str], int] | None] = [tokens._counter(name) for name in ENCODINGS]
    hashed, short = hashlib.sha256(), list[str]()
    for number, (text, wanted) in enumerate(zip(texts(), map(int, reference), strict=True)):
        hashed.update(text.encode() + b"\0")
        assert token_bound(text) >= wanted
        counter = counters[number % len(counters)]
        if counter is not None and counter(text) < wanted:
            short.append(text)
    assert hashed.hexdigest() == digest, "make the reference anew: python -m tests.estimate.reference.make"
    assert (len(reference), short) == (MANY, [])


def test_a_first_hold_is_close_to_the_cost() -> None:
    pytest.importorskip("bpe_openai")
    counter = tokens._counter("o200k_base")
    assert counter is not None
    chinese = "预算守卫在调用之前先预留最坏情况的费用 而不是在收到账单之后才发现超支。" * 60
    samples = {
        "README": (ROOT / "README.md").read_text(encoding="utf-8")[:8_000],
        "Python": Path(__file__).read_text(encoding="utf-8")[:8_000],
        "JSON": json.dumps([{"id": i, "name": f"item {i}", "price": i * 1.25, "tags": ["a", "b"]} for i in range(150)]),
        "Chinese": chinese,
    }
    for name, text in samples.items():
        true = counter(text) + 7
        input_tokens = bound(weigh(messages=[say(text)]))
        for written in (true * 3 // 4, true * 7 // 10):  # 4,000 in and 3,000 out; 1,000 in and 700 out
            cost, held = true * 2_500 + written * 10_000, input_tokens * 2_500 + written * 10_000
            assert 1 <= held / cost <= 1.25, (name, held / cost)


def test_instructions_and_messages_are_counted_and_tools_are_bounded_by_their_bytes(counted: list[str]) -> None:
    tool = {"name": "look", "description": "Look at it. " * 20}
    messages: list[Any] = [say("a" * 400), {"role": "user", "content": [{"type": "text", "text": "é" * 400}]}]
    whole = weigh(system="b" * 4_000, tools=[tool], messages=messages)
    by_bytes = bound(whole, "unknown")
    most = bound(whole)
    assert by_bytes == whole.base + whole.text
    assert most == by_bytes - sum(token_bound(text) - len(text) // 4 for text in counted)
    assert len(counted) == 3 and not any("look" in text for text in counted)


def test_what_is_likely_has_the_framing_that_openai_tells_of(counted: list[str]) -> None:
    texts = ["a" * 400, "b" * 800, "c" * 1_200]
    counts = [len("\x1f".join(("role", "content", *say(text).values()))) // 4 for text in texts]
    for said in range(4):
        messages = [say(text) for text in texts[:said]]
        for prompt, system in ((weigh(messages=messages), 0), (weigh(system="d" * 40, messages=messages), 10 + 4)):
            assert prompt.texts is not None
            assert prompt.texts.likely("o200k_base") == 3 + system + sum(counts[:said]) + 4 * said
    with_tools = weigh(messages=[say("hello")], tools=[{"name": "look"}])
    assert with_tools.texts is not None and with_tools.texts.likely("o200k_base") is None


def test_the_same_text_is_counted_once(counted: list[str]) -> None:
    for _ in range(3):
        bound(weigh(system="be kind", messages=[say("hello"), say("hello")]))
    assert len(counted) == 2


def test_texts_are_let_go_of_once_they_are_counted(counted: list[str]) -> None:
    prompt = weigh(messages=[say("a" * 400)])
    most = bound(prompt)
    assert prompt.texts is not None and prompt.texts._messages == ()
    assert bound(prompt) == most < bound(prompt, "gpt-4") == prompt.base + prompt.text


@pytest.mark.parametrize("text", ["a" * (tokens.MOST_CHARACTERS + 1), "é" * (tokens.MOST_CHARACTERS + 1)])
def test_a_text_that_is_too_long_is_bounded_by_its_bytes(counted: list[str], text: str) -> None:
    prompt = weigh(messages=[say(text)])
    assert (bound(prompt), counted) == (prompt.base + prompt.text, [])


def test_a_tokenizer_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str) -> int:
        raise OverflowError("too much")

    monkeypatch.setattr(tokens, "is_installed", lambda: True)
    for counter in (lambda encoding: fails, lambda encoding: None):
        monkeypatch.setattr(tokens, "_counter", counter)
        prompt = weigh(system="be kind", messages=[say("hello")])
        assert bound(prompt) == prompt.base + prompt.text


def test_a_count_above_the_bytes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "is_installed", lambda: True)
    monkeypatch.setattr(tokens, "_counter", lambda encoding: lambda text: 10**9)
    prompt = weigh(system="be kind", messages=[say("hello")])
    assert bound(prompt) == prompt.base + prompt.text


def test_a_message_that_was_changed_since_is_bounded_by_the_bytes_that_it_had(counted: list[str]) -> None:
    message = say("a" * 400)
    prompt = weigh(messages=[message])
    message["content"] = "b"
    assert bound(prompt) == prompt.base + prompt.text


def test_of_a_conversation_that_grows_what_is_new_is_counted(counted: list[str]) -> None:
    calibration = Calibration()["gpt-4o"]
    first = weigh(messages=[say("a" * 400)])
    calibration.bound(first)
    calibration.learn(first, 150, 20)
    counted.clear()
    second = weigh(messages=[say("a" * 400), say("b" * 800)])
    most, _ = calibration.bound(second)
    assert len(counted) == 1
    assert most == 150 + len(counted[0]) // 4 + 16


def test_a_model_that_was_billed_above_its_bound_is_not_counted_for_again(counted: list[str]) -> None:
    calibration = Calibration()["gpt-4o"]
    calibration.distrust()
    prompt = weigh(messages=[say("a" * 400)])
    assert calibration.bound(prompt) == (prompt.base + prompt.text, None)


# --- which tokenizer


def test_without_one_a_prompt_keeps_no_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "is_installed", lambda: False)
    assert weigh(messages=[say("hello")]).texts is None


def test_tiktoken_is_used_only_where_its_vocabulary_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tokens, "find_spec", lambda name: None if name == "bpe_openai" else object())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tokens, "import_module", lambda name: pytest.fail("it would be downloaded"))
    tokens.is_installed.cache_clear()
    tokens._counter.cache_clear()
    assert (tokens.is_installed(), tokens._counter("o200k_base")) == (False, None)
    Path(tokens._vocabulary("o200k_base")).write_text("another one")
    tokens.is_installed.cache_clear()
    tokens._counter.cache_clear()
    assert (tokens.is_installed(), tokens._counter("o200k_base")) == (True, None)


def test_tiktoken_counts_where_its_vocabulary_is(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = SimpleNamespace(encode_ordinary=str.split)
    monkeypatch.setattr(tokens, "find_spec", lambda name: None if name == "bpe_openai" else object())
    monkeypatch.setattr(tokens, "_has_vocabulary", lambda name: True)
    monkeypatch.setattr(tokens, "import_module", lambda name: SimpleNamespace(get_encoding=lambda name: encoding))
    tokens._counter.cache_clear()
    counter = tokens._counter("o200k_base")
    assert counter is not None and counter("so many words") == 3


def test_a_tokenizer_that_counts_nonsense_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tokens, "_bpe_openai", lambda encoding: lambda text: 0)

    def broken(encoding: str) -> None:
        raise ImportError("no such symbol")

    monkeypatch.setattr(tokens, "_tiktoken", broken)
    tokens._counter.cache_clear()
    assert tokens._counter("o200k_base") is None
    assert "bounded by their bytes" in caplog.text
    kept = [given for record in caplog.records for given in record.args or ()]
    assert not [given for given in kept if isinstance(given, BaseException)], "with all frames that it has passed"


def test_texts_of_equal_weight_are_equal_and_hash_alike(counted: list[str]) -> None:
    one, same, other = (weigh(messages=[say(text)]).texts for text in ("hello", "hello", "goodbye"))
    assert one == same and hash(one) == hash(same)
    assert one != other and hash(one) != hash(other) and one != "hello"
