"""`open_ledger`: a ledger by its URL, so that where the counters live is a setting."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from budget_guard.ledger.base import Ledger
from budget_guard.ledger.memory import MemoryLedger

_FORMS = (
    "memory:// (this process), sqlite:///budget.db or sqlite:////var/lib/budget.db (one host), "
    "redis://host:6379/0, rediss://..., valkey://... or unix:///run/redis.sock (many hosts)"
)
_REDIS = ("redis", "rediss", "unix", "valkey", "valkeys")
_OPTIONS = ("durable", "mode", "wait_replicas", "tenant", "db", "socket_timeout", "socket_connect_timeout", "protocol")
_BRIEF = 4
"""Texts that are no longer than that are no secrets."""
_WORDS = (*_REDIS, "memory", "sqlite", "postgres", "postgresql", "mysql", "mongodb", "https", "false", "localhost")
"""Words that are shown wherever they stand."""
_FILE = re.compile(r"(sqlite:/{0,4})?[\w./~ -]{1,200}\.(db|sqlite3?|sock)")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]*\]?|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_PORT = re.compile(r"[0-9]{1,5}")
_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def open_ledger(url: str) -> Ledger:
    """Open the ledger at *url*.

    ============================================== ==================================================================
    ``memory://``                                  in this process: a `MemoryLedger`
    ``sqlite:///budget.db``                        a file in the working directory, for the processes of one host;
                                                   ``sqlite:////var/lib/budget.db`` is an absolute path
    ``redis://host:6379/0``                        a server that many hosts share; ``rediss://`` encrypts,
                                                   ``unix:///run/redis.sock`` is a socket, ``valkey://`` the same server
                                                   by its other name
    ============================================== ==================================================================

    Options follow a question mark: ``sqlite:///budget.db?durable=false`` is faster and may lose the last moments when
    the power fails, and ``mode=0660`` lets a group use the file, which is its owner's alone by default.
    ``redis://host?tenant=acme&wait_replicas=1`` keeps tenants apart, and waits until replicas have what was written;
    what else is there, such as ``socket_timeout=1``, is the client's own.

    Raises:
        ValueError: If *url* is no such URL, or an option makes no sense. It is named without its password.
        ImportError: If the ledger needs a package that is not installed, with the line that installs it.
        LedgerUnavailable: If what is there is no ledger.
    """
    if not isinstance(url, str):
        raise ValueError(f"url={_no_text(url)} is no text: use one of {_FORMS}")
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:  # which may show a part of it
        raise ValueError(
            f"url={shown_url(url)!r} cannot be read: options are name=value with & between them, and what is no letter "
            f"or digit is quoted. Use one of {_FORMS}"
        ) from None
    scheme = parts.scheme
    if "://" not in url or scheme not in ("memory", "sqlite", *_REDIS):
        raise ValueError(f"url={shown_url(url)!r} names no ledger: use one of {_FORMS}")
    take = _Options(url, options)
    if scheme == "memory":
        if parts.netloc or parts.path.strip("/"):
            raise ValueError(f"url={shown_url(url)!r} has a place in it: memory:// alone is this process")
        take.nothing_more()
        return MemoryLedger()
    if scheme == "sqlite":
        path = unquote(parts.path[1:])
        if parts.netloc or not path:
            raise ValueError(
                f"url={shown_url(url)!r} names no file: use three slashes for a relative path, sqlite:///budget.db, "
                "and four for an absolute one, sqlite:////var/lib/budget.db"
            )
        given = take.given(durable=_boolean, mode=_permissions)
        take.nothing_more()
        from budget_guard.ledger.sqlite.ledger import SqliteLedger

        return SqliteLedger(path, **given)
    given = take.given(tenant=str, wait_replicas=_count)
    from budget_guard.ledger.redis.ledger import RedisLedger

    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    rest = "&".join(pair for pair in parts.query.split("&") if pair.split("=")[0] in options)
    return RedisLedger(urlunsplit((scheme, parts.netloc, parts.path, rest, "")), **given)


def _no_text(url: object) -> str:
    return "None" if url is None else f"a {type(url).__name__}"


class _Options:
    """What follows the question mark."""

    def __init__(self, url: str, options: dict[str, str]) -> None:
        self._url = url
        self._options = options

    def given(self, **known: Callable[[str], Any]) -> dict[str, Any]:
        """Those of the *known* options that are there, read and taken out."""
        values: dict[str, Any] = {}
        for name, read in known.items():
            if name in self._options:
                try:
                    values[name] = read(self._options.pop(name))
                except ValueError as error:
                    raise ValueError(f"url={shown_url(self._url)!r}: {name}={error}") from None
        return values

    def nothing_more(self) -> None:
        """Refuse what is left: a misspelt option would go unnoticed."""
        if self._options:
            names = ", ".join(repr(_shown_name(name)) for name in self._options)
            raise ValueError(f"url={shown_url(self._url)!r} has options that are not known: {names}")


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(f"{_brief(text)} must be true or false")
    return _BOOLEANS[text.lower()]


def _permissions(text: str) -> int:
    digits = text.removeprefix("0o")
    if not digits or len(digits) > 4 or digits.strip("01234567") or int(digits, 8) & 0o600 != 0o600:
        raise ValueError(f"{_brief(text)} must be permissions in octal that let the owner read and write, such as 0600")
    return int(digits, 8) & 0o777


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise ValueError(f"{_brief(text)} must be a whole number from 0 on")
    return int(text)


def shown_url(url: str) -> str:
    """*url* with nothing in it that may be a secret, wherever somebody has put one: what is not known to be none is
    ``***``."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url if _FILE.fullmatch(url) or _is_plain(url) else "***"
    userinfo, at, rest = rest.rpartition("@")
    user, _, password = userinfo.partition(":")
    userinfo = f"{user}:***" if password and _is_plain(user) else "***"
    rest, hash, _ = rest.partition("#")
    place, mark, query = rest.partition("?")
    host, slash, path = place.partition("/")
    name, colon, port = host.partition(":")
    options = "&".join(map(_shown_option, query.split("&")))
    return (
        f"{_plain(scheme)}://{userinfo if at else ''}{at}{name if _HOST.fullmatch(name) else _plain(name)}{colon}"
        f"{_plain(port)}{slash}{path if _FILE.fullmatch(path) else _plain(path)}{mark}{options}{'#***' if hash else ''}"
    )


def _shown_option(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{_shown_name(name)}{equals}{_plain(value)}"


def _shown_name(name: str) -> str:
    return name if get_close_matches(name, _OPTIONS, 1, 0.7) else _plain(name)


def _plain(text: str) -> str:
    return text if _is_plain(text) else "***"


def _is_plain(text: str) -> bool:
    """Whether *text* is no secret: so short that it can be none, a number that fits a port, or a word of ours."""
    return (len(text) <= _BRIEF and text.isprintable()) or _PORT.fullmatch(text) is not None or text.lower() in _WORDS


def _brief(text: str) -> str:
    return repr(text) if _is_plain(text) else "***"
