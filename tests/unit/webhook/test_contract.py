"""The annotation's grammar: what reads, what is refused, and what the author is told."""

import subprocess
import sys
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.common.contract import (
    Direction,
    InvalidQuantity,
    Limits,
    Quantity,
    _remembered_bits_per_second,
    quoted,
)

RATES = st.integers(min_value=1_000, max_value=10**15)
SUFFIXES = {
    **{
        suffix: Fraction(1000) ** power for power, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P"], -3)
    },
    **{f"{prefix}i": Fraction(1024) ** power for power, prefix in enumerate("KMGTPE", 1)},
}


def parsed(text: str) -> Quantity | InvalidQuantity:
    try:
        return Quantity.parse(text)
    except InvalidQuantity as error:
        return error


def refusal(text: str) -> InvalidQuantity:
    with pytest.raises(InvalidQuantity) as caught:
        Quantity.parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "bits_per_second", "normal"),
    [
        ("100M", 100_000_000, "100M"),
        ("0.1G", 100_000_000, "100M"),
        ("1e8", 100_000_000, "100M"),
        ("1E8", 100_000_000, "100M"),
        ("1e+8", 100_000_000, "100M"),
        ("100000k", 100_000_000, "100M"),
        ("1000000000e-1", 100_000_000, "100M"),
        ("100000000000m", 100_000_000, "100M"),
        ("+100M", 100_000_000, "100M"),
        ("100.M", 100_000_000, "100M"),
        (".1G", 100_000_000, "100M"),
        ("000100M", 100_000_000, "100M"),
        ("1e0008", 100_000_000, "100M"),
        ("0.5Mi", 524_288, "524288"),
        ("1Ki", 1024, "1024"),
        ("1500k", 1_500_000, "1500k"),
        ("1234567", 1_234_567, "1234567"),
        ("0.001E", 10**15, "1P"),
    ],
)
def test_a_quantity_reads_exactly_and_equal_rates_have_one_normal_form(
    text: str, bits_per_second: int, normal: str
) -> None:
    quantity = Quantity.parse(text)
    assert quantity.bits_per_second == bits_per_second
    assert str(quantity) == normal


@given(RATES)
def test_a_normal_form_reads_as_the_rate_that_it_was_made_of(bits_per_second: int) -> None:
    quantity = Quantity(bits_per_second)
    assert Quantity.parse(str(quantity)) == quantity


@given(st.decimals(min_value=0, max_value=10**6, places=6), st.sampled_from(sorted(SUFFIXES)))
def test_a_rate_is_the_exact_product_rounded_up_to_a_whole_bit(number: Decimal, suffix: str) -> None:
    exact = Fraction(number) * SUFFIXES[suffix]
    rounded_up = -(-exact.numerator // exact.denominator)
    read = parsed(f"{number:f}{suffix}")
    if 1_000 <= rounded_up <= 10**15:
        assert read == Quantity(rounded_up)
    else:
        assert isinstance(read, InvalidQuantity)


@given(st.one_of(st.text(), st.text("0123456789.+-eEnumkKMGTPi/bs ")))
def test_every_text_is_either_a_limit_or_a_refusal_whose_suggestion_is_one(text: str) -> None:
    read = parsed(text)
    if isinstance(read, Quantity):
        assert 1_000 <= read.bits_per_second <= 10**15
        assert text.isascii()
        return
    assert str(read).startswith(f"{quoted(text)} ")
    assert str(read).isprintable()
    if read.suggestion is not None:
        assert isinstance(parsed(read.suggestion), Quantity)
        assert str(read).endswith(f'; did you mean "{read.suggestion}"?')


def test_texts_that_are_too_long_are_not_kept_in_memory() -> None:
    _remembered_bits_per_second.cache_clear()
    refusal("9" * 65)
    assert _remembered_bits_per_second.cache_info().currsize == 0
    refusal("9" * 64)
    assert _remembered_bits_per_second.cache_info().currsize == 1


@pytest.mark.parametrize("text", ["1k", "1000", "999.5", "999.000001", "1P", "1000T", "0.5P"])
def test_the_bounds_are_inclusive_and_apply_after_rounding_up(text: str) -> None:
    assert 1_000 <= Quantity.parse(text).bits_per_second <= 10**15


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("999", "less than the minimum of 1k"),
        ("1000000000000000.5", "more than the maximum of 1P"),
        ("1.001P", "more than the maximum of 1P"),
        ("12E", "1.2e+19 bit/s, more than the maximum"),
        ("1e19", "more than the maximum"),
        ("18446744073709551616", "more than the maximum"),
        ("1e99", "more than the maximum"),
        ("9" * 64, "more than the maximum"),
        ("1e-99", "less than the minimum"),
        ("5u", '(the suffix "u" is micro, a millionth)'),
        ("5n", '(the suffix "n" is nano, a billionth)'),
        ("0", "is zero"),
        ("0e5", "is zero"),
        ("-1", "is negative"),
        ("-9.5Gi", "is negative"),
        ("1e100", "exponent out of range (-99 to 99)"),
        ("1e999999999", "exponent out of range"),
        ("2E6024865272343", "exponent out of range"),
        ("1e-100", "exponent out of range"),
        ("1" * 65, "longer than the maximum of 64 characters"),
        ("", "is empty"),
        (" \t", "is empty"),
        ("NaN", "does not start with a number"),
        ("Infinity", "does not start with a number"),
        ("M", "does not start with a number"),
        (".", "does not start with a number"),
        ("-", "does not start with a number"),
        ("0x10M", '"x10M" after its number'),
        ("1e", '"e" after its number'),
        ("1e5.5", '"e5.5" after its number'),
        ("5.5.5M", '".5M" after its number'),
        ("100\x00", r'"\x00" after its number'),
        ("100M\n", "has a space in it"),
        (" 100M", "has a space in it"),
        ("\N{FULLWIDTH DIGIT ONE}00M", "not plain ASCII (FULLWIDTH DIGIT ONE)"),
        ("100\N{CYRILLIC CAPITAL LETTER EM}", "not plain ASCII (CYRILLIC CAPITAL LETTER EM)"),
        ("100M\N{ZERO WIDTH SPACE}", "not plain ASCII (ZERO WIDTH SPACE)"),
        ("\ud800", "not plain ASCII (U+D800)"),
        ("1\N{ARABIC-INDIC DIGIT ZERO}", "not plain ASCII (ARABIC-INDIC DIGIT ZERO)"),
        ("100MB", "counts bytes, and a limit is in bits per second (8 for each byte)"),
        ("100MiB/s", "counts bytes"),
        ("100MBps", "counts bytes"),
        ("100kbytes", "counts bytes"),
        ("100Mb", '"Mb" after its number'),
    ],
)
def test_a_refusal_says_what_is_wrong(text: str, what: str) -> None:
    assert what in str(refusal(text))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("100m", "100M"),
        ("100", "100M"),
        ("0.5", "0.5M"),
        ("100Mbps", "100M"),
        ("100mbps", "100M"),
        ("100Mb/s", "100M"),
        ("100 M", "100M"),
        ("100MB", "100M"),
        ("100MB/s", "100M"),
        ("100MBPS", "100M"),
        ("100mbit", "100M"),
        ("100Mbit/s", "100M"),
        ("100 megabits per second", "100M"),
        ("1 Gbit/sec", "1G"),
        ("2.5 gigabit", "2.5G"),
        ("100K", "100k"),
        ("500 kb/s", "500k"),
        ("1g", "1G"),
        ("100mi", "100Mi"),
        ("100MiB", "100Mi"),
        ("100KiB/s", "100Ki"),
        ("-5M", "5M"),
        ("\N{FULLWIDTH DIGIT ONE}00M", "100M"),
        ("100\N{NO-BREAK SPACE}M", "100M"),
        ("'100M'", "100M"),
        ("100_000_000", "100000000"),
        ("1,000M", "1000M"),
        ("1,5G", "1.5G"),
        ("100.000.000", "100000000"),
        ("100M\n", "100M"),
    ],
)
def test_a_refusal_asks_for_what_was_probably_meant(text: str, meant: str) -> None:
    assert refusal(text).suggestion == meant


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "-100", "NaN", "2P", "1e999999999", "unlimited", "5.5.5M", "1" * 65, "5u"]
)
def test_nothing_is_suggested_where_nothing_is_likely(text: str) -> None:
    error = refusal(text)
    assert error.suggestion is None
    assert "did you mean" not in str(error)


