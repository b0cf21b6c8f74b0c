"""What a room may hold, measured: `python -m scripts.house` prints what is above its budget, room by room.

    python -m scripts.house               # all rooms
    python -m scripts.house labels 31     # rooms whose name has one of these words in it
    python -m scripts.house --figures     # the table of figures alone

The budgets are in tests/test_house.py, and `make test` holds them.
"""
import ast, json, re, sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

root = Path(__file__).resolve().parent.parent
SUPPORT = "checks words kinds randomness machine arrow inputs padding files html processes real".split()  # up
HOMEWORK, INDEX = 95, 1000  # ranks of the checker that nbs/homework makes and uses, and of nbs/index.ipynb
PARTS = "answers exercises sandbox recognition report findings checking".split()  # of the checker, upwards
USES = "sheets notebooks grading".split()  # of it and of its banks, upwards
LEFTOVERS = "Carried over from", "To be merged or deleted"
KIND_MAKERS = {"Kind", "kind"}  # what makes a field type; so does a function that gives a Kind back


@dataclass(frozen=True)
class Found:
    "Something that was measured."
    rule: str  # the budget that it counts against
    room: str  # the notebook's stem, or the path of a file outside the rooms
    where: str  # the name that a raised budget goes by
    value: float  # what was measured; 1 where a rule allows nothing of the kind
    text: str = ""  # for a reader


@dataclass(frozen=True)
class Source:
    "A piece of Python: a module, a cell, a file outside the library."
    room: str  # the notebook's stem, or the file's path
    module: str  # what it is a part of; empty outside the library
    place: str  # for a reader: labels.py, cell 12, tests/test_labels.py
    kind: str  # module, export (a cell that a module is made of), cell or file
    text: str


@lru_cache(maxsize=None)
def parse(source: str) -> ast.Module:
    "The tree of a module or cell, without magics and shell commands; a cell of another language is empty."
    if source.lstrip().startswith("%%"): return ast.parse("")
    lines = [re.sub(r"^(\s*)(?!!=)[!%?].*", r"\1pass", line) for line in source.splitlines()]
    return ast.parse("\n".join(lines))


@dataclass
class Notebook:
    "A notebook of the course, read."
    path: Path
    nbs: Path
    cells: list = field(default_factory=list)

    def __post_init__(self):
        found = json.loads(self.path.read_text(encoding="utf-8"))["cells"]
        self.cells = [(cell["cell_type"], "".join(cell["source"])) for cell in found]

    @property
    def name(self) -> str:
        "`20_chunking` or `support/arrow`."
        return self.path.relative_to(self.nbs).with_suffix("").as_posix()

    @cached_property
    def default_exps(self) -> list[str]:
        "The modules that the notebook says it makes."
        found = re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(self.code), re.M)
        return [name.removesuffix(".__init__") for name in found]

    @property
    def code(self) -> list[str]:
        return [source for kind, source in self.cells if kind == "code" and source.strip()]

    @property
    def module(self) -> str: return self.default_exps[0] if self.default_exps else ""

    @property
    def rank(self) -> int | None:
        "How high the room lies; None where nobody has said."
        if self.name == "index": return INDEX
        folder, _, stem = self.name.rpartition("/")
        if folder == "homework": return HOMEWORK + place_in_homework(stem)
        if folder == "support": return SUPPORT.index(stem) - len(SUPPORT) if stem in SUPPORT else None
        return int(stem[:2]) if re.match(r"\d\d_", stem) and not folder else None


def place_in_homework(stem: str) -> float:
    "How far above or below the checker a page of nbs/homework lies, in less than a lesson."
    if stem in PARTS: return (PARTS.index(stem) - len(PARTS)) / 100
    if stem in USES: return .2 + USES.index(stem) / 100
    if stem == "tiny": return .08  # models, for banks
    if stem.startswith("bank_"): return .1 if stem[-1] == "0" else .09  # the parts of a bank below it
    return .3


