"""What a valid call is, and all of them."""
import importlib, inspect
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.found import targets


@dataclass
class Call:
    "A valid call of a target; each argument in it is replaced by odd values."
    name: str  # of the target, as in `found.targets`
    args: dict  # name -> value; also those that go to **kwargs
    on: object = None  # of which object the method is, or a function that makes it
    then: Callable = None  # what is done with the answer, where nothing has happened yet
    star: bool = False  # the argument is one of *args
    note: str = ""  # which of several calls
    trains: bool = False  # it takes long, or runs a model for many steps

    def __call__(self, **args):
        f = targets()[self.name].f
        if self.on is not None:
            on = self.on() if inspect.isfunction(self.on) else self.on
            f = getattr(on, self.method)
        args = {**self.args, **args}
        answer = f(*args.values()) if self.star else f(**args)
        return answer if self.then is None else self.then(answer)

    @property
    def changes(self):
        "Whether it may change what other calls take; then the next call runs in a new process."
        return self.trains or self.on is not None or "model" in self.args or "models:" in self.name

    @property
    def method(self): return self.name.rpartition(".")[2]

    @property
    def title(self): return f"{self.name} ({self.note})" if self.note else self.name


PARTS = "texts", "labels", "scores", "training", "reviews", "support", "homework"


def all_calls(w):
    found = []
    for part in PARTS: found += importlib.import_module(f"tests.fuzz.calls_{part}").calls(w)
    return found
