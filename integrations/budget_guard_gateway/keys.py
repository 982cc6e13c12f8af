"""Keys: who a token is, what it may use, and the file that they are kept in.

The file is TOML. It has the hash of each key, never the key::

    [keys.alice]
    sha256 = "5e88..."
    user = "u1"
    team = "research"
    models = ["gpt-4o*", "claude-haiku-*"]
    run_budget = "$2.00"

A change of the file counts at once, in every process.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, cast

from budget_guard.clock import SYSTEM_CLOCK, Clock
from budget_guard.units.money import parse_usd

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_log = logging.getLogger("budget_guard")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TEXTS = ("user", "team", "feature")
_LOOKED_AT_S = 1.0
"""Seconds after which the file is looked at again."""


class Principal(NamedTuple):
    """Who asks."""

    name: str
    """The key's name; of a token without a file, its hash."""
    user: str | None = None
    team: str | None = None
    feature: str | None = None
    models: tuple[str, ...] = ()
    """The models that it may use, as patterns; empty for all."""
    run_budget: str | None = None
    """Dollars that each of its runs may spend, in place of the gateway's."""

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> Principal:
        """The one of that name, with what a file says of it."""
        user, team, feature = (entry.get(field) for field in _TEXTS)
        return cls(name, user, team, feature, tuple(entry.get("models", ())), entry.get("run_budget"))

    def may_use(self, model: str) -> bool:
        """Whether it may use *model*."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    @property
    def kinds(self) -> set[str]:
        """The kinds of principals that it is."""
        return {"key", *(kind for kind in ("user", "team") if getattr(self, kind) is not None)}


class Keys:
    """The keys of a file.

    Args:
        path: The file.
        clock: Where time comes from.
        check: Raises ValueError for one who must not be served. Who is in the file from the start is not asked about.

    Raises:
        ValueError: If the file makes no sense.
        OSError: If it cannot be read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock = SYSTEM_CLOCK,
        check: Callable[[Principal], None] = lambda who: None,
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._check = check
        self._stamp: tuple[int, int, int] | None = _stamp(self._path)
        self._principals = _by_hash(read_keys(self._path))
        self._looked = clock.monotonic()

    def principal(self, token: str) -> Principal | None:
        """Who *token* is; None where it is nobody's."""
        now = self._clock.monotonic()
        if now - self._looked >= _LOOKED_AT_S:
            self._looked = now
            self._read_again()
        digest = digest_of(token)
        known = self._principals.get(digest)
        return known[1] if known is not None and hmac.compare_digest(known[0], digest) else None

    def all(self) -> list[Principal]:
        """Everybody."""
        return [principal for _, principal in self._principals.values()]

    def _read_again(self) -> None:
        stamp: tuple[int, int, int] | None = None
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._principals = self._checked(_by_hash(read_keys(self._path)))
        except (OSError, ValueError) as error:
            if stamp != self._stamp:
                _log.error("budget_guard: the keys are as they were, for the file cannot be read: %s", error)
        self._stamp = stamp  # what cannot be read is told of once, until it changes

    def _checked(self, found: dict[str, tuple[str, Principal]]) -> dict[str, tuple[str, Principal]]:
        """Those of *found* who may be served: whoever is new must not keep others from being revoked."""
        kept: dict[str, tuple[str, Principal]] = {}
        for digest, (same, who) in found.items():
            try:
                self._check(who)
            except ValueError as error:
                _log.error("budget_guard: a key is not taken: %s", error)
            else:
                kept[digest] = (same, who)
        return kept


class AnyToken:
    """Takes any token: who it is, is its hash."""

    def principal(self, token: str) -> Principal | None:
        """Who *token* is."""
        name = f"token-{digest_of(token)[:16]}"
        return Principal(name, user=name)

    def all(self) -> list[Principal]:
        """Nobody is known beforehand."""
        return []


class OneKey:
    """Takes one token alone.

    Args:
        token: The token.
        who: Who sends it.
    """

    def __init__(self, token: str, who: Principal) -> None:
        self._digest = digest_of(token)
        self._who = who

    def principal(self, token: str) -> Principal | None:
        """Who *token* is; None where it is nobody's."""
        return self._who if hmac.compare_digest(self._digest, digest_of(token)) else None

    def all(self) -> list[Principal]:
        """Everybody."""
        return [self._who]


