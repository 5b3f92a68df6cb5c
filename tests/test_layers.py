"""Data flows one way: each module imports only from those that stand before it in the table of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "resolvi_sd"


def layers() -> list[str]:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)(?:/|\.py)`", row)]


def imports(path: Path) -> set[str]:
    """Layers of the package that a module imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "resolvi_sd":
            inner = (node.module or "").split(".")[1:]
            found |= {inner[0]} if inner else {alias.name for alias in node.names}
    return found


def test_every_module_has_a_layer():
    assert {path.stem for path in SOURCE.iterdir() if path.stem[:2] != "__" and path.suffix in ("", ".py")} == set(
        layers()
    )


def test_imports_go_one_way():
    place = {name: i for i, name in enumerate(layers())}
    against = [
        f"{path.relative_to(SOURCE)} imports from {name}"
        for path in SOURCE.rglob("*.py")
        for name in imports(path)
        if name in place and place[name] > place.get(path.relative_to(SOURCE).parts[0].removesuffix(".py"), len(place))
    ]
    assert against == []


def test_a_layer_is_imported_by_its_name():
    """What others may use of a folder is in its `__init__.py`."""
    inside = []
    for path in SOURCE.rglob("*.py"):
        own = path.relative_to(SOURCE).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resolvi_sd."):
                folder, *module = (node.module or "").split(".")[1:]
                if module and folder != own:
                    inside.append(f"{path.relative_to(SOURCE)} imports from {node.module}")
    assert inside == []
