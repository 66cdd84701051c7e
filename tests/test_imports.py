"""The floors of the library: who may import whom, read from the source files."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "securews"

FLOORS = {
    "common": 0,
    "protocol": 1,
    "transport": 1,
    "loop": 1,
    "connection": 2,
    "handlers": 3,
    "certificates": 4,
    "server": 5,
    "client": 5,
    "testing": 6,
    "cli": 7,
}

FACADE = 5
"""`import securews` gives what the floors up to the server offer; those above may use it."""

NOT_IN_PROTOCOL = {
    "_thread",
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "queue",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}

DEPENDENCIES = {
    "protocol": {"h11"},
    "transport": {"cryptography"},
    "certificates": {"cryptography"},
}
"""Where a package that is not of the standard library may be imported."""

HEAVY = {
    "asyncio",
    "multiprocessing",
    "pytest",
    "securews.cli",
    "securews.testing",
    "trustme",
    "unittest",
    "urllib.request",
}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = ("securews", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


ALL_NAMES = {name_of(path) for path in modules()}


def floor_of(name: str) -> int:
    """The floor of a module of securews, by the folder it lies in."""
    return FLOORS.get(folder_of(name), FACADE)


def folder_of(name: str) -> str:
    if name == "securews.__main__":
        return "cli"
    return name.split(".")[1] if "." in name else ""


def imports_of(source: str, name: str, *, is_package: bool) -> set[str]:
    """Every module that a source imports, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([base] if base else [])])
            for alias in node.names:
                # `from securews import serve` names a thing of the facade, and
                # `from securews.server import pages` names a module.
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in ALL_NAMES else base)
    return found


def upward_edges(source: str, name: str, *, is_package: bool = False) -> list[str]:
    edges = []
    for target in sorted(imports_of(source, name, is_package=is_package)):
        if target.partition(".")[0] != "securews" or target == name:
            continue
        mine, theirs = floor_of(name), floor_of(target)
        same_folder = folder_of(name) == folder_of(target)
        from_facade = name == "securews"
        if theirs > mine or (theirs == mine and not same_folder and not from_facade):
            edges.append(f"{name} imports {target}")
    return edges


def test_every_module_belongs_to_a_floor():
    folders = {path.relative_to(PACKAGE).parts[0] for path in modules()}
    assert folders == {*FLOORS, "__init__.py", "__main__.py"}


def test_every_folder_is_a_package_that_says_what_it_is():
    for folder in FLOORS:
        assert ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text())), folder


def test_no_module_imports_a_higher_floor_or_a_sibling_of_its_own():
    edges = []
    for path in modules():
        is_package = path.name == "__init__.py"
        edges += upward_edges(path.read_text(), name_of(path), is_package=is_package)
    assert not edges


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import securews.server.server", "securews.connection.channel"),
        ("from securews.transport.stream import TransformStream", "securews.protocol.frames"),
        ("from securews.protocol.frames import Opcode", "securews.transport.stream"),
        ("from securews import serve", "securews.handlers.handler"),
        ("from securews.loop import loop", "securews.common.errors"),
        ("from ..server import server", "securews.connection.channel"),
        ("def f():\n    import securews.cli.main", "securews.server.server"),
        (
            "if TYPE_CHECKING:\n    from securews.server.server import WebSocketServer",
            "securews.handlers.communicator",
        ),
    ],
)
def test_an_upward_edge_is_found_wherever_it_hides(source, name):
    assert upward_edges(source, name)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from securews.common.errors import printable", "securews.loop.loop"),
        ("from securews.server import pages", "securews.server.opening"),
        ("from . import pages", "securews.server.opening"),
        ("import securews", "securews.cli.main"),
        ("import socket", "securews.transport.stream"),
    ],
)
def test_a_downward_edge_is_none_of_the_tests_business(source, name):
    assert not upward_edges(source, name)


