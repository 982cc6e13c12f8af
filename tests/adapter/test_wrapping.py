"""What wraps an object of a framework's refuses what it cannot wrap, and looks like what it wraps."""

from __future__ import annotations

import pytest

from budget_guard.adapter import check_instance, named_like


class Model:
    """A model of a framework's."""


class Special(Model):
    pass


def check(value: object) -> None:
    check_instance("model", value, Model, "model of Frame", 'Guarded(model, Budget("$5.00"))')


def test_an_instance_of_the_class_or_of_one_below_it_can_be_wrapped() -> None:
    check(Model())
    check(Special())


def test_a_class_is_told_to_be_made_an_instance() -> None:
    with pytest.raises(TypeError, match=r"^model=Model is a class: give an instance, Model\(\.\.\.\)$"):
        check(Model)


@pytest.mark.parametrize("value", [None, "gpt-4o", object()])
def test_anything_else_is_told_what_to_write(value: object) -> None:
    with pytest.raises(TypeError, match=r"is no model of Frame: write Guarded\(model, Budget"):
        check(value)


def test_a_class_in_the_place_of_another_has_its_name() -> None:
    class Guarded(Model):
        """Not told."""

    given = named_like(Model, Guarded)
    assert given is Guarded and issubclass(given, Model)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(given, name) == getattr(Model, name)
