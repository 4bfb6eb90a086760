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


@dataclass
class _Definition:
    line: int
    value: ast.expr


def _targets(node: ast.AST) -> list[str]:
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _definitions(tree: ast.Module) -> dict[str, list[_Definition]]:
    """Everything each name is bound to or changed by, in order."""
    found: dict[str, list[_Definition]] = {}

    def bind(names: list[str], line: int, value: ast.expr) -> None:
        for name in names:
            found.setdefault(name, []).append(_Definition(line, value))

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                # An item or attribute that is set changes the object that the name stands for.
                base = target
                while isinstance(base, ast.Subscript | ast.Attribute):
                    base = base.value
                changed = [base.id] if isinstance(base, ast.Name) and base is not target else []
                pairs = (
                    zip(target.elts, node.value.elts)
                    if isinstance(target, ast.Tuple)
                    and isinstance(node.value, ast.Tuple)
                    and len(target.elts) == len(node.value.elts)
                    else [(target, node.value)]
                )
                for part, value in pairs:
                    bind(_targets(part) or changed, node.lineno, value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            bind(_targets(node.target), node.lineno, node.value)
        elif isinstance(node, ast.AugAssign):
            bind(_targets(node.target), node.lineno, ast.BinOp(ast.Name("", ast.Load()), node.op, node.value))
        elif isinstance(node, ast.For):
            bind(_targets(node.target), node.lineno, node.iter)
        elif isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    bind(_targets(item.optional_vars), node.lineno, item.context_expr)
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

    def binding(self, name: str, line: int) -> ast.expr | None:
        """The last thing a name was bound to before a line."""
        earlier = [d for d in self.definitions.get(name, []) if d.line < line]
        return earlier[-1].value if earlier else None

    def computes(self, node: ast.expr) -> bool:
        """Whether an expression calls something that could measure."""
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            root = call.func
            while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
                root = root.func if isinstance(root, ast.Call) else root.value
            if isinstance(root, ast.Name) and root.id not in PASSING and root.id not in BUILTINS:
                return True
        return False

    def sources(self, node: ast.expr, line: int, seen: frozenset[str] = frozenset()) -> set[str]:
        """Names in an expression, and in what they were bound to, that hold something computed."""
        found: set[str] = set()
        local = {n for c in ast.walk(node) if isinstance(c, ast.comprehension) for n in _targets(c.target)}
        for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - seen - local - PASSING:
            if name in self.imported and not self.definitions.get(name):
                continue
            value = self.binding(name, line)
            if value is None:
                continue
            deeper = self.sources(value, line, seen | {name})
            if self.computes(value) or deeper:
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


def _conditions(holds: ast.expr, flow: _Flow, line: int) -> list[tuple[str, ast.expr]]:
    """The conditions in ``holds=``, through a name that is bound to a dict."""
    if isinstance(holds, ast.Name):
        bound = flow.binding(holds.id, line)
        if isinstance(bound, ast.Dict):
            return _conditions(bound, flow, line)
    if isinstance(holds, ast.Dict):
        named = []
        for key, value in zip(holds.keys, holds.values):
            if key is None:
                named += _conditions(value, flow, line)
            else:
                named.append((ast.unparse(key), value))
        return named
    return [("holds", holds)]


def _check_claim(call: ast.Call, flow: _Flow) -> list[Finding]:
    line = call.lineno
    key = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else "?"
    given = {k.arg: k.value for k in call.keywords}
    if "holds" not in given or "measured" not in given:
        return [Finding(line, str(key), "has no measured= or no holds=")]
    measured = flow.sources(given["measured"], line)
    if not measured:
        return [Finding(line, str(key), "nothing in measured= was computed")]
    # A condition must come from a name that stands in measured= or control= itself, or share its making.
    shown = {
        n.id
        for part in ("measured", "control")
        if part in given
        for n in ast.walk(given[part])
        if isinstance(n, ast.Name)
    } & (measured | flow.sources(given.get("control", given["measured"]), line))
    makers = {s for name in shown for s in [name, *_direct(flow, name, line)]}
    findings = []
    conditions = _conditions(given["holds"], flow, line)
    if not conditions:
        findings.append(Finding(line, str(key), "has no condition"))
    for name, condition in conditions:
        reached = flow.sources(condition, line)
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
        findings.append(Finding(line, str(key), f"condition {name} {problem}"))
    return findings


def _direct(flow: _Flow, name: str, line: int) -> set[str]:
    """Computed names that a name was made from by arithmetic, items and attributes, without another computation."""
    value = flow.binding(name, line)
    if value is None or flow.computes(value):
        return set()
    near = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)} & flow.sources(value, line)
    return near | {d for other in near if other != name for d in _direct(flow, other, line)}


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
