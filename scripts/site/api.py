"Pages of reference, read from the library's source with `ast`: signatures, docstrings, notes on parameters."
import ast, io, re, tokenize
from pathlib import Path


def comments(source: str) -> dict:
    "Line -> the comment on it."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def cell(text: str) -> str:
    "Text that may stand in a Markdown table."
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def kind_cell(code: str) -> str: return code.replace("|", "\\|")


def prose(text: str) -> str:
    "A docstring as Markdown: what is code stays code, and nothing else is markup."
    parts = re.split(r"(``?[^`]+``?)", text or "")
    escaped = [re.sub(r"([*_<\[$])", r"\\\1", p) if i % 2 == 0 else p for i, p in enumerate(parts)]
    return "".join(escaped)


def parameters(function) -> list:
    a = function.args
    found = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    return [x for x in found if x is not None and x.arg not in ("self", "cls")]


def signature(name: str, arguments, returns: str) -> str:
    "On one line where it fits, else a parameter a line."
    line = f"{name}({ast.unparse(arguments)}){returns}"
    if len(line) <= 72: return line
    parts = re.split(r", (?=\*{0,2}\w+(?::|=|,|$)|\*,)", ast.unparse(arguments))
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returns}"])


def entry(function, notes: dict, name: str, docstring: str) -> list[str]:
    "One function: heading, signature, docstring, a row for each parameter."
    a = ast.arguments(**{f: getattr(function.args, f) for f in function.args._fields})
    if a.args and a.args[0].arg in ("self", "cls"): a.args = a.args[1:]
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    first = function.body[0].lineno
    lines = [x.lineno for x in parameters(function)]
    rows = []
    for x in parameters(function):
        alone = lines.count(x.lineno) == 1 and x.lineno < first
        kind = f"`{ast.unparse(x.annotation)}`" if x.annotation else ""
        rows.append((x.arg, kind, notes.get(x.lineno, "") if alone else ""))
    out = [f"## {name}", "", "```python", signature(name, a, returns), "```", "", prose(docstring)]
    if any(kind or note for _, kind, note in rows):
        out += ["", "| parameter | type | |", "| --- | --- | --- |"]
        out += [f"| `{n}` | {kind_cell(k)} | {cell(note)} |" for n, k, note in rows]
    after = range(max(lines, default=function.lineno), first)
    ends = [line for line in after if line in notes and line not in lines]
    if ends: out += ["", f"*Returns* {prose(notes[ends[-1]])}"]
    return [*out, ""]


def patched(function):
    "The class whose method a `@patch`ed function is."
    if not any(ast.unparse(d).split("(")[0] == "patch" for d in function.decorator_list): return None
    return ast.unparse(function.args.args[0].annotation) if function.args.args else None


def methods(node) -> list:
    "The public methods of a class."
    return [f for f in node.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")]


def class_entries(node, notes: dict) -> list[str]:
    init = next((f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
    fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
    said = ast.get_docstring(node) or ""
    if init: out = entry(init, notes, node.name, said)
    else:
        out = [f"## {node.name}", "", prose(said), ""]
        if fields:
            out += ["| field | type | |", "| --- | --- | --- |"]
            out += [f"| `{ast.unparse(f.target)}` | {kind_cell('`' + ast.unparse(f.annotation) + '`')} | "
                    f"{cell(notes.get(f.lineno, ''))} |" for f in fields] + [""]
    for f in methods(node):
        if ast.get_docstring(f): out += entry(f, notes, f"{node.name}.{f.name}", ast.get_docstring(f))
    return out


def page(path: Path, module: str, lesson: str) -> str:
    "The page of one module; `lesson` is a link to the notebook that makes it."
    source = path.read_text(encoding="utf-8")
    tree, notes = ast.parse(source), comments(source)
    names = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    public = ast.literal_eval(names[0].value) if names else []
    out = [f"# {module}", "", prose(ast.get_docstring(tree) or ""), "", f"Made in {lesson}.", ""]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in public:
            out += entry(node, notes, node.name, ast.get_docstring(node) or "")
        elif isinstance(node, ast.ClassDef) and node.name in public: out += class_entries(node, notes)
        elif isinstance(node, ast.FunctionDef) and patched(node) and not node.name.startswith("_"):
            out += entry(node, notes, f"{patched(node)}.{node.name}", ast.get_docstring(node) or "")
    return "\n".join(out)
