"""The contract between a Pod's author, the webhook and the reconciler: names, and the grammar of a limit.

The webhook refuses values outside this grammar and rewrites the rest in normal form; the reconciler parses the
annotations again by the same grammar, as it trusts none. So this module needs only the standard library, does no I/O,
and takes time bounded by `MAXIMUM_LENGTH` and `MAXIMUM_EXPONENT`, whatever the value is.

The grammar is that of Kubernetes' quantities (`k8s.io/apimachinery/pkg/api/resource`), read exactly: rationals, never
floats. The bounds are those of Kubernetes itself for bandwidth annotations (`k8s.io/kubernetes/pkg/util/bandwidth`).
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple, Self

from webhook.common.suggestions import counts_bytes, likely_meanings

INGRESS_ANNOTATION: Final = "kubernetes.io/ingress-bandwidth"
EGRESS_ANNOTATION: Final = "kubernetes.io/egress-bandwidth"
DEFAULT_NETWORK_ANNOTATION: Final = "v1.multus-cni.io/default-network"
MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
SOURCE_ANNOTATION: Final = "kubernetes.io/config.source"
NETWORK_LABEL: Final = "ipvlan-bandwidth.io/network"
MANAGED_LABEL: Final = "ipvlan-bandwidth.io/managed"
# As the namespaceSelector in manifests/ has them: the network plugins and the webhook must not wait for the webhook.
NAMESPACE: Final = "ipvlan-bandwidth"
NEVER_OPTED_IN: Final = frozenset({"kube-system", NAMESPACE})

MINIMUM_BITS_PER_SECOND: Final = 1_000
MAXIMUM_BITS_PER_SECOND: Final = 10**15
MAXIMUM_LENGTH: Final = 64
MAXIMUM_EXPONENT: Final = 99
LONGEST_NAME: Final = 253  # of an object in Kubernetes, which validates names after admission only

_DECIMAL_SUFFIXES: Final = ("", "k", "M", "G", "T", "P")
_MULTIPLIERS: Final[Mapping[str, Fraction]] = {
    **{
        suffix: Fraction(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
    **{suffix: Fraction(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
_SMALL_SUFFIXES: Final[Mapping[str, str]] = {
    "n": "nano, a billionth",
    "u": "micro, a millionth",
    "m": "milli, a thousandth",
}
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_EXPONENT: Final = re.compile(r"[eE]([+-]?)0*([0-9]+)")
_WRITE: Final = "write a number and a suffix (k, M, G, T, P, Ki, Mi, Gi, Ti or Pi), in bits per second, without a unit"
_OMIT: Final = "for no limit, leave the annotation out"


class Direction(StrEnum):
    """Which way traffic goes, seen from the Pod."""

    INGRESS = "ingress"
    EGRESS = "egress"

    @property
    def annotation(self) -> str:
        """The Pod annotation that limits this direction."""
        return INGRESS_ANNOTATION if self is Direction.INGRESS else EGRESS_ANNOTATION


class InvalidQuantity(ValueError):  # noqa: N818 - it names a value, as the messages do
    """A text that is no bandwidth limit. As a string: the whole sentence, with the value and what was probably meant.

    `reason` continues the sentence after the quoted value ("is 0.1 bit/s, ..."); `suggestion` is a text that
    `Quantity.parse` accepts; `remedy` says what to do where there is no suggestion.
    """

    def __init__(self, text: str, reason: str, suggestion: str | None = None, remedy: str = "") -> None:
        self.suggestion = suggestion
        advice = remedy if suggestion is None else f'did you mean "{suggestion}"?'
        super().__init__(f"{quoted(text)} {reason}" + (f"; {advice}" if advice else ""))


@dataclass(frozen=True, slots=True, order=True)
class Quantity:
    """A rate in whole bits per second, from 1k to 1P inclusive. As a string: its normal form, equal for equal rates."""

    bits_per_second: int

    def __post_init__(self) -> None:
        if not MINIMUM_BITS_PER_SECOND <= self.bits_per_second <= MAXIMUM_BITS_PER_SECOND:
            raise ValueError(f"{self.bits_per_second} bit/s is not between 1k and 1P bit/s")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The rate that a Kubernetes quantity stands for, rounded up to a whole bit as Kubernetes' `Value()` does.

        Raises InvalidQuantity for a text outside the grammar or a rate out of bounds.
        """
        short = len(text) <= MAXIMUM_LENGTH
        read = _remembered_bits_per_second(text) if short else _bits_per_second(text)
        if isinstance(read, int):
            return cls(read)
        meanings = likely_meanings(text) if short else ()
        suggestion = next((meaning for meaning in meanings if isinstance(_bits_per_second(meaning), int)), None)
        raise InvalidQuantity(text, read.reason, suggestion, read.remedy)

    def __str__(self) -> str:
        figure, power = self.bits_per_second, 0
        while figure % 1000 == 0 and power + 1 < len(_DECIMAL_SUFFIXES):
            figure, power = figure // 1000, power + 1
        return f"{figure}{_DECIMAL_SUFFIXES[power]}"


