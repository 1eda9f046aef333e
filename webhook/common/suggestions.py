"""Suggestions for a refused limit: what its author probably meant. Nothing here decides what is valid."""

import re
import unicodedata
from typing import Final

_NOISE: Final = re.compile(r"[\s_'\"`]+")
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:\.[0-9]{3}){2,}")
_SPOKEN: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9][0-9.,]*)"
    r"(?P<prefix>kilo|mega|giga|tera|peta|[kmgtp]|)(?P<binary>i?)(?P<unit>bytes?|bits?|b|)"
    r"(?:ps|p/s|/s|/sec|/second|persec|persecond)?",
    re.IGNORECASE,
)
_BYTES: Final = re.compile(r"[A-Za-z]*(?:B|[Bb]ytes?)(?:[Pp]?(?:/?[Ss]|/sec|/second))?")


def counts_bytes(suffix: str) -> bool:
    """Whether what follows the number speaks of bytes ("MB", "MiB/s", "kbytes") rather than of bits."""
    return _BYTES.fullmatch(suffix) is not None


def likely_meanings(text: str) -> tuple[str, ...]:
    """Quantities that the author of `text` may have meant, the likeliest first; the caller checks that they are valid.

    A limit of less than 1k is never meant, so "100m" stands for 100M, as does a bare "100". A unit adds nothing, so it
    is dropped: "100Mbps", "100 Mbit/s" and "100MB" stand for 100M.
    """
    plain = _NOISE.sub("", unicodedata.normalize("NFKC", text))
    spoken = _SPOKEN.fullmatch(plain)
    if spoken is None:
        return (plain,)
    number, prefix = spoken["number"], spoken["prefix"][:1].upper()
    if _THOUSANDS.fullmatch(number):
        number = re.sub(r"[.,]", "", number)
    number = number.replace(",", ".")
    if spoken["binary"]:
        return plain, f"{number}{prefix}i"
    guesses = (plain, number + ("k" if prefix == "K" else prefix))
    return guesses if prefix or spoken["sign"] == "-" else (*guesses, f"{number}M")
