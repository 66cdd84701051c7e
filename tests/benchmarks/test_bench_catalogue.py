import re
import tomllib
from pathlib import Path

from benchmarks.loads import LOADS, QUICK_SERVERS, choose_loads
from benchmarks.peers import SERVERS, Kind, choose_servers, installed, pure_twin, versions

REPOSITORY = Path(__file__).parent.parent.parent
NAMES = {server.name for server in SERVERS}


def pins():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return dict(line.split("==") for line in project["optional-dependencies"]["bench"])


def test_names_are_unique():
    assert len(NAMES) == len(SERVERS)
    assert len({load.name for load in LOADS}) == len(LOADS)


def test_every_server_but_the_limit_has_a_program():
    for server in SERVERS:
        program = REPOSITORY / "benchmarks" / "servers" / f"{server.module}.py"
        assert (server.kind is Kind.LIMIT) != program.is_file()


def test_loads_name_servers_that_there_are():
    for load in LOADS:
        assert NAMES.issuperset(load.servers)
    assert NAMES.issuperset(QUICK_SERVERS)


def test_every_package_of_a_peer_has_an_exact_version_in_the_extra():
    wanted = {package for server in SERVERS for package in server.packages}
    assert wanted == pins().keys()


def test_the_method_page_names_every_peer_with_its_version():
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text()
    for package, version in pins().items():
        assert re.search(rf"\b{package} {re.escape(version)}", page), package


def test_a_word_chooses_loads_and_servers_by_their_names():
    assert [load.name for load in choose_loads(["idle"], quick=True)] == ["idle-1000", "idle-10000"]
    assert [s.name for s in choose_servers(["aio", "limit"])] == ["limit", "aiohttp"]


def test_quick_has_fewer_loads():
    quick = choose_loads([], quick=True)
    assert quick
    assert set(quick) < set(choose_loads([], quick=False))


def test_the_pure_twin_is_measured_under_a_name_of_its_own():
    ours = next(server for server in SERVERS if server.name == "securews")
    twin = pure_twin(ours)
    assert (twin.name, twin.pure, twin.module) == ("securews-pure", True, ours.module)


def test_a_server_that_needs_a_missing_package_is_not_installed():
    limit = SERVERS[0]
    assert installed(limit)
    missing = type(limit)("x", "x", Kind.PEER, packages=("no-such-distribution",))
    assert versions(missing) == {"no-such-distribution": None}
    assert not installed(missing)
