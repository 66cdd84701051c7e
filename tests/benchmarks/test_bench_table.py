import pytest
from bench_samples import measured

from benchmarks.loads import LOADS
from benchmarks.peers import SERVERS
from benchmarks.table import aligned, load_table, make_rows

BURSTS = next(load for load in LOADS if load.name == "bursts")
CPU = next(load for load in LOADS if load.name == "64-connections")
IDLE = next(load for load in LOADS if load.name == "idle-1000")


def rows_by_name(load, measurements):
    return {row.server.name: row for row in make_rows(load, SERVERS, measurements)}


def test_a_row_has_the_median_of_its_rounds():
    rounds = [measured("picows", per_second=rate) for rate in (10.0, 900.0, 20.0)]
    assert rows_by_name(BURSTS, rounds)["picows"].figure == 20.0


def test_the_best_peer_is_the_one_with_the_highest_rate():
    rows = rows_by_name(
        BURSTS,
        [
            measured("limit", per_second=1000.0),
            measured("securews", per_second=400.0),
            measured("picows", per_second=200.0),
            measured("aiohttp", per_second=100.0),
        ],
    )
    assert rows["securews"].to_limit == pytest.approx(0.4)
    assert rows["securews"].to_best_peer == pytest.approx(2.0)
    assert rows["aiohttp"].to_best_peer == pytest.approx(0.5)


def test_the_best_peer_is_the_one_with_the_least_cpu_where_cpu_is_compared():
    rows = rows_by_name(
        CPU,
        [
            measured(name, "64-connections", server_cpu_us=cpu)
            for name, cpu in (("securews", 12.0), ("picows", 10.0), ("aiohttp", 30.0))
        ],
    )
    assert rows["securews"].to_best_peer == pytest.approx(1.2)
    assert rows["securews"].to_limit is None


def test_our_own_other_handlers_and_the_limit_are_no_peers():
    rows = rows_by_name(
        BURSTS,
        [
            measured("limit", per_second=9000.0),
            measured("securews", per_second=100.0),
            measured("securews-blocking", per_second=800.0),
        ],
    )
    assert rows["securews"].to_best_peer is None


def test_measurements_of_other_loads_do_not_count():
    assert make_rows(BURSTS, SERVERS, [measured("picows", "large")]) == []


def test_rows_come_in_the_order_of_the_servers():
    found = make_rows(BURSTS, SERVERS, [measured("socketify"), measured("limit")])
    assert [row.server.name for row in found] == ["limit", "socketify"]


def test_a_rate_that_the_load_generator_limits_is_marked():
    rows = make_rows(BURSTS, SERVERS, [measured("limit", load_cpu_share=0.93)])
    lines = load_table(BURSTS, rows)
    assert any("93%*" in line for line in lines)
    assert lines[-1].strip().startswith("* the load generator")


def test_a_rate_that_the_server_limits_is_not_marked():
    rows = make_rows(BURSTS, SERVERS, [measured("limit", load_cpu_share=0.79)])
    assert "*" not in "".join(load_table(BURSTS, rows))


def test_what_was_not_measured_is_a_dash():
    rows = make_rows(BURSTS, SERVERS, [measured("limit", server_cpu_us=None)])
    (line,) = (line for line in load_table(BURSTS, rows) if "C limit" in line)
    assert line.split()[3] == "-"


def test_memory_is_shown_in_kibibytes():
    sample = measured("picows", "idle-1000", memory_per_connection=20.5 * 1024, threads=1)
    rows = make_rows(IDLE, SERVERS, [sample])
    assert any("20.5" in line for line in load_table(IDLE, rows))


def test_columns_are_aligned():
    assert aligned([["a", "x"], ["long", "1,000"]]) == ["a         x", "long  1,000"]