@pytest.mark.parametrize("text", ["", "0", "-1", "unlimited", "none"])
def test_whoever_asks_for_no_limit_is_told_how(text: str) -> None:
    assert str(refusal(text)).endswith("for no limit, leave the annotation out")


def test_the_refusal_of_the_most_common_mistake_reads_whole() -> None:
    assert str(refusal("100m")) == (
        '"100m" is 0.1 bit/s (the suffix "m" is milli, a thousandth), less than the minimum of 1k (1000 bit/s); '
        'did you mean "100M"?'
    )


@pytest.mark.parametrize(
    "text",
    ["1e" + "9" * 10**6, "9" * 10**6, "1" + "_" * 10**6, "1e-" + "0" * 61, "." * 64],
    ids=["exponent", "digits", "underscores", "zeros", "dots"],
)
def test_no_value_makes_the_parser_slow(text: str) -> None:
    started = time.process_time()
    assert len(str(refusal(text))) < 400
    assert time.process_time() - started < 0.1


def test_what_cannot_be_seen_is_quoted_as_an_escape() -> None:
    assert quoted("a\x00\N{ZERO WIDTH SPACE}\ud800é") == r'"a\x00\u200b\ud800é"'


def test_a_long_value_is_cut_where_it_is_quoted_also_when_only_its_escapes_are_long() -> None:
    assert quoted("1" * 64) == '"' + "1" * 64 + '"'
    assert quoted("1" * 65) == '"' + "1" * 63 + '…"'
    assert quoted("\ud800" * 60) == '"' + r"\ud800" * 10 + r"\ud" + '…"'


@pytest.mark.parametrize("bits_per_second", [999, 10**15 + 1, 0, -1])
def test_a_quantity_out_of_bounds_cannot_be_made(bits_per_second: int) -> None:
    with pytest.raises(ValueError, match="is not between 1k and 1P"):
        Quantity(bits_per_second)


def test_quantities_compare_by_their_rate() -> None:
    assert Quantity.parse("999k") < Quantity.parse("1M") < Quantity.parse("1Mi")


def test_each_limit_may_stand_alone_or_be_absent() -> None:
    megabit = Quantity(1_000_000)
    ingress, egress = Limits(ingress=megabit), Limits(egress=megabit)
    assert (ingress.get(Direction.INGRESS), ingress.get(Direction.EGRESS)) == (megabit, None)
    assert (egress.get(Direction.INGRESS), egress.get(Direction.EGRESS)) == (None, megabit)
    assert ingress
    assert egress
    assert not Limits()


def test_the_contract_needs_the_standard_library_alone() -> None:
    script = (
        "import sys, webhook.common.contract; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); {script}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == ["webhook"]