@dataclass(frozen=True, slots=True)
class Limits:
    """A Pod's limits, either of which may stand alone. False when there is none."""

    ingress: Quantity | None = None
    egress: Quantity | None = None

    @classmethod
    def of(cls, limits: Mapping[Direction, Quantity | None]) -> Self:
        """The limits in a map by direction."""
        return cls(limits.get(Direction.INGRESS), limits.get(Direction.EGRESS))

    def get(self, direction: Direction) -> Quantity | None:
        """The limit of one direction, if it has one."""
        return self.ingress if direction is Direction.INGRESS else self.egress

    def __bool__(self) -> bool:
        return self.ingress is not None or self.egress is not None


def beginning(text: str) -> str:
    """Enough of a value to see that it is too long: an annotation may have a quarter of a million characters."""
    return text[: MAXIMUM_LENGTH + 1]


def printable(text: str) -> str:
    """A name as messages show it, cut at what any name of Kubernetes has, with unprintable characters as escapes.

    These could be a terminal's commands, or lines of their own.
    """
    cut = text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def quoted(text: str) -> str:
    """A value as messages show it: in quotes, with unprintable characters as escapes, and cut when it is long."""
    shown = printable(beginning(text))
    return f'"{shown}"' if len(shown) <= MAXIMUM_LENGTH else f'"{shown[: MAXIMUM_LENGTH - 1]}…"'


class _Fault(NamedTuple):
    reason: str
    remedy: str = ""


def _bits_per_second(text: str) -> int | _Fault:
    """The rate, within the bounds; or what is wrong with the text."""
    exact = _exact(text)
    if isinstance(exact, _Fault):
        return exact
    if exact <= 0:
        return _Fault(f"is {'negative' if exact < 0 else 'zero'}, and the minimum is 1k (1000 bit/s)", _OMIT)
    bits_per_second = -(-exact.numerator // exact.denominator)
    if bits_per_second < MINIMUM_BITS_PER_SECOND:
        meaning = _SMALL_SUFFIXES.get(text[-1])
        because = "" if meaning is None else f' (the suffix "{text[-1]}" is {meaning})'
        return _Fault(f"is {float(exact):g} bit/s{because}, less than the minimum of 1k (1000 bit/s)")
    if bits_per_second > MAXIMUM_BITS_PER_SECOND:
        return _Fault(f"is {float(exact):g} bit/s, more than the maximum of 1P (10^15 bit/s)")
    return bits_per_second


# A workload's Pods all have the same limits, and reading these is a third of the time that an admission takes.
_remembered_bits_per_second = lru_cache(maxsize=256)(_bits_per_second)


def _exact(text: str) -> Fraction | _Fault:
    """The exact value of a quantity, of any size that the bounds of length and exponent admit; or what is wrong."""
    if not text.strip():
        return _Fault("is empty", f"{_WRITE}; {_OMIT}")
    if len(text) > MAXIMUM_LENGTH:
        return _Fault(f"is longer than the maximum of {MAXIMUM_LENGTH} characters", _WRITE)
    if not text.isascii():
        foreign = next(character for character in text if not character.isascii())
        name = unicodedata.name(foreign, f"U+{ord(foreign):04X}")
        return _Fault(f"has a character in it that is not plain ASCII ({name})", _WRITE)
    if any(character.isspace() for character in text):
        return _Fault("has a space in it", _WRITE)
    number = _NUMBER.match(text)
    if number is None:
        return _Fault("does not start with a number", f"{_WRITE}; {_OMIT}")
    suffix = text[number.end() :]
    if suffix in _MULTIPLIERS:
        return Fraction(number[0]) * _MULTIPLIERS[suffix]
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None:
        if counts_bytes(suffix):
            return _Fault("counts bytes, and a limit is in bits per second (8 for each byte)", _WRITE)
        return _Fault(f"has {quoted(suffix)} after its number, which is no suffix of a Kubernetes quantity", _WRITE)
    sign, digits = exponent.groups()
    if len(digits) > len(str(MAXIMUM_EXPONENT)):
        return _Fault(f"has an exponent out of range (-{MAXIMUM_EXPONENT} to {MAXIMUM_EXPONENT})", _WRITE)
    return Fraction(number[0]) * Fraction(10) ** int(sign + digits)
