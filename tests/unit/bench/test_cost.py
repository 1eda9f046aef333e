"""The programs as they are timed."""

import pytest

from tests.bench import cost, edt


@pytest.mark.parametrize("text", [(cost.ROOT / cost.SHAPER).read_text(), edt.SOURCE.read_text(), cost.EMPTY])
def test_a_program_is_found_and_varied(text: str) -> None:
    plain, varied = cost.instrumented(text, 1, 1), cost.instrumented(text, 64, 100)
    assert "tc_classid" not in plain + varied.replace("skb->tc_classid", "")
    assert plain.count("vary(") == 0
    assert varied.count("vary(skb);") == 1


def test_a_program_that_has_changed_is_told() -> None:
    with pytest.raises(ValueError, match="adapt"):
        cost.instrumented("int SHAPER_NAME(struct __sk_buff *skb) {\n}\n", 1, 1)
