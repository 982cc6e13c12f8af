"""What a request asks for, as one value for every dialect."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from budget_guard.calls.call import ModelCall
from budget_guard.calls.worst_case import A_PARAMETER
from budget_guard.estimate.prompt import Prompt
from budget_guard.units.amounts import unchecked
from budget_guard.wire.values import Json, whole

STANDARD_TIERS = frozenset({"default", "standard", "standard_only", "on_demand", "performance"})
"""The names of a provider's standard tier."""


_TEXT_ALONE: frozenset[str] = frozenset()
_CHOICES = ("n", "best_of", "candidateCount", "candidate_count", "num_generations", "num_return_sequences")


def choices_of(body: Json) -> int:
    """How many answers *body* asks for, by whatever name servers of other dialects know it: the most of them."""
    return max([1, *(count for count in map(whole, map(body.get, _CHOICES)) if count is not None)])


class Request(NamedTuple):
    """What one request asks for, read from what is really sent."""

    dialect: str
    model: str
    """The model as the provider knows it; empty where the request names none."""
    prompt: Prompt
    """What the input weighs. Text is weighed by its bytes, pictures of visible size by the provider's rule."""
    provider: str | None = None
    max_output_tokens: int | None = None
    """The output cap; the largest where several names of it are set, because only the server knows which one counts."""
    caps: tuple[str, ...] = ()
    """The names under which an output cap is set."""
    choices: int = 1
    """How many answers are asked for."""
    tier: str | None = None
    """The price tier as it is asked for."""
    speed: str | None = None
    """Anthropic's ``speed``."""
    region: str | None = None
    """The region that is asked for, by a field or by the host."""
    modalities: frozenset[str] = frozenset()
    """What the answer may be besides text: ``audio``, ``image``."""
    needs: frozenset[str] = frozenset()
    """What the model must be capable of, as `ModelCall.needs` names it."""
    hosted_tools: tuple[str, ...] = ()
    """Tools that the provider runs and bills by use, as `Usage` names them."""
    models: tuple[str, ...] = ()
    """Other models that may answer in its place, as a list of fallbacks names them."""
    stream: bool = False
    asks_for_usage: bool = True
    """Whether the answer will tell its usage without being asked for more."""
    hour_cache: bool = False
    """Whether it asks to keep input in a one-hour cache."""
    reasoning_ids: tuple[str, ...] = ()
    """Parts of earlier answers that only the provider has: bounded only where this session has seen them made."""
    sound_tokens: int | None = None
    """The most audio tokens of all the sound in it; None where that is not visible. 0 where there is none."""
    unknown: tuple[str, ...] = ()
    """Fields that the dialect does not know and that hold a plain value: they pass."""
    unknown_structures: tuple[str, ...] = ()
    """Fields that the dialect does not know and that hold more: each may cost anything."""
    background: bool = False
    """Whether it is answered later, under another address."""
    requests: int = 1
    """How many prompts it carries."""
    search_context: str | None = None
    """How much is searched, as `ModelCall.search_context`."""
    unclear: tuple[str, ...] = ()
    """Fields that are there in two spellings, so that nobody knows which value counts: also not that of a cap."""

    @property
    def prompted(self) -> bool:
        """Whether there is an input at all."""
        prompt = self.prompt
        return bool(prompt.text or prompt.opaque)  # a message that is more than text has the weight of one

    def with_prompt(self, prompt: Prompt) -> Request:
        """The same request with another *prompt*. As `_replace`, in a third of the time."""
        return unchecked(Request, (*self[:2], prompt, *self[3:]))

    def call(
        self,
        *,
        model: str | None = None,
        can_cap: bool = True,
        agent: str | None = None,
        final: bool = False,
        admitted: Collection[str] = (),
    ) -> ModelCall:
        """The call that the core has to decide on.

        Args:
            model: The model that answers, where that is another one than the request names.
            can_cap: Whether an output cap can still be put into the request.
            agent: Whom to attribute it to.
            final: Whether it is the final answer.
            admitted: Unknown fields that the budget's allowance names.
        """
        prompt = self.prompt
        if self.unknown_structures:
            more = [f"{A_PARAMETER}{name}" for name in self.unknown_structures if name not in admitted]
            if more:
                prompt = prompt._replace(opaque=(*prompt.opaque, *more), conversation=0)
        tier = "default" if self.tier in STANDARD_TIERS else None if self.tier == "auto" else self.tier
        return ModelCall(
            self.model if model is None else model,
            prompt,
            self.provider,
            self.max_output_tokens,
            can_cap,
            self.needs,
            "fast" if self.speed == "fast" else tier,
            self.choices,
            self.hosted_tools,
            agent,
            self.hour_cache,
            final,
            region=self.region,
            kinds=self._kinds(prompt),
            alternatives=self.models,
            search_context=self.search_context,
        )

    def _kinds(self, prompt: Prompt) -> frozenset[str] | None:
        """What it may carry beside text; None where that is not known."""
        if (
            prompt.unweighed
            or prompt.opaque
            or self.sound_tokens != 0
            or not self.needs.isdisjoint(("vision", "audio"))
        ):
            return None
        return frozenset([f"output_{kind}" for kind in self.modalities]) if self.modalities else _TEXT_ALONE
