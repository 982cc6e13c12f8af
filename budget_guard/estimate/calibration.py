"""Calibration: the bills of past calls, which bound the input of the next one.

A conversation that grows takes at most what its last call was billed for, plus the bytes of what is new, or its tokens
where they are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from budget_guard.estimate.prompt import KEPT_REASONING, Prompt
from budget_guard.estimate.tokens import encoding_of

_MOST_MODELS = 100
"""Models that are remembered: a name comes from outside, so there is no end to them."""
_MOST_CONVERSATIONS = 256
"""Conversations that are remembered of each."""
_FORGOTTEN_AT_ONCE = 16
"""Conversations that are forgotten once there are too many: more at once would make a call wait for it."""


class Calibration(dict[str, "ModelCalibration"]):
    """The bills of past calls, by model. A model's are made when they are first asked for.

    Safe to use from any thread without a lock: every step is one operation on a dict, and a lost one costs tightness,
    not the bound.

    Args:
        capacity: How many conversations to remember of each model.
    """

    __slots__ = ("capacity", "largest_output")

    def __init__(self, capacity: int = _MOST_CONVERSATIONS) -> None:
        super().__init__()
        self.capacity = capacity
        self.largest_output = 0
        """The most output tokens of any call so far."""

    def __missing__(self, model: str) -> ModelCalibration:
        made = ModelCalibration(self, model)
        return made if len(self) >= _MOST_MODELS else self.setdefault(model, made)


class ModelCalibration:
    """The bills of past calls to one model, by conversation; they bound the next call of each."""

    __slots__ = ("_all", "_billed", "_distrusted", "_encoding", "usual_output")

    def __init__(self, all: Calibration, model: str) -> None:
        self._all = all
        self._encoding = encoding_of(model)
        self._billed: dict[int, tuple[tuple[tuple[int, int], ...], int]] = {}
        self._distrusted = False
        self.usual_output = 0
        """Output tokens that a call took lately: the largest of the last few."""

    def bound(self, prompt: Prompt) -> tuple[int, str | None]:
        """The most input tokens that *prompt* can take, and what in it has no bound, in words."""
        base, _, parts, text, unweighed, opaque, conversation, texts = prompt
        tokens = base + text
        by_key: Mapping[int, int] | None = None
        if texts is not None and self._encoding is not None:
            counted = texts.counted(self._encoding)
            if counted is not None:
                tokens, by_key = counted
        new: Sequence[tuple[int, int]] = parts
        anchor = self._billed.get(conversation)
        if anchor is not None:
            before, anchored = anchor
            new = () if parts is before else _added(before, parts)
            if new:
                anchored += sum([weight for _, weight in new] if by_key is None else [by_key[key] for key, _ in new])
            # the bytes alone are no bound where the billed part held more than text
            if anchored < tokens or unweighed:
                tokens = anchored
        if unweighed or opaque:
            return self._unbounded(tokens, new, unweighed, opaque)
        return tokens, None

    def likely(self, prompt: Prompt) -> int | None:
        """The input tokens that *prompt* most likely takes, where they are counted; None where a bound is all."""
        if prompt.texts is None or self._encoding is None or prompt.unweighed or prompt.opaque:
            return None
        return prompt.texts.likely(self._encoding)

    def _unbounded(
        self, tokens: int, new: Sequence[tuple[int, int]], unweighed: Mapping[int, str], opaque: tuple[str, ...]
    ) -> tuple[int, str | None]:
        """As `bound`, of a prompt that takes *tokens* without what has no bound in it."""
        unbounded = list(opaque)
        longest = self._all.largest_output
        for key, _ in new:
            what = unweighed.get(key)
            if what is KEPT_REASONING and longest:
                tokens += longest  # it is part of one output, so no longer than the longest
            elif what is not None and what not in unbounded:
                unbounded.append(what)
        return tokens, ", ".join(unbounded) or None

    def learn(self, prompt: Prompt, input_tokens: int, output_tokens: int) -> None:
        """Remember what a call was billed for."""
        if output_tokens > self._all.largest_output:
            self._all.largest_output = output_tokens
        self.usual_output = max(output_tokens, self.usual_output * 9 // 10)
        parts, conversation = prompt[2], prompt[6]
        if not conversation or self._distrusted:
            return
        billed = self._billed
        billed[conversation] = (parts, input_tokens)
        if len(billed) > self._all.capacity:
            for oldest in list(billed)[: min(_FORGOTTEN_AT_ONCE, self._all.capacity // 2)]:
                billed.pop(oldest, None)

    def distrust(self) -> None:
        """Never anchor nor count for the model again: it was billed above its bound once."""
        self._distrusted = True
        self._encoding = None
        self._billed = {}


def _added(before: tuple[tuple[int, int], ...], now: tuple[tuple[int, int], ...]) -> Sequence[tuple[int, int]]:
    """The messages of *now* that were not in *before*, each as often as it is new."""
    if now[: len(before)] == before:
        return now[len(before) :]
    return list((Counter(now) - Counter(before)).elements())
