"The teacher's page: its example of a new exercise, run as it is written."
import re

import pytest

from course_lm.homework import Exercise, Mistake
from course_lm.homework.checking import checked_function
from course_lm.homework.recognition import matrix
from course_lm.homework.sheets import without_solution
from scripts.lessons import nbs
from tests.test_pages import anchors

PAGE = (nbs / "teaching.md").read_text(encoding="utf-8")
BLOCKS = [re.sub("(?m)^    ", "", block) for block in re.findall(r"(?:^(?:    .*)?\n)+", PAGE, re.M)]
CELL, BANK = (next(b for b in BLOCKS if mark in b) for mark in ("### solution", "count_eos_exercise"))


@pytest.fixture(scope="module")
def exercise():
    space = dict(Exercise=Exercise, Mistake=Mistake)
    exec(BANK, space)
    return space["count_eos_exercise"]


def function(code):
    space = {}
    exec(code, space)
    return space["count_eos"]


def test_the_solution_passes_and_the_stub_fails_gently(exercise):
    assert checked_function(exercise, function(CELL))
    assert checked_function(exercise, function(without_solution(CELL))).mistake == "nothing-here-yet"


def test_the_mistake_is_named_in_the_words_of_the_page(exercise):
    report = checked_function(exercise, lambda ids, eos: ids[:-1].count(eos))
    assert report.mistake == "last-left-out"
    assert report.message.startswith("You count 0 in [0]. The last token belongs")


def test_the_matrix_has_nothing_to_complain_of(exercise):
    assert set(matrix(exercise).values()) == {"named"}
    file, _, place = exercise.anchor.partition("#")
    assert place in anchors(nbs / file)