@dataclass
class House:
    "A tree of the repository: its notebooks, its modules, its other Python files."
    root: Path = root

    @cached_property
    def notebooks(self) -> list[Notebook]:
        nbs = self.root / "nbs"
        paths = sorted(p for p in nbs.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
        return [Notebook(p, nbs) for p in paths]

    @cached_property
    def modules(self) -> dict[str, str]:
        "Name of each module below course_lm and its source, but for what nbdev makes by itself."
        package, found = self.root / "course_lm", {}
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).with_suffix("").parts
            source = path.read_text(encoding="utf-8")
            nearly_empty = path.name == "__init__.py" and len(source.splitlines()) < 3
            if path.name not in ("_modidx.py", "__main__.py") and not nearly_empty:
                found[".".join(part for part in parts if part != "__init__")] = source
        return found

    @cached_property
    def others(self) -> dict[str, str]:
        "Path and source of each Python file outside the library."
        paths = list(self.root.glob("*.py"))
        for folder in ("tests", "scripts", "benchmarks", "runs"): paths += (self.root / folder).rglob("*.py")
        return {p.relative_to(self.root).as_posix(): p.read_text(encoding="utf-8") for p in sorted(paths)}

    @cached_property
    def ranks(self) -> dict[str, int]:
        return {nb.module: nb.rank for nb in self.notebooks if nb.module and nb.rank is not None}

    def room(self, module: str) -> str:
        "The notebook that makes a module."
        return next((nb.name for nb in self.notebooks if nb.module == module), f"course_lm/{module}")

    @cached_property
    def sources(self) -> list[Source]:
        "All Python of the tree. An exported cell is there twice: as it is, and in its module."
        found = [Source(self.room(m), m, f"{m}.py", "module", text) for m, text in self.modules.items()]
        for nb in self.notebooks:
            for i, (kind, text) in enumerate(nb.cells):
                part = "export" if exports(text) else "cell"
                if kind == "code": found.append(Source(nb.name, nb.module, f"cell {i}", part, text))
        return found + [Source(path, "", path, "file", text) for path, text in self.others.items()]

    def once(self) -> list[Source]:
        "The same, without the second sight of exported cells."
        return [s for s in self.sources if s.kind != "export"]


def exports(source: str) -> bool:
    "Whether a cell is part of a module: `export`, `exporti` or `exports`."
    return bool(re.match(r"#\|\s*exports?i?\b", source))


