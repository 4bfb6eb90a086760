"""Docstrings are valid for the pages made from them, and every public kernel's says enough."""

import ast
from pathlib import Path

import docutils.core
import docutils.nodes
import docutils.utils
import pytest
from docutils.parsers.rst import roles
from sphinx.ext.napoleon import Config, GoogleDocstring

SOURCE = Path(__file__).parents[1] / "src" / "netatlas"
MODULES = sorted(p for p in SOURCE.rglob("*.py") if not p.name.startswith("_"))

for name in ("func", "class", "mod", "meth", "attr", "math", "ref", "doc", "data"):
    roles.register_local_role(
        name, lambda role, raw, text, line, inliner, **_: ([docutils.nodes.literal(raw, text)], [])
    )


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        private = (getattr(node, "name", None) or "").startswith("_")
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and not private and ast.get_docstring(node):
            yield getattr(node, "name", path.stem), ast.get_docstring(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_docstrings_render_without_a_warning(path):
    config = Config(napoleon_google_docstring=True, napoleon_numpy_docstring=False, napoleon_use_rtype=False)
    for name, text in docstrings(path):
        rst = str(GoogleDocstring(text, config, what="function"))
        _, publisher = docutils.core.publish_programmatically(
            source=rst,
            source_class=docutils.io.StringInput,
            source_path=f"{path.name}:{name}",
            destination_class=docutils.io.NullOutput,
            destination=None,
            destination_path=None,
            reader=None,
            reader_name="standalone",
            parser=None,
            parser_name="restructuredtext",
            writer=None,
            writer_name="null",
            settings=None,
            settings_spec=None,
            settings_overrides={"report_level": 5, "halt_level": 6, "warning_stream": False},
            config_section=None,
            enable_exit_status=False,
        )
        messages = [*publisher.document.findall(docutils.nodes.system_message), *publisher.document.transform_messages]
        told = [m.astext() for m in messages if m["level"] >= 2 and "Unknown" not in m.astext()]
        assert not told, f"{path.name}: {name}: {told[0]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_public_name_has_a_docstring(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"
