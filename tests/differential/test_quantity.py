"""The grammar of a limit beside Kubernetes' own parser: the same value wherever both accept, every difference listed.

Kubernetes' side is a small Go program around `resource.ParseQuantity`, tests/cluster/binaries/quantity.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.cluster import launch
from webhook.common.contract import (
    MAXIMUM_BITS_PER_SECOND,
    MAXIMUM_EXPONENT,
    MAXIMUM_LENGTH,
    MINIMUM_BITS_PER_SECOND,
    InvalidQuantity,
    Quantity,
)

EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]+)\Z", re.ASCII)
# What Kubernetes' parser answers at once: it writes a number out, and a larger exponent is a number of as many digits.
LARGEST_EXPONENT_ASKED: Final = 5000


class Theirs(NamedTuple):
    """What Kubernetes reads: Value() in whole bits, wrapped where it is no int64; all of it; Value()'s normal form."""

    value: int
    exact: Fraction
    normal: str


@dataclass
class Kubernetes:
    """Asks the Go program, a line for a line."""

    process: "subprocess.Popen[str]"

    def reads(self, text: str) -> Theirs | None:
        """None is a refusal."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            return None
        return Theirs(answer["value"], Fraction(answer["exact"]), answer["normal"])


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Kubernetes]:
    program = launch.program("quantity")
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Kubernetes(process)


def exponent_of(text: str) -> int:
    """The exponent as Kubernetes reads it: an int64, of which it keeps 32 bits. 0 where there is none."""
    found = EXPONENT.search(text)
    if found is None or abs(int(found[1])) >= 2**63:
        return 0
    return (int(found[1]) + 2**31) % 2**32 - 2**31


def written_exponent_of(text: str) -> int:
    found = EXPONENT.search(text)
    return 0 if found is None else int(found[1])


def out_of_bounds(theirs: Theirs) -> bool:
    return not MINIMUM_BITS_PER_SECOND - 1 < theirs.exact <= MAXIMUM_BITS_PER_SECOND


class Difference(NamedTuple):
    why: str
    applies: Callable[[str, Theirs], bool]
    examples: tuple[str, ...]


# Every difference there is. All are texts that Kubernetes reads and we refuse.
DIFFERENCES: Final = {
    "out of bounds": Difference(
        "Kubernetes has the same bounds apart from its parser (pkg/util/bandwidth), and asks Value() there, an int64"
        " that wraps: it takes -9.5Gi for 8246196746 and 2^64 + 1000 for 1000. No digits at all it reads as zero",
        lambda _, theirs: out_of_bounds(theirs),
        ("999", "1.001P", "0", "-1", "-9.5Gi", "12E", "18446744073709552616", "+", ".", "k", "-.M", "1e-99", "5n"),
    ),
    "exponent out of range": Difference(
        "with an exponent beyond 99 nothing of 64 characters is within the bounds. Kubernetes keeps 32 bits of it, so"
        " that 1e4294967299 is 1000, and writes out a number of as many digits, for hours: 2E6024865272343",
        lambda text, _: abs(written_exponent_of(text)) > MAXIMUM_EXPONENT,
        ("1e4294967299", "1e-4294967293", "100E+4294967302"),
    ),
    "too long": Difference(
        "no limit needs so many characters, and reading time is bounded by the length",
        lambda text, _: len(text) > MAXIMUM_LENGTH,
        ("0" * 61 + "100M", "1000." + "0" * 60, "1e" + "0" * 62 + "8"),
    ),
}


def differences(text: str, kubernetes: Kubernetes) -> str | None:
    """Compares the two; the name of the difference, None where there is none. Fails for one that is not listed."""
    try:
        ours = Quantity.parse(text)
    except InvalidQuantity:
        ours = None
    if abs(exponent_of(text)) > LARGEST_EXPONENT_ASKED:
        assert ours is None, f"{text!r} is {ours}, and Kubernetes' parser would hang"
        return "exponent out of range"
    theirs = kubernetes.reads(text)
    if ours is not None:
        assert theirs is not None, f"{text!r} is {ours}, and Kubernetes refuses it"
        assert (ours.bits_per_second, str(ours)) == (theirs.value, theirs.normal), f"{text!r} differs"
        return None
    if theirs is None:
        return None
    listed = [name for name, each in DIFFERENCES.items() if each.applies(text, theirs)]
    assert listed, f"{text!r} is {theirs} to Kubernetes, we refuse it, and no listed difference says why"
    return listed[0]


DIGITS = st.one_of(
    st.text("0123456789", max_size=20),
    st.sampled_from(["1", "100", "999", "1000", "1" + "0" * 15, "9" * 18, "9" * 19, str(2**63), str(2**64), "0" * 30]),
)
SUFFIXES = st.sampled_from(
    ["", *"numkMGTPE", *(f"{letter}i" for letter in "KMGTPE"), "K", "ki", "mi", "i", "e", "Ee", "kk", "b", "B", "Mb"]
)
EXPONENTS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from("eE"),
    st.sampled_from(["", "+", "-", "--"]),
    st.sampled_from(["", "0", "00000000"]),
    st.one_of(
        st.integers(0, 120).map(str),
        st.integers(2**32 - 20, 2**32 + 20).map(str),
        st.sampled_from(["", "6024865272343", str(2**31 - 1), str(2**31), str(2**63 - 1), str(2**63), "9" * 30]),
    ),
)
NEAR = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "+", "-", "--", "+-", " "]),
    DIGITS,
    st.one_of(st.just(""), st.just("."), st.text("0123456789", max_size=20).map(".{}".format), st.just("..5")),
    st.one_of(SUFFIXES, EXPONENTS),
)
# In the bounds, or at them: of NEAR few are accepted.
WITHIN = st.builds(
    "{}{}{}".format,
    st.decimals(min_value="0.000001", max_value=10**6, places=12, allow_nan=False).map("{:f}".format),
    st.just(""),
    st.one_of(st.sampled_from([*"kMGTP", "Ki", "Mi", "Gi", "Ti"]), st.integers(-6, 12).map("e{}".format)),
)
HOSTILE = st.one_of(st.text(max_size=80), st.text("0123456789.+-eEinumkKMGTP", max_size=80))


@settings(max_examples=3000)
@given(st.one_of(NEAR, WITHIN, HOSTILE))
@example("2E6024865272343")
@example("1E")
@example("0.001E")
@example("999.0000000001")
@example("999.00000000000000000001")
@example("1000000000000000.0000000001")
@example("0.9765625Ki")
@example("\N{FULLWIDTH DIGIT ONE}00M")
@example("1\N{ARABIC-INDIC DIGIT ZERO}00")
@example("1_000")
@example("1e3\n")
@example("\ud800")
def test_wherever_both_accept_the_value_is_the_same_and_each_difference_is_listed(
    kubernetes: Kubernetes, text: str
) -> None:
    differences(text, kubernetes)


@settings(max_examples=1000)
@given(WITHIN)
def test_kubernetes_reads_our_normal_form_as_the_same_rate(kubernetes: Kubernetes, text: str) -> None:
    try:
        limit = Quantity.parse(text)
    except InvalidQuantity:
        return
    theirs = kubernetes.reads(str(limit))
    assert theirs is not None
    assert (theirs.value, theirs.exact, theirs.normal) == (limit.bits_per_second, limit.bits_per_second, str(limit))


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, each in DIFFERENCES.items() for text in each.examples]
)
def test_a_listed_difference_is_one(kubernetes: Kubernetes, name: str, text: str) -> None:
    assert kubernetes.reads(text) is not None
    assert differences(text, kubernetes) == name


@pytest.mark.parametrize("text", ["100M", "0.1G", "1e8", "0.5Mi", "1000", "1P", "999.5", "+1k", "1.k", ".5M", "1E+5"])
def test_what_people_write_is_read_by_both(kubernetes: Kubernetes, text: str) -> None:
    theirs = kubernetes.reads(text)
    assert theirs is not None
    assert theirs.value == Quantity.parse(text).bits_per_second