def imports(source: str, package: str = "") -> list[tuple[str, str]]:
    "(module, name) for what a source takes from course_lm, also inside strings; no name for a whole module."
    found, aliases = [], {}
    tree = parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                if a.name.startswith("course_lm."):
                    found.append((a.name.removeprefix("course_lm."), ""))
                    if a.asname: aliases[a.asname] = a.name.removeprefix("course_lm.")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["course_lm", *package.split(".")[:-1]] if package else ["course_lm"]
                base = ".".join([*parts[:len(parts) + 1 - node.level], *([base] if base else [])])
            if base.split(".")[0] != "course_lm": continue
            for a in node.names:
                if base == "course_lm":
                    found.append((a.name, ""))
                    aliases[a.asname or a.name] = a.name
                else: found.append((base.removeprefix("course_lm."), a.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [(m, "") for m in re.findall(r"(?:from|import) course_lm\.(\w[\w.]*)", node.value)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            found.append((aliases[node.value.id], node.attr))
    return found


def named(module: str, known: Iterable[str]) -> str:
    "The module that a dotted name begins with: support.arrow of support.arrow.Columns."
    parts = module.split(".")
    return next((name for k in range(len(parts), 0, -1) if (name := ".".join(parts[:k])) in known), "")


# ---- what is measured

def module_lines(house: House) -> Iterator[Found]:
    for module, source in house.modules.items():
        n = len(source.splitlines())
        yield Found("lines", house.room(module), module, n, f"{module}.py has {n} lines")


def columns(house: House) -> Iterator[Found]:
    "One for each line that is not short: modules, notebooks' code and everything else that is Python."
    for s in house.sources:
        for i, line in enumerate(s.text.splitlines(), 1):
            where = f"{s.place} line {i}"
            by_nbdev = s.kind == "module" and re.match(r"__all__ = \[| {11}'\w+'[,\]]", line)
            if len(line) > 80 and not by_nbdev:
                yield Found("columns", s.room, where, len(line), f"{where}: {len(line)} columns")


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    "The public functions and methods of a module, with their names; constructors are public."
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"): yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for part in node.body:
                if not isinstance(part, ast.FunctionDef): continue
                if part.name in ("__init__", "__call__") or not part.name.startswith("_"):
                    yield f"{node.name}.{part.name}", part


def parameters(house: House) -> Iterator[Found]:
    "What a caller can set; `self` and `cls` he cannot, nor the mistakes that a bank's reference can make."
    for module, source in house.modules.items():
        for name, f in functions(ast.parse(source)):
            a = f.args
            switches = [] if module.startswith("homework.bank_") else a.kwonlyargs
            given = [x.arg for x in [*a.posonlyargs, *a.args, *switches, a.vararg, a.kwarg] if x]
            n = len(given) - ("." in name and given[:1] in (["self"], ["cls"]))
            where = f"{module}.{name}"
            yield Found("parameters", house.room(module), where, n, f"{where} has {n} parameters")


def public_names(source: str) -> list[str]:
    "The `__all__` of a module."
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return []


def gives_kind(f: ast.FunctionDef) -> bool:
    return f.returns is not None and ast.unparse(f.returns).strip("'\"") == "Kind"


def field_types(source: str) -> set[str]:
    "The field types of a module: made by `Kind`, by `@kind`, or by a function or `X[...]` that gives one."
    tree, makers = ast.parse(source), set(KIND_MAKERS)
    for node in tree.body:
        parts = node.body if isinstance(node, ast.ClassDef) else [node]
        makers |= {node.name for f in parts if isinstance(f, ast.FunctionDef) and gives_kind(f)}
    found = makers - KIND_MAKERS
    for node in tree.body:  # OneOf['a', 'b'] is one, too
        if isinstance(node, ast.ClassDef) and "return Kind(" in ast.unparse(node): found.add(node.name)
    for node in tree.body:
        decorators = {ast.unparse(d).split("(")[0] for d in getattr(node, "decorator_list", [])}
        if decorators & makers: found.add(node.name)
        made = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if made and ast.unparse(node.value.func) in makers:
            found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return found


def names(house: House, families: Iterable[str] = ()) -> Iterator[Found]:
    "Public names of lessons and of support; the field types of a module in `families` count as one name."
    count = Counter()
    for module, source in house.modules.items():
        if module.startswith("homework"): continue
        own = set(public_names(source))
        if module in families:
            kinds = own & field_types(source)
            own = own - kinds | ({"the field types"} if kinds else set())
        count["support names" if module.startswith("support.") else "lesson names"] += len(own)
    for rule in ("lesson names", "support names"):
        yield Found(rule, "all rooms", "", count[rule], f"{count[rule]} public {rule}")


def one_module_each(house: House) -> Iterator[Found]:
    "A notebook makes one module, of its own, and no other; the index and the homework sheets make none."
    made = Counter(nb.module for nb in house.notebooks if nb.module)
    for nb in house.notebooks:
        sheet = nb.name == "index" or nb.name.startswith("homework/")
        wrong = []
        if len(nb.default_exps) > 1 or not nb.default_exps and not sheet:
            wrong.append(f"{len(nb.default_exps)} default_exp")
        if made[nb.module] > 1: wrong.append(f"shares {nb.module} with another notebook")
        code = "\n".join(nb.code)
        wrong += [f"exports to {other}" for other in re.findall(r"^#\|\s*exports?i? (\S+)", code, re.M)]
        if nb.module and nb.module not in house.modules: wrong.append(f"makes no module {nb.module}")
        if nb.rank is None: wrong.append("has no rank: neither two digits nor a room of support in the order")
        for text in wrong: yield Found("default_exp", nb.name, nb.name, 1, text)
    for module in house.modules.keys() - made.keys():
        yield Found("default_exp", f"course_lm/{module}", module, 1, f"no notebook makes {module}.py")


def exported_cells(house: House) -> Iterator[Found]:
    for nb in house.notebooks:
        for i, (kind, source) in enumerate(nb.cells):
            if kind != "code" or not exports(source): continue
            n = sum(not line.startswith("#|") for line in source.splitlines())
            first = re.search(r"^(?:def|class) (\w+)", source, re.M)
            name = first[1] if first else f"cell {i}"
            where = f"{nb.module}.{name}"
            yield Found("exported cell", nb.name, where, n, f"{name}: {n} lines exported at once")


def package_of(s: Source) -> str:
    "What a relative import begins from."
    return s.module if s.kind == "module" else ""


def layers(house: House) -> Iterator[Found]:
    "Imports of a room that lies as high or higher. A notebook's cells may import the module that it makes."
    rank_of = {nb.name: nb.rank for nb in house.notebooks}
    for s in house.once():
        rank = rank_of.get(s.room)
        if rank is None: continue
        for other in sorted({named(m, house.ranks) for m, _ in imports(s.text, package_of(s))} - {""}):
            its_own = other == s.module and s.kind == "cell"
            if not its_own and house.ranks[other] >= rank:
                where = f"{s.module}>{other}"
                yield Found("layering", s.room, where, 1, f"{s.place} imports {other}, not a lower room")


def borders(house: House) -> Iterator[Found]:
    "Private names that cross a module, and stars. Tests may look inside."
    for s in house.once():
        for module, name in sorted(set(imports(s.text, package_of(s)))):
            private = name.startswith("_") and not name.startswith("__")
            if private and module != s.module and not s.room.startswith("tests/"):
                where = f"{module}.{name}"
                yield Found("private import", s.room, where, 1, f"{s.place} takes {name} from {module}")
        for node in ast.walk(parse(s.text)):
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                text = f"{s.place} imports everything of {node.module}"
                yield Found("star import", s.room, s.place, 1, text)


def leftovers(house: House) -> Iterator[Found]:
    for nb in house.notebooks:
        for i, (_, source) in enumerate(nb.cells):
            for text in LEFTOVERS:
                if text in source: yield Found("leftover", nb.name, nb.name, 1, f"cell {i}: {text!r}")


def style_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    "(line, what is wrong) by the rules of style that a parser can see."
    for node in ast.walk(tree):
        for part in ("body", "orelse", "finalbody"):
            body = getattr(node, part, [])
            if not isinstance(body, list): continue
            for line, n in Counter(s.lineno for s in body if isinstance(s, ast.stmt)).items():
                if n > 1: yield line, f"{n} statements on a line"
        found = style_of_node(node)
        if found: yield node.lineno, found


def style_of_node(node: ast.AST) -> str:
    match node:
        case ast.Assign(value=ast.Lambda()): return "a lambda with a name"
        case ast.IfExp(body=ast.IfExp()) | ast.IfExp(orelse=ast.IfExp()) | ast.IfExp(test=ast.IfExp()):
            return "chained conditional expressions"
        case ast.Call():
            given = [*node.args, *(k.value for k in node.keywords)]
            return "a walrus inside an argument" if any(isinstance(x, ast.NamedExpr) for x in given) else ""
        case ast.Subscript() if any(isinstance(x, ast.NamedExpr) for x in ast.walk(node.slice)):
            return "a walrus inside a slice"
        case ast.UnaryOp(ast.USub(), ast.BinOp(ast.UnaryOp(ast.USub()), ast.FloorDiv())):
            return "-(-a//b): write ceil_div"
    return ""


def style(house: House) -> Iterator[Found]:
    for s in house.once():
        for line, text in style_of(parse(s.text)):
            where = f"{s.place} line {line}"
            yield Found("style", s.room, where, 1, f"{where}: {text}")


def pages(house: House) -> Iterator[Found]:
    "Cells, words, and the share of code cells that are longer than five lines."
    for nb in house.notebooks:
        if nb.name == "index": continue
        words = sum(len(source.split()) for kind, source in nb.cells if kind == "markdown")
        lengths = [sum(not line.startswith("#|") for line in s.strip().splitlines()) for s in nb.code]
        long = 100 * sum(n > 5 for n in lengths) / max(1, len(lengths))
        yield Found("cells", nb.name, nb.name, len(nb.cells), f"{len(nb.cells)} cells")
        yield Found("words", nb.name, nb.name, words, f"{words:,} words")
        text = f"{long:.0f} % of its code cells have more than 5 lines"
        yield Found("long cells", nb.name, nb.name, long, text)


def raises(source: str) -> float:
    "`raise` lines in a hundred."
    lines = source.splitlines()
    return 100 * sum(bool(re.search(r"\braise\b", line)) for line in lines) / max(1, len(lines))


OF_ROOMS = module_lines, parameters, one_module_each, exported_cells, layers, leftovers, pages
OF_CODE = columns, borders, style


def measure(house: House, families: Iterable[str] = ()) -> list[Found]:
    "Everything that there is a budget for."
    return [found for f in OF_ROOMS + OF_CODE for found in f(house)] + list(names(house, families))


def violations(found: list[Found], budgets: dict[str, float], raised: dict | None = None) -> list[Found]:
    "What is above its budget. `raised` holds (rule, where) -> (budget, reason)."
    raised = raised or {}
    def budget(x): return raised.get((x.rule, x.where), (budgets[x.rule],))[0]
    return [x for x in found if x.rule in budgets and x.value > budget(x)]


def idle(found: list[Found], budgets: dict[str, float], raised: dict) -> list[tuple[str, str]]:
    "The lines of `raised` that nothing needs: what they are about is gone, or within the common budget."
    needed = {(x.rule, x.where) for x in violations(found, budgets)}
    return [key for key in raised if key not in needed]


def figures(house: House) -> str:
    "A line for each room: what it holds today."
    lines = [f"{'room':32}{'module':22}{'lines':>6}{'public':>7}{'raise/100':>10}{'cells':>7}{'words':>7}"
             f"{'short cells':>12}"]
    measured = {(x.rule, x.room): x.value for x in pages(house)}
    total = Counter()
    for nb in sorted(house.notebooks, key=lambda nb: (nb.rank is None, nb.rank or 0)):
        if nb.name == "index": continue
        source = house.modules.get(nb.module, "")
        n, public = len(source.splitlines()), len(public_names(source))
        total.update(lines=n, public=public, cells=len(nb.cells), words=measured["words", nb.name])
        lines.append(f"{nb.name:32}{nb.module:22}{n:6,}{public:7}{raises(source):10.1f}{len(nb.cells):7}"
                     f"{measured['words', nb.name]:7,}{100 - measured['long cells', nb.name]:10.0f} %")
    of_all = raises("\n".join(house.modules.values()))
    lines.append(f"{'all':54}{total['lines']:6,}{total['public']:7}{of_all:10.1f}{total['cells']:7}"
                 f"{total['words']:7,}")
    return "\n".join(lines)


def report(wrong: list[Found], binding: set[str], words: list[str]) -> str:
    "The violations by room; those that do not bind yet have a star."
    by_room = defaultdict(list)
    for x in wrong:
        if not words or any(w in x.room for w in words): by_room[x.room].append(x)
    lines = []
    for room in sorted(by_room):
        lines.append(room)
        for x in by_room[room]: lines.append(f"  {x.rule + ('' if x.rule in binding else ' *'):16} {x.text}")
    counts = Counter(x.rule for found in by_room.values() for x in found)
    sums = "  ".join(f"{rule}: {n}" for rule, n in sorted(counts.items()))
    lines += ["", sums or "nothing above its budget"]
    return "\n".join(lines)


def main(words: list[str]) -> int:
    from tests.test_house import BUDGETS, FAMILIES, PAGES, RAISED
    house = House()
    if "--figures" not in words:
        print(report(violations(measure(house, FAMILIES), BUDGETS | PAGES, RAISED), set(BUDGETS), words))
        print("\n* pages: not binding for lessons that tests/test_house.py lists as waiting\n")
    print(figures(house))
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
