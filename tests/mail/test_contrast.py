"""Colours that can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.mail.contrast import BLACK, WHITE, contrast, ink


def test_ratios_are_those_of_wcag() -> None:
    assert contrast(BLACK, WHITE) == pytest.approx(21)
    assert contrast("#123456", "#123456") == 1
    assert contrast(WHITE, "#777777") == pytest.approx(4.48, abs=0.005)  # the known grey that just fails
    assert contrast("#767676", WHITE) == pytest.approx(4.54, abs=0.005)  # and the one that just passes


@given(st.integers(0, 0xFFFFFF).map("#{:06x}".format))
def test_text_can_be_read_on_any_colour(color: str) -> None:
    assert contrast(ink(color), color) >= 4.5
