"""Passwords, keys and tokens in URLs and settings, which nobody but their server is to read."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

MASK = "***"

_NAME = (
    r"[\w.-]*(?:passw(?:or)?d|passwd|passphrase|pwd|secret|token|signature|credential"
    r"|api_?-?key|access_?-?key|account_?-?key|private_?-?key)[\w.-]*|sig|pass|key|auth"
)
# What follows a scheme, or stands before an @: everything up to the last @ of the word, since a
# password may hold @, : and / that nobody escaped. A password with spaces ends at the last @ of
# the line, if what stands before is no port.
_USER = re.compile(r"(?P<head>[A-Za-z][\w+.-]*://[^\s:/@'\"]*):(?P<secret>\S*)@")
_SPACED = re.compile(
    r"(?P<head>[A-Za-z][\w+.-]*://[^\s:/@'\"]*):(?!\d+(?:[/?\s'\",;]|$))(?P<secret>[^'\"\n]*)@"
)
_BARE = re.compile(r"(?P<head>[A-Za-z][\w+.-]*://)(?P<secret>[^\s:/@'\"]{20,})@")
_QUERY = re.compile(rf"(?P<head>[?&;](?:{_NAME})=)(?P<secret>[^&#\s'\"]+)", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"\b[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|api_?key|access_?key)['\"]?\s*[=:]\s*[^\s#]",
    re.IGNORECASE,
)


def hide_secrets(text: str, *known: str | None) -> str:
    """`text` with the passwords and keys of all URLs in it as ``***``.

    `known`: URLs whose parts are hidden wherever they stand, alone, decoded or with spaces. When in
    doubt more is hidden than need be.
    """
    for secret in sorted({s for url in known if url for s in secrets_of(url)}, key=len)[::-1]:
        text = text.replace(secret, MASK)
    for pattern in (_USER, _SPACED, _BARE, _QUERY):
        text = pattern.sub(_masked, text)
    return text


def secrets_of(url: str) -> set[str]:
    """What must not be shown of a URL: its password and the secret parts of its query."""
    found: set[str] = set()
    for pattern in (_USER, _SPACED, _BARE):
        found |= {match["secret"] for match in pattern.finditer(url)}
    try:
        parts = urlsplit(url)
        found.add(parts.password or "")
        pairs = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:  # no address that this library knows
        pairs = []
    found |= {value for name, value in pairs if re.fullmatch(_NAME, name, re.IGNORECASE)}
    found |= {match["secret"] for match in _QUERY.finditer(url)}
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) > 2}


def has_secret(text: str) -> bool:
    """Whether a script or manifest holds a secret: in a URL, or given a telling name."""
    return hide_secrets(text) != text or _ASSIGNED.search(text) is not None


def _masked(match: re.Match[str]) -> str:
    tail = "@" if match.re in (_USER, _SPACED, _BARE) else ""
    joint = ":" if match.re in (_USER, _SPACED) else ""
    return f"{match['head']}{joint}{MASK}{tail}"
