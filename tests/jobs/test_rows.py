"""Files as people and programs make them, and as they break."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from server.jobs import rows
from server.jobs.rows import Record, Source, Unreadable

HEAD = "email,colour\n"


def read(data: str | bytes, encoding: str = "utf-8", raw: bool = False, rename: Mapping[str, str] = {}) -> list[Record]:
    encoded = data.encode(encoding) if isinstance(data, str) else data
    return list(rows.records(Source(io.BytesIO(encoded)), rename, raw))


def good(
    data: str | bytes, encoding: str = "utf-8", raw: bool = False, rename: Mapping[str, str] = {}
) -> list[tuple[Any, ...]]:
    found = read(data, encoding, raw, rename)
    assert [record.problem for record in found] == [None] * len(found)
    return [(record.line, record.own, record.fields) for record in found]


ONE = [(2, {"email": "a@b.example"}, {"colour": "Röd"})]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_as_programs_write_them(encoding: str, separator: str, end: str) -> None:
    table = [["email", "colour"], ["a@b.example", "Röd"]]
    assert good(end.join(separator.join(row) for row in table) + end, encoding) == ONE


def test_signs_in_the_names_of_columns_do_not_separate() -> None:
    assert good("a;b;c;d,email\n1,a@b.example\n") == [(2, {"email": "a@b.example"}, {"a;b;c;d": "1"})]
    with pytest.raises(Unreadable, match="there are: E-Mail, Farbe"):
        read("E-Mail;Farbe\n")


def test_big_endian_with_its_mark() -> None:
    assert good(b"\xfe\xff" + (HEAD + "a@b.example,Röd").encode("utf-16-be")) == ONE


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("layout", ["[{}]", "\n[\n{}\n]\n", "{}", "{}\n\n"])
def test_json_as_programs_write_it(encoding: str, layout: str) -> None:
    [(_, own, fields)] = good(layout.replace("{}", '{"email": "a@b.example", "colour": "Röd"}'), encoding)
    assert (own, fields) == ONE[0][1:]


def test_line_is_where_the_row_begins() -> None:
    assert [line for line, *_ in good(HEAD + '\n\na@b.example,"two\nlines"\nb@b.example,x\n')] == [4, 6]
    assert [line for line, *_ in good('[\n{"email":\n"a"},\n\n{"email": "b"}\n]')] == [2, 5]
    assert [line for line, *_ in good('\n{"email": "a"}\n\n{"email": "b"}\n')] == [2, 4]


def test_array_in_one_line_that_is_longer_than_a_row_may_be() -> None:
    one = {"email": "a@b.example", "colour": "x" * 1000}
    data = json.dumps([one] * (rows.ROW // 500))
    assert len(data) > 2 * rows.ROW and "\n" not in data
    assert {(line, fields["colour"]) for line, _, fields in good(data)} == {(1, "x" * 1000)}


def test_columns_are_called_otherwise_or_left_out() -> None:
    data = "E-Mail,Farbe,ip\na@b.example,Röd,192.0.2.1\n"
    rename = {"E-Mail": "email", "Farbe": "colour", "ip": ""}
    assert good(data, rename=rename) == ONE
    assert good('{"E-Mail": "a@b.example", "Farbe": "Röd", "ip": "192.0.2.1"}', rename=rename) == [(1, *ONE[0][1:])]


def test_columns_of_our_own() -> None:
    own = {"id": "1", "created_at": "2026-01-31T00:00:00Z", "email": "a"}
    assert good("id,received,email,fields.id,created_at\n1,2026-01-31T00:00:00Z,a,7,x") == [
        (2, own, {"id": "7", "created_at": "x"})
    ]
    array = '[{"id": 1, "created_at": "2026-01-31T00:00:00Z", "email": "a", "fields": {"id": 7, "no": null}}]'
    assert good(array) == [(1, own, {"id": "7", "no": None})]


def test_guards_are_taken_off_unless_there_are_none() -> None:
    data = HEAD + "a@b.example,'=1\n"
    assert good(data)[0][2] == {"colour": "=1"}
    assert good(data, raw=True)[0][2] == {"colour": "'=1"}


def test_numbers_stay_as_they_are_written() -> None:
    [(_, _, fields)] = good('{"email": "a", "a": 1.50, "b": 1e400, "c": -0, "d": true, "n": ' + "9" * 5000 + "}")
    assert fields == {"a": "1.50", "b": "1e400", "c": "-0", "d": True, "n": "9" * 5000}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("email,email\na,b\n", "two columns 'email'"),
        ("email,a,a\nx,y,z\n", "two columns 'a'"),
        ("email,,c\nx,y,z\n", "column 2 has no name"),
        ("name,colour\nx,y\n", "no column 'email'; there are: name, colour"),
        ('"email\na@b.example\n', "names of the columns cannot be read"),
        ("x" * (rows.ROW + 10), "longer than"),
        (HEAD.encode("utf-16-le"), "no text"),
        (b"PK\x03\x04\xff\xfe\x00email", "no text"),
        (b"\xff\xfee\x00m\x00a", "neither in UTF-8 nor in UTF-16"),
        (b"\xff\xfe\x00\xd8a\x00", "neither in UTF-8 nor in UTF-16"),
        ("[", "line 1: is no JSON"),
        ("[1", "comma or the end"),
        ("[{},\n]", "line 2: is no JSON"),
        ("[{}\n{}]", "line 2: is no JSON: a comma"),
        ("[] []", "behind the end"),
        ('[{"email": "' + "x" * 2 * rows.ROW, "longer than"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_file_that_cannot_be_read(data: str | bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(data)


def test_column_to_be_renamed_that_is_not_there() -> None:
    with pytest.raises(Unreadable, match="no column 'mail'"):
        read(HEAD, rename={"mail": "email"})


def test_two_columns_that_are_to_be_called_the_same() -> None:
    with pytest.raises(Unreadable, match="two columns 'email'"):
        read("email,mail\n", rename={"mail": "email"})


BROKEN = {
    "a,b,c": "has 3 cells",
    "a": "has 1 cells",
    '"a" x,b': "cannot be read",
    "a,x\0": "NUL",
    "a," + "x" * (rows.ROW + 1): "longer than",
    'a,"' + "x" * 200_000 + '"': "field larger",
    "a,\udcff": "not UTF-8",
}


@pytest.mark.parametrize("row", BROKEN)
def test_broken_row_of_a_table_costs_no_other(row: str) -> None:
    data = f"{HEAD}{row}\nb@b.example,Red\n".encode("utf-8", "surrogateescape")
    bad, fine = read(data)
    assert bad.line == 2 and BROKEN[row] in (bad.problem or "")
    assert (fine.line, fine.problem, fine.own) == (3, None, {"email": "b@b.example"})


@pytest.mark.parametrize("tail", ["b@b.example,Red\n", 'b@b.example,"Red"\n', "b@b.example,Red\n" * 100_000])
def test_quote_that_is_not_closed_says_how_far_it_went(tail: str) -> None:
    bad, *_ = read(f'{HEAD}a,"x\n{tail}')
    assert bad.line == 2 and "(up to line" in (bad.problem or "")


BROKEN_JSON = {
    "{": "is no JSON",
    '{"a": 1, "a": 2}': "a is there twice",
    '{"a": 1, "fields": {"a": 2}}': "a is there twice",
    '{"fields": {"a": 1, "a": 2}}': "a is there twice",
    '{"": 1}': "no name",
    '{"fields": {" ": 1}}': "no name",
    "[]": "is no object",
    '{"a": [1]}': "a: must be a text",
    '{"fields": [1]}': "fields: must be a text",
    '{"consents": {"a": {}}}': "consents: must be a text",
    '{"a": "\\u0000"}': "a: holds a NUL",
    '{"a": "\\ud800"}': "a: holds",
    '{"a\\u0000": 1}': "holds a NUL",
    '{"consents": {"a": "\\u0000"}}': "consents: holds",
    '{"a": ' + "[" * 200_000 + "}": "nested too deeply",
    '{"a": "' + "x" * rows.ROW + '"}': "longer than",
}


@pytest.mark.parametrize("row", BROKEN_JSON)
def test_broken_line_of_json_costs_no_other(row: str) -> None:
    first, bad, fine = read(f'{{"email": "a"}}\n{row}\n{{"email": "b"}}\n')
    assert first.problem is None and fine.problem is None and fine.own == {"email": "b"}
    assert bad.line == 2 and BROKEN_JSON[row] in (bad.problem or "")


def test_what_stands_before_the_break_of_an_array_is_read() -> None:
    found = rows.records(Source(io.BytesIO(b'[{"email": "a"}, nonsense')), {})
    assert next(found).own == {"email": "a"}
    with pytest.raises(Unreadable):
        next(found)


def test_what_was_taken_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(HEAD + "a@b.example,Red\n" * 10_000)
    with file.open("rb") as opened:
        source = Source(opened)
        taken = [source.taken for _ in rows.records(source, {})]
    assert taken == sorted(taken) and taken[0] < taken[-1] == file.stat().st_size
