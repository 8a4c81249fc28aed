"""Every kind of bad input gets the line that the page says, and one line."""

import bad_input
import pytest


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    return [bad_input.line_of(case, tmp_path_factory.mktemp("case")) for case in bad_input.CASES]


def test_the_page_says_what_each_kind_gets(lines):
    assert bad_input.page(lines) == bad_input.PAGE.read_text(encoding="utf-8"), "run python tools/bad_input.py"


def test_there_are_sixty_kinds_or_more_and_none_is_there_twice():
    assert len({case.what for case in bad_input.CASES}) == len(bad_input.CASES) >= 60


def test_each_gets_one_line(lines):
    assert [line for line in lines if len(line.strip().splitlines()) != 1] == []
