"""Valid calls of what marks a learner's answers."""
from course_lm.homework import ExerciseCheck, check, exercise_of
from tests.fuzz.calls import Call


def wilson(correct, n): return 0., 1.


def calls(w):
    yield Call("homework:ExerciseCheck", dict(exercise=exercise_of("wilson")), then=repr)
    asked = dict(fn=wilson, verbose=False, seconds=5.)
    on = ExerciseCheck(exercise_of("wilson"))
    yield Call("homework:ExerciseCheck.__call__", asked, on=on, then=lambda report: str(report)[:300])
    yield Call("homework:check.all", dict(namespace={}, verbose=False), on=check)
