"""What optional arguments of a store, and an astrapy ``APIOptions``, say: checked, and exact builtins."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

from langchain_kv import limits
from langchain_kv.errors import ConfigError
from langchain_kv.values.keys import type_name
from langchain_kv.values.secret import exact, given_token, masked

__all__ = ["Caller", "Options", "checked_callers", "checked_flag", "checked_name", "seconds", "user_agent"]

Caller = tuple[str | None, str | None] | str | None
"""Who uses a store, for the User-Agent: a name, or a name and a version."""

_KNOWN = (
    *("environment", "token", "callers", "database_additional_headers", "ca_cert_path"),
    *("data_api_url_options", "timeout_options"),
)


class Options:
    """What is taken from an astrapy ``APIOptions``, read by attribute names; what it leaves unset is None.

    Raises:
        ConfigError: it has none of these attributes, or one that cannot be used.
    """

    def __init__(self, options: Any) -> None:
        if options is not None and not any(hasattr(options, name) for name in _KNOWN):
            raise ConfigError(
                "api_options must be an astrapy APIOptions, or an object with its attributes; got"
                f" {type_name(options)}."
            )
        timeouts = getattr(options, "timeout_options", None)
        urls = getattr(options, "data_api_url_options", None)
        self.environment = _text(getattr(options, "environment", None))
        token = given_token(getattr(options, "token", None))
        # astrapy's "unset" is a text of its own; a token provider without a token answers None.
        self.token = token if token is None or isinstance(token, str) or token.has_tokens else None
        callers = getattr(options, "callers", None)
        self.callers = checked_callers(callers if isinstance(callers, list | tuple) else None)
        headers = getattr(options, "database_additional_headers", None)
        items = headers.items() if isinstance(headers, dict) else ()
        self.headers: dict[str, str] = {
            _text(name) or name: masked(value) for name, value in items if value is not None
        }
        self.ca_file = _text(getattr(options, "ca_cert_path", None))
        path = _text(getattr(urls, "api_path", None))
        self.path_prefix = None if path is None else "/" + path.strip("/") if path.strip("/") else ""
        self.request_timeout_s = _from_ms(timeouts, "request_timeout_ms")
        self.deadline_s = _from_ms(timeouts, "general_method_timeout_ms")


def _text(value: Any) -> str | None:
    return exact(value) if isinstance(value, str) else None


def _from_ms(timeouts: Any, name: str) -> float | None:
    value = getattr(timeouts, name, None)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    # astrapy's 0 stands for "no limit"; a day is as good as none.
    return seconds(f"{name} of api_options", float(value) / 1000) if value else 86_400.0


_NAME = re.compile(rf"\w{{1,{limits.NAME_MAX_LENGTH}}}", re.ASCII)


def checked_name(what: str, name: object) -> str:
    """Return the name of a collection or a keyspace.

    Args:
        what: ``collection name``, say.
        name: what was given.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(exact(name)):
        raise ConfigError(
            f"{name!r:.80} is not a {what}: give 1 to {limits.NAME_MAX_LENGTH} ASCII letters, digits and underscores."
        )
    return exact(name)


def checked_flag(name: str, value: object) -> bool:
    """Return the value.

    Raises:
        ConfigError: it is neither True nor False: ``"no"`` would say yes.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r:.40}.")
    return value


def seconds(name: str, *given: object) -> float | None:
    """Return the first number of seconds that was given, None where none was.

    Raises:
        ConfigError: it is no number above 0.
    """
    value = next((one for one in given if one is not None), None)
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else 0.0
    except OverflowError:
        number = math.inf
    if not 0 < number < SECONDS_MAX:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        shown = str(number) if is_number else type_name(value)
        raise ConfigError(f"{name} must be a number of seconds above 0, up to {SECONDS_MAX:,}, got {shown}.")
    return number


SECONDS_MAX = 1_000_000_000
"""Thirty years, which every clock and timer can take."""


def checked_callers(callers: Sequence[Caller] | None) -> list[tuple[str, str]]:
    """Return name and version (may be empty) of each caller.

    Raises:
        ConfigError: one has another form.
    """
    if isinstance(callers, str):
        raise ConfigError("ext_callers must be a list of names and (name, version) pairs, got one string: pass [name].")
    if callers is not None and not isinstance(callers, Sequence):
        raise ConfigError(f"ext_callers must be a list of names and (name, version) pairs, got {type_name(callers)}.")
    return [_pair(caller) for caller in callers or ()]


def _pair(caller: Any) -> tuple[str, str]:
    parts = tuple(caller) if isinstance(caller, tuple | list) else (caller, None)
    if len(parts) != 2 or not all(part is None or isinstance(part, str) for part in parts):
        raise ConfigError("ext_callers must be a list of names and (name, version) pairs.")
    name, version = (exact(part) if isinstance(part, str) else "" for part in parts)
    return name, version


def user_agent(callers: Sequence[tuple[str, str]], component: str | None) -> str:
    """Return the text of the User-Agent header: the callers, LangChain and the kind of store, this package.

    Args:
        callers: name and version (may be empty) of each.
        component: the kind of store; None: no store of LangChain's, which is not loaded then.
    """
    from langchain_kv._version import __version__

    pairs = [*callers]
    if component is not None:
        from langchain_core import __version__ as core_version

        pairs += [("langchain", core_version), (component, __version__)]
    pairs.append(("langchain-kv", __version__))
    text = " ".join(f"{name}/{version}" if version else name for name, version in pairs if name)
    return re.sub(r"[^\x20-\x7e]", "?", text)  # a header holds no control characters
