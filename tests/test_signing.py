"""Signed texts: for one purpose, for this installation, through a restart and a rotation."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.signing import BadToken, Keys, kept

OLD, NEW = "the secret of last year", "the secret of this year"


def test_token_is_read_by_another_process() -> None:
    assert Keys([NEW]).read("a", Keys([NEW]).sign("a", "value")) == "value"
    value, age = Keys([NEW]).read_stamped("a", Keys([NEW]).stamp("a", "value"))
    assert value == "value" and -1 < age < 60


def test_token_is_worth_nothing_for_another_purpose_or_elsewhere() -> None:
    token, stamped = Keys([NEW]).sign("a", "value"), Keys([NEW]).stamp("a", "value")
    for keys, purpose in [(Keys([NEW]), "b"), (Keys([OLD]), "a")]:
        with pytest.raises(BadToken):
            keys.read(purpose, token)
        with pytest.raises(BadToken):
            keys.read_stamped(purpose, stamped)


def test_one_kind_is_not_the_other() -> None:
    keys = Keys([NEW])
    with pytest.raises(BadToken):
        keys.read_stamped("a", keys.sign("a", "value"))


def test_rotated_secret_is_believed_and_signs_no_more() -> None:
    both = Keys([NEW, OLD])
    assert both.read("a", Keys([OLD]).sign("a", "value")) == "value"
    assert Keys([NEW]).read("a", both.sign("a", "value")) == "value"
    with pytest.raises(BadToken):
        Keys([OLD]).read("a", both.sign("a", "value"))


@given(st.text())
def test_whatever_is_no_token_is_refused(text: str) -> None:
    for read in (Keys([NEW]).read, Keys([NEW]).read_stamped):
        with pytest.raises(BadToken):
            read("a", text)


@given(st.integers(0), st.sampled_from("abcXYZ019-_."))
def test_changed_token_is_refused(place: int, char: str) -> None:
    token = Keys([NEW]).sign("a", "value")
    place %= len(token) - 1  # of the last character some bits mean nothing
    changed = token[:place] + char + token[place + 1 :]
    if changed != token:
        with pytest.raises(BadToken):
            Keys([NEW]).read("a", changed)


def test_tokens_of_values_of_one_length_are_of_one_length() -> None:
    keys = Keys([NEW])
    assert len({len(keys.stamp("a", f"{n:029}")) for n in range(50)}) == 1


def test_digest_is_of_its_purpose_and_secret() -> None:
    told = {keys.digest(purpose, "value") for keys in (Keys([NEW]), Keys([OLD])) for purpose in ("a", "b")}
    assert len(told) == 4 and Keys([NEW]).digest("a", "value") in told


def test_kept_secret_is_made_once_and_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "var" / "secret.key"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: kept(file)[0], range(8)))
    assert len(found) == 1
    assert kept(file) == [*found]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["secret.key"]


def test_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.key").write_text("\n")
    with pytest.raises(OSError, match="is empty"):
        kept(tmp_path / "secret.key")