def digest_of(token: str) -> str:
    """The hash that a token is known by. Keys are random and long, so that nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _by_hash(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, Principal]]:
    return {entry["sha256"]: (entry["sha256"], Principal.of(name, entry)) for name, entry in entries.items()}


def read_keys(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The entries of a file of keys, by name, checked.

    Raises:
        ValueError: If one makes no sense.
        OSError: If the file cannot be read.
    """
    try:
        read: dict[str, Any] = tomllib.loads(Path(path).read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None
    entries: object = read.get("keys", {})
    if set(read) - {"keys"} or not isinstance(entries, dict):
        raise ValueError(f"{path} has more than [keys.NAME] tables")
    found: dict[str, dict[str, Any]] = {}
    for name, entry in cast("dict[str, object]", entries).items():
        found[name] = _checked(f"{path}: [keys.{name}]", name, entry)
    hashes = [entry["sha256"] for entry in found.values()]
    if len(set(hashes)) != len(hashes):
        raise ValueError(f"{path}: two names have the same key")
    return found


def _checked(where: str, name: str, given: object) -> dict[str, Any]:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{where}: use letters, digits and ._- for a name, at most 64")
    if not isinstance(given, dict):
        raise ValueError(f"{where} is no table")
    entry = cast("dict[str, Any]", given)
    unknown = set(entry) - {"sha256", "models", "run_budget", *_TEXTS}
    if unknown:
        raise ValueError(f"{where}: {sorted(unknown)[0]!r} is not known: use user, team, feature, models, run_budget")
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"{where}: sha256 must be the 64 hex digits of the key's hash: make it with `key add`")
    for field in _TEXTS:
        if field in entry and not (entry[field] and _is_text(entry[field])):
            raise ValueError(f"{where}: {field} must be a text that is not empty")
    models: object = entry.get("models", [])
    if not isinstance(models, list) or not all(map(_is_text, cast("list[object]", models))):
        raise ValueError(f'{where}: models must be a list of patterns, such as ["gpt-4o*"]')
    if "run_budget" in entry:
        parse_usd(entry["run_budget"], f"{where}: run_budget")
    return entry


def _is_text(value: object) -> bool:
    """True for a text that a file can hold. Half of a surrogate pair is none."""
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)


def add_key(
    path: str | os.PathLike[str],
    name: str,
    *,
    user: str | None = None,
    team: str | None = None,
    feature: str | None = None,
    models: Sequence[str] = (),
    run_budget: str | None = None,
) -> str:
    """Make a key, and note who it is in the file at *path*, which is made if there is none.

    Returns:
        The key. It is shown this once: the file has its hash alone.

    Raises:
        ValueError: If the name is taken, or a value makes no sense.
    """
    key = f"bg-{secrets.token_urlsafe(32)}"
    entry: dict[str, Any] = {"sha256": digest_of(key), "user": user, "team": team, "feature": feature}
    entry |= {"models": list(models) or None, "run_budget": run_budget}
    entry = _checked(f"key {name}", name, {field: value for field, value in entry.items() if value is not None})
    with _alone(Path(path)):
        entries = read_keys(path) if Path(path).exists() else {}
        if name in entries:
            raise ValueError(f"the key {name!r} is there already: revoke it first, or use another name")
        _write(Path(path), {**entries, name: entry})
    return key


def revoke_key(path: str | os.PathLike[str], name: str) -> bool:
    """Take a key out of the file at *path*; return whether it was there."""
    with _alone(Path(path)):
        entries = read_keys(path)
        if entries.pop(name, None) is None:
            return False
        _write(Path(path), entries)
    return True


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Keep other processes from changing the file meanwhile: else one change would take back the other."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    folder = os.open(path.parent, os.O_RDONLY)  # the file itself is another one after each change
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace the file in one step, for its owner's eyes alone."""
    lines = ["# The keys of budget_guard's gateway, by their hashes."]
    for name, entry in entries.items():
        lines += ["", f"[keys.{_toml(name)}]", *(f"{field} = {_toml(value)}" for field, value in entry.items())]
    descriptor, made = tempfile.mkstemp(dir=path.parent or ".", prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


def _toml(value: object) -> str:
    """*value* in TOML, whose texts are those of JSON but for one more character that has to be escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
