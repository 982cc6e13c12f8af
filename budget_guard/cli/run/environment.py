"""What a program is given in place of the keys and addresses of providers, and who really has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from budget_guard.cli.answer import WRONG_USE, Failure
from budget_guard.cli.run.dotenv import Setting
from budget_guard.cli.run.providers import ALIASES, OTHER_KEYS, PROVIDERS, Provider
from budget_guard.units.printable import printable

_ADDRESS = re.compile(r"(?P<upstream>.*?)(?P<api>(?:/openai)?/v\d+(?:alpha|beta)?\d*)?/*")
_KEY = re.compile(
    r"sk-(?:proj|svcacct|admin|ant|or-v1)-[\w-]{16,}|sk-\w{20}T3BlbkFJ\w{20}|(?:gsk|xai|pplx|csk)[-_]\w{20,}"
)
"""What can only be a provider's key, whatever the variable is called."""
_SHORTEST = 8
"""Characters of a key that is looked for within other values."""
_NO_PROXY = ("NO_PROXY", "no_proxy")


class Target(NamedTuple):
    """A provider that requests go to."""

    name: str
    url: str
    key: str | None


class Plan:
    """The providers that a program calls through the guard, and the environment that it is given.

    Args:
        environ: The environment of who starts it.
        settings: Those in ``.env`` files near it.
        upstreams: What was typed: names, or ``NAME=URL``.
        kept: Variables that the program is left.

    Raises:
        Failure: If an upstream is not known, or there is no key.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        settings: Mapping[str, Setting],
        upstreams: Sequence[str] = (),
        kept: Sequence[str] = (),
    ) -> None:
        self._environ = environ
        self._settings = settings
        self.kept = sorted(name for name in set(kept) if name in environ)
        """The variables that it is left, of those that were named."""
        self.targets: list[Target] = []
        """The providers."""
        self._addresses: dict[str, str] = {}  # variables, and the path of the proxy that they name
        self._keys: set[str] = set()  # variables in which the program finds its own key
        self._absent: list[Provider] = []
        typed = dict(map(_typed, upstreams))
        known = {each.name: each for each in PROVIDERS}
        for provider in (*PROVIDERS, *(_unknown(name) for name in typed if name not in known)):
            self._add(provider, typed.get(provider.name), provider.name in typed)
        if not self.targets:
            looked_for = ", ".join(each.keys[0] for each in PROVIDERS if each.keys)
            raise Failure(
                f"no key of a provider is in the environment, nor in a .env file: it was looked for as {looked_for}, "
                "and their other names. Set one, or name a server that needs none: --upstream openai=http://localhost:8000",
                WRONG_USE,
            )
        held = {target.key for target in self.targets if target.key}
        self._long = sorted((key for key in held if len(key) >= _SHORTEST), key=len, reverse=True)
        self._taken_out: set[str] = set()
        self._carrying: set[str] = set()  # variables that have a key somewhere in them, as a header may
        for name, value in environ.items():
            if name in self._keys or name in self._addresses:
                continue
            if value.strip() in held:
                self._keys.add(name)
            elif value and name in OTHER_KEYS:
                self._taken_out.add(name)
            elif self.carries_key(value):
                self._carrying.add(name)
            elif _KEY.search(value):
                self._taken_out.add(name)
        self.in_files: dict[str, Path] = {
            name: setting.file
            for name, setting in settings.items()
            if name in self._keys or name in OTHER_KEYS or setting.value in held or _KEY.fullmatch(setting.value)
        }
        """The keys that are in a file, which the program may load by itself."""
        self._keys.update(self.in_files)  # who loads the file leaves what is set already
        for left in (self._keys, self._taken_out, self._carrying):
            left.difference_update(self.kept)

    def carries_key(self, text: str) -> bool:
        """True for a *text* with the key of a provider somewhere in it."""
        return any(key in text for key in self._long)

    @property
    def taken_out(self) -> list[str]:
        """The variables that the program is not given, though it has nothing in their place."""
        return sorted(self._taken_out)

    @property
    def absent(self) -> dict[str, str]:
        """What to say to requests for providers without a key, by their names."""
        return {
            each.name: f"No key for {each.name} was found where this run was started"
            + (f": set {each.keys[0]} there." if each.keys else ", and what is signed cannot be passed on.")
            for each in self._absent
        }

    def environment(self, proxy: str, token: str) -> dict[str, str]:
        """The environment of the program.

        Args:
            proxy: The address that it calls.
            token: The key that it has.
        """
        made = {name: value for name, value in self._environ.items() if name not in self._taken_out}
        made |= {name: f"{proxy}{path}" for name, path in self._addresses.items() if name not in self.kept}
        made |= dict.fromkeys(self._keys, token)
        for name in self._carrying:
            for key in self._long:
                made[name] = made[name].replace(key, token)
        for name in _NO_PROXY:  # else a proxy of the network would be asked for this machine
            made[name] = ",".join([*filter(None, [self._environ.get(name)]), "127.0.0.1", "localhost"])
        return made

    def _add(self, provider: Provider, typed: str | None, is_typed: bool) -> None:
        """Take up a provider, if there is a key for it, or it was named."""
        keys = [name for name in provider.keys if self._value(name)]
        key = self._value(keys[0]) if keys else None
        variable = next((name for name in provider.addresses if self._value(name)), None)
        given = typed or (variable and self._value(variable)) or _address_of(provider, self._environ)
        url, api = _split(given) if given else ("", "")
        if keys or is_typed:
            self._check(provider, typed, url, key)
        is_there = bool(url) and (bool(keys) or is_typed)
        if is_there:
            self.targets.append(Target(provider.name, url, key))
            self._keys.update(keys or provider.keys[:1])
        else:
            self._absent.append(provider)
            self._keys.update(keys)
        if provider.only_if_named and not (is_there or variable):
            return
        usual = provider.addresses.get(variable or next(iter(provider.addresses)), "")
        is_told = bool(api) if typed else variable is not None  # the path of the API may be another one than usual
        for name, path in provider.addresses.items():
            self._addresses[name] = f"/{provider.name}{api if is_told and path == usual else path}"

    def _value(self, name: str) -> str | None:
        value = self._environ.get(name, "").strip()
        return value or (self._settings[name].value if name in self._settings else None)

    def _check(self, provider: Provider, typed: str | None, url: str, key: str | None) -> None:
        if not url and typed is None:
            return  # a key without an address: requests are told so
        if key is None and not url.startswith("http://"):
            names = ", ".join(provider.keys)
            raise Failure(f"no key for {provider.name} is in the environment: it was looked for as {names}", WRONG_USE)


def _typed(text: str) -> tuple[str, str | None]:
    name, equals, url = text.partition("=")
    name = ALIASES.get(name, name)
    known = [each.name for each in PROVIDERS if each.url]
    if not equals and name not in known:
        raise Failure(
            f"--upstream {printable(text)}: no address is known for that: write NAME=URL, such as openai=https://"
            f"api.openai.com, or one of {', '.join(known)}",
            WRONG_USE,
        )
    return name, url if equals else None


def _unknown(name: str) -> Provider:
    """A provider that only who starts the program knows."""
    stem = name.upper().replace("-", "_")
    return Provider(name, None, (f"{stem}_API_KEY",), {f"{stem}_BASE_URL": "", f"{stem}_API_BASE": ""})


def _address_of(provider: Provider, environ: Mapping[str, str]) -> str | None:
    if provider.name == "aws":
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
        return f"https://bedrock-runtime.{region}.amazonaws.com" if region else None
    return provider.url


def _split(url: str) -> tuple[str, str]:
    """The address of an upstream, and the path of its API, which programs have in theirs."""
    found = _ADDRESS.fullmatch(url.strip())
    return (found["upstream"], found["api"] or "") if found else (url, "")
