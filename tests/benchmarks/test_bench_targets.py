import pytest
from bench_samples import measured

from benchmarks.loads import LOADS, Figure
from benchmarks.peers import SERVERS
from benchmarks.table import make_rows
from benchmarks.targets import TARGETS, Target, target_table, verdict

RATE = Target("bursts", "securews", Figure.RATE, "picows", must=6, aim=10)
CPU = Target("64-connections", "securews", Figure.CPU, "picows", must=1.25, aim=1.0)


def rows_of(*measurements):
    return {load.name: make_rows(load, SERVERS, measurements) for load in LOADS}


def test_a_target_is_the_ratio_of_two_servers():
    rows = rows_of(measured("securews", per_second=700.0), measured("picows", per_second=100.0))
    assert RATE.value(rows) == pytest.approx(7.0)


def test_a_target_without_another_server_is_the_figure_in_its_unit():
    target = Target("idle-1000", "securews", Figure.MEMORY, must=30, unit=1024)
    sample = measured("securews", "idle-1000", memory_per_connection=25.0 * 1024)
    assert target.value(rows_of(sample)) == pytest.approx(25.0)


@pytest.mark.parametrize("names", [("securews",), ("picows",), ()])
def test_a_target_has_no_value_where_one_of_both_was_not_measured(names):
    assert RATE.value(rows_of(*map(measured, names))) is None


@pytest.mark.parametrize(
    ("value", "word"), [(12.0, "aim"), (10.0, "aim"), (6.0, "must"), (5.9, "missed")]
)
def test_more_is_better_for_a_rate(value, word):
    assert verdict(RATE, value) == word


@pytest.mark.parametrize(
    ("value", "word"), [(0.9, "aim"), (1.0, "aim"), (1.25, "must"), (1.26, "missed")]
)
def test_less_is_better_for_cpu(value, word):
    assert verdict(CPU, value) == word


def test_where_there_is_only_an_aim_it_cannot_be_missed():
    target = Target("busy", "securews", Figure.RATE, "picows", aim=1.0)
    assert verdict(target, 0.5) == "below aim"


def test_every_target_names_a_load_and_servers_that_take_part_in_it():
    loads = {load.name: load for load in LOADS}
    names = {server.name for server in SERVERS}
    for target in TARGETS:
        for server in filter(None, (target.server, target.against)):
            assert server in (loads[target.load].servers or names)


def test_the_table_has_a_line_for_each_target_that_was_measured():
    rows = rows_of(measured("securews", per_second=700.0), measured("picows", per_second=100.0))
    lines = target_table(rows)
    assert len(lines) == 2
    assert lines[1].split()[-2:] == ["7.00", "must"]


def test_there_is_no_table_where_no_target_was_measured():
    assert target_table(rows_of(measured("uvicorn"))) == []
