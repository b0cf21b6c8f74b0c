"""What is public: found in the modules, not listed by hand."""
import importlib, inspect
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import course_lm

ROOT = Path(course_lm.__file__).parent
# Not asked for, and why.
EXEMPT = {
    "homework.": "banks and the engine, which only `check` calls: what a learner calls stands in `homework`",
    "support.checks": "what checks others; its own tests try odd values on each field type",
    "support.kinds:Shaped": "makes a field type, when a module is imported",
    "labels:LabelStrategy": "a base class: its methods are written by those who subclass it",
    "denoising:Denoising": "a base class: its methods are written by those who subclass it",
}


@dataclass(frozen=True)
class Target:
    "A public function, class or method: `module:name` or `module:Class.method`."
    name: str
    f: object

    @property
    def module(self): return self.name.split(":")[0]

    @property
    def parameters(self):
        found = inspect.signature(self.f).parameters
        return {k: p for k, p in found.items() if k not in ("self", "cls")}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        package = path.name == "__init__.py" and path.parent != ROOT
        if path.name.startswith("_") and not package: continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, importlib.import_module(f"course_lm.{name}")


def promises(value):
    "Whether it is `@checked`: then it says what it takes."
    f = value.__init__ if inspect.isclass(value) else value
    code = getattr(f, "__code__", None)
    return hasattr(f, "__wrapped__") and code is not None and Path(code.co_filename).name == "checks.py"


def methods(cls):
    "Public methods that a class of ours defines itself, and what it does when it is called."
    for name, value in vars(cls).items():
        if name.startswith("_") and name != "__call__": continue
        f = getattr(value, "__func__", value)
        if inspect.isfunction(f): yield name, f


def given(f):
    "The class of ours that a function says it gives."
    cls = inspect.signature(f).return_annotation
    ours = inspect.isclass(cls) and cls.__module__.startswith("course_lm")
    if ours: yield cls, f"{cls.__module__.removeprefix('course_lm.')}:{cls.__name__}"


@cache
def targets():
    "All that a user may call and that takes an argument; also the methods of what functions give."
    found = []
    for module, m in modules():
        if exempt(module): continue
        for name, value in vars(m).items():
            own = getattr(value, "__module__", None) == m.__name__ and not name.startswith("_")
            if not own: continue
            if not (inspect.isfunction(value) or inspect.isclass(value)): # homework's `check` is an object
                shown = methods(type(value)) if name in m.__all__ else ()
                found += [Target(f"{module}:{name}.{k}", f) for k, f in shown]
                continue
            if name not in m.__all__ and not promises(value): continue
            if inspect.isclass(value):
                if issubclass(value, BaseException): continue
                found += [Target(f"{module}:{name}.{k}", f) for k, f in methods(value)]
            else: found += [Target(f"{n}.{k}", f) for cls, n in given(value) for k, f in methods(cls)]
            found.append(Target(f"{module}:{name}", value))
    return {t.name: t for t in found if t.parameters and not exempt(t.name)}


def exempt(name):
    below = tuple(e if e.endswith(".") else f"{e}{mark}" for e in EXEMPT for mark in ".:")
    return name in EXEMPT or name.startswith(below)
