"""The honesty check: every claim's conditions must be computed from what was measured.

A chapter's syntax tree is walked, not run. For each ``lab.claim`` the check follows the names in ``holds=`` and in
``measured=`` back through the chapter's assignments, and refuses a condition that no measured value can change.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

# Calls that pass values on: what comes out was measured only if something measured went in.
PASSING = {"lab", "np", "numpy", "torch", "math", "pd", "stats"}
BUILTINS = set(dir(__builtins__) if not isinstance(__builtins__, dict) else __builtins__)


@dataclass(frozen=True)
class Finding:
    """A claim that is not decided by a measurement, and why."""

    line: int
    key: str
    problem: str

    def __str__(self) -> str:
        return f"line {self.line}: claim {self.key!r}: {self.problem}"


@dataclass(frozen=True)
class _Definition:
    """What a name is bound to, or what is put into the object that it stands for."""

    line: int
    value: ast.expr
    changes: bool = False


CHANGING = {"append", "extend", "add", "update", "insert"}


def _targets(node: ast.AST) -> list[str]:
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _base(node: ast.expr) -> list[str]:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return [node.id] if isinstance(node, ast.Name) else []


def _assigned(node: ast.Assign) -> list[tuple[list[str], ast.expr, bool]]:
    found = []
    for target in node.targets:
        both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        if both and len(target.elts) == len(node.value.elts):  # type: ignore[attr-defined]
            pairs = list(zip(target.elts, node.value.elts))  # type: ignore[attr-defined]
        else:
            pairs = [(target, node.value)]
        for part, value in pairs:
            plain = _targets(part)
            found.append((plain, value, False) if plain else (_base(part), value, True))
    return found


def _definitions(tree: ast.Module) -> dict[str, list[_Definition]]:
    """Everything each name is bound to or changed by, in order of lines."""
    found: dict[str, list[_Definition]] = {}

    def note(names: list[str], line: int, value: ast.expr, changes: bool = False) -> None:
        for name in names:
            found.setdefault(name, []).append(_Definition(line, value, changes))

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for names, value, changes in _assigned(node):
                note(names, node.lineno, value, changes)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            note(_targets(node.target), node.lineno, node.value)
        elif isinstance(node, ast.AugAssign):
            note(_targets(node.target) or _base(node.target), node.lineno, node.value, True)
        elif isinstance(node, ast.For):
            note(_targets(node.target), node.lineno, node.iter)
        elif isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    note(_targets(item.optional_vars), node.lineno, item.context_expr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
            for argument in [*node.args, *(k.value for k in node.keywords)]:
                note(_base(node.func.value), node.lineno, argument, True)
    for definitions in found.values():
        definitions.sort(key=lambda d: d.line)
    return found


class _Flow:
    """Which measured names an expression depends on."""

    def __init__(self, tree: ast.Module) -> None:
        self.definitions = _definitions(tree)
        self.imported = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }

    def binding(self, name: str, line: int) -> list[_Definition]:
        """The last thing a name was bound to before a line, and all that was put into it since."""
        earlier = [d for d in self.definitions.get(name, []) if d.line < line]
        start = max((i for i, d in enumerate(earlier) if not d.changes), default=0)
        return earlier[start:]

    def computes(self, node: ast.expr) -> bool:
        """Whether an expression calls something that could measure."""
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            root = call.func
            while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
                root = root.func if isinstance(root, ast.Call) else root.value
            if isinstance(root, ast.Name) and root.id not in PASSING and root.id not in BUILTINS:
                return True
        return False

    def sources(self, node: ast.expr, line: int, seen: frozenset[_Definition] = frozenset()) -> set[str]:
        """Names in an expression, and in what they were bound to, that hold something computed."""
        found: set[str] = set()
        local = {n for c in ast.walk(node) if isinstance(c, ast.comprehension) for n in _targets(c.target)}
        for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - local - PASSING:
            for definition in self.binding(name, line):
                if definition in seen:
                    continue
                deeper = self.sources(definition.value, definition.line, seen | {definition})
                if self.computes(definition.value) or deeper:
                    found |= {name} | deeper
        return found


def _identical_sides(node: ast.expr) -> bool:
    """Whether an expression compares something with itself."""
    for part in ast.walk(node):
        if isinstance(part, ast.Compare):
            sides = [ast.dump(side) for side in (part.left, *part.comparators)]
            if len(set(sides)) < len(sides):
                return True
        if isinstance(part, ast.Call) and len(part.args) >= 2 and _called(part) in ("exceeds", "below", "within"):
            sides = [ast.dump(side) for side in part.args[:2]]
            if len(set(sides)) < 2:
                return True
    return False


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _short_circuits(node: ast.expr) -> bool:
    """Whether a part of a condition is a constant that decides it, as in ``x > 0 or True``."""
    for part in ast.walk(node):
        if isinstance(part, ast.BoolOp) and any(isinstance(v, ast.Constant) for v in part.values):
            return True
        if (
            isinstance(part, ast.IfExp)
            and isinstance(part.body, ast.Constant)
            and isinstance(part.orelse, ast.Constant)
        ):
            return part.body.value == part.orelse.value
    return False


def _entries(given: ast.expr, flow: _Flow, line: int) -> list[tuple[str, ast.expr, int]]:
    """Entries of a dict with the line that decides what their names mean, through names, unpacking and unions."""
    if isinstance(given, ast.Name):
        bound = [d for d in flow.binding(given.id, line) if isinstance(d.value, ast.Dict | ast.BinOp)]
        found = [entry for d in bound for entry in _entries(d.value, flow, d.line)]
        return found or [(given.id, given, line)]
    if isinstance(given, ast.BinOp) and isinstance(given.op, ast.BitOr):
        return _entries(given.left, flow, line) + _entries(given.right, flow, line)
    if isinstance(given, ast.Dict):
        named = []
        for key, value in zip(given.keys, given.values):
            named += _entries(value, flow, line) if key is None else [(ast.unparse(key), value, line)]
        return named
    return [("", given, line)]


def _check_claim(call: ast.Call, flow: _Flow) -> list[Finding]:
    line = call.lineno
    key = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "?"
    given = {k.arg: k.value for k in call.keywords}
    if "holds" not in given or "measured" not in given:
        return [Finding(line, str(key), "has no measured= or no holds=")]
    if not flow.sources(given["measured"], line):
        return [Finding(line, str(key), "nothing in measured= was computed")]
    # A condition must come from a name that stands in measured= or control= itself, or share its making.
    makers: set[str] = set()
    for part in ("measured", "control"):
        for _, arm, at in _entries(given[part], flow, line) if part in given else []:
            shown = {n.id for n in ast.walk(arm) if isinstance(n, ast.Name)} & flow.sources(arm, at)
            makers |= {s for name in shown for s in [name, *_direct(flow, name, at)]}
    findings = []
    conditions = _entries(given["holds"], flow, line)
    if not conditions:
        findings.append(Finding(line, str(key), "has no condition"))
    for name, condition, at in conditions:
        reached = flow.sources(condition, at)
        if not [n for n in ast.walk(condition) if isinstance(n, ast.Name | ast.Call)]:
            problem = "is a literal"
        elif isinstance(condition, ast.Name) and not reached:
            problem = "is a name bound to a literal"
        elif _short_circuits(condition):
            problem = "has a constant that decides it"
        elif _identical_sides(condition):
            problem = "compares something with itself"
        elif not reached:
            problem = "depends on nothing that was computed"
        elif not reached & makers:
            problem = "is reached by no measured value"
        else:
            continue
        findings.append(Finding(line, str(key), f"condition {name or 'holds'} {problem}"))
    return findings


def _direct(flow: _Flow, name: str, line: int, seen: frozenset[_Definition] = frozenset()) -> set[str]:
    """Computed names that a name was made from by arithmetic, items and attributes, without another computation."""
    found: set[str] = set()
    for definition in flow.binding(name, line):
        if definition in seen or flow.computes(definition.value):
            continue
        names = {n.id for n in ast.walk(definition.value) if isinstance(n, ast.Name)}
        near = names & flow.sources(definition.value, definition.line)
        found |= near | {d for other in near for d in _direct(flow, other, definition.line, seen | {definition})}
    return found


def check(text: str) -> list[Finding]:
    """Findings in a chapter's source, in order of lines; none if every claim is decided by a measurement.

    Args:
        text: Python source of a chapter.
    """
    tree = ast.parse(text)
    flow = _Flow(tree)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _called(n) == "claim"]
    return [finding for call in sorted(calls, key=lambda c: c.lineno) for finding in _check_claim(call, flow)]


def check_file(path: Path) -> list[Finding]:
    """:func:`check` on a file."""
    return check(path.read_text(encoding="utf-8"))
