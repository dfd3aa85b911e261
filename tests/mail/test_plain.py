"""Lines for reading: short, nothing lost, nothing torn that belongs together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.mail.plain import wrap


@given(st.text(alphabet="ab é字，。（“ \n"), st.integers(8, 40))
def test_nothing_is_lost_and_no_line_is_long(text: str, columns: int) -> None:
    wrapped = wrap(text, columns)
    assert "".join(wrapped.split()) == "".join(text.split())
    for line in wrapped.splitlines():
        assert line == line.strip()
        assert sum(2 if ord(char) > 0x2000 and char != "“" else 1 for char in line) <= columns or " " not in line


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three four", ["one two", "three four"]),
        ("a b\n\nc", ["a b", "", "c"]),
        ("see https://bikes.example/a-long-path now", ["see", "https://bikes.example/a-long-path", "now"]),
        ("请确认是您本人。", ["请确认是您", "本人。"]),
        ("请确认是您，好", ["请确认是", "您，好"]),  # no line begins with a comma
        ("请确认是（您）", ["请确认是", "（您）"]),  # and none ends with a bracket that opens
        ("有效 7 天内 OK", ["有效 7 天", "内 OK"]),
        ("", []),
    ],
)
def test_lines_end_where_a_reader_expects_it(text: str, lines: list[str]) -> None:
    assert wrap(text, 10).splitlines() == lines