def circles_of(graph: dict[str, set[str]]) -> list[set[str]]:
    """Modules that import each other, directly or through others (Tarjan)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    circles = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        path.append(name)
        for target in graph.get(name, ()):
            if target not in number:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in path:
                lowest[name] = min(lowest[name], number[target])
        if lowest[name] == number[name]:
            circle = set(path[path.index(name) :])
            del path[path.index(name) :]
            if len(circle) > 1:
                circles.append(circle)

    for name in graph:
        if name not in number:
            visit(name)
    return circles


def test_no_modules_import_each_other_in_a_circle():
    """Not within one folder either; imports in functions and under TYPE_CHECKING count."""
    graph = {}
    for path in modules():
        name = name_of(path)
        found = imports_of(path.read_text(), name, is_package=path.name == "__init__.py")
        graph[name] = (found & ALL_NAMES) - {name}
    assert not circles_of(graph)


def test_a_circle_is_found_however_long_it_is():
    assert circles_of({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [{"a", "b", "c"}]
    assert not circles_of({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_only_the_links_module_touches_its_lock():
    """Whoever shares state with another thread goes through the link of the connection."""
    for path in (PACKAGE / "connection").glob("*.py"):
        touches = "link._lock" in path.read_text()
        assert not touches, path
        if path.name != "link.py":
            assert "securews.common.locks" not in path.read_text(), path


def test_the_protocol_has_no_way_to_do_io_to_wait_or_to_log():
    for path in (PACKAGE / "protocol").glob("*.py"):
        imported = imports_of(path.read_text(), name_of(path), is_package=False)
        assert not {name.partition(".")[0] for name in imported} & NOT_IN_PROTOCOL, path


def test_third_party_packages_are_imported_only_where_they_belong():
    strangers = []
    for path in modules():
        name = name_of(path)
        for target in imports_of(path.read_text(), name, is_package=path.name == "__init__.py"):
            root = target.partition(".")[0]
            known = {"securews", *sys.stdlib_module_names, *DEPENDENCIES.get(folder_of(name), ())}
            if root not in known:
                strangers.append(f"{name} imports {target}")
    assert not strangers


def fresh_import() -> tuple[set[str], float]:
    """The modules that `import securews` loads into a fresh interpreter, and its CPU seconds."""
    program = (
        "import sys, time\n"
        "began = time.process_time()\n"
        "import securews\n"
        "seconds = time.process_time() - began\n"
        "import json\n"
        "print(json.dumps([sorted(sys.modules), seconds]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        check=True,
        text=True,
    )
    names, seconds = json.loads(done.stdout)
    return set(names), seconds


def test_import_securews_loads_no_command_line_no_testing_helpers_and_no_asyncio():
    names, _ = fresh_import()
    assert not names & HEAVY


def test_import_securews_is_fast():
    # CPU time, and the best of three: other work on the machine is not what is measured.
    assert min(fresh_import()[1] for _ in range(3)) < 0.6


def test_the_facade_imports_exactly_what_it_names():
    import securews

    imported = set()
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in node.names}
    named = imported - {"acceleration", "codec"} | {"ACCELERATED"}
    assert set(securews.__all__) == named
    assert len(securews.__all__) == len(named)


@pytest.mark.parametrize(("asked", "sources_only"), [("1", True), ("0", False), (None, False)])
def test_securews_pure_finds_only_sources(asked, sources_only):
    program = (
        "import json, sys, securews\n"
        "files = [m.__file__ for n, m in sys.modules.items() if n.startswith('securews')]\n"
        "print(json.dumps([securews.ACCELERATED, files]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "SECUREWS_PURE"}
    if asked is not None:
        environment["SECUREWS_PURE"] = asked
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    accelerated, files = json.loads(done.stdout)
    compiled = [file for file in files if not file.endswith(".py")]
    assert bool(compiled) == accelerated
    if sources_only:
        assert not compiled
    else:  # where anything was compiled, all of it was
        built = {path.name for path in PACKAGE.rglob("*.so")}
        assert {Path(file).name for file in compiled} <= built
        assert accelerated == bool(built)


def test_securews_pure_leaves_the_first_word_to_finders_that_stand_before():
    # So that a tool that instruments sources (coverage, atheris) is asked for ours, too.
    program = (
        "import sys\n"
        "class First:\n"
        "    asked = set()\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        self.asked.add(name)\n"
        "sys.meta_path.insert(0, First())\n"
        "import securews\n"
        "assert 'securews.protocol.parser' in First.asked"
    )
    environment = os.environ | {"SECUREWS_PURE": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
