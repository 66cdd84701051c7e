import pytest
from bench_samples import measured

from benchmarks import machine
from benchmarks.peers import SERVERS, pure_twin
from benchmarks.report import Report, publish, read_report

CHOSEN = [server for server in SERVERS if server.name in ("limit", "securews", "picows")]


@pytest.fixture
def report():
    found = Report(
        facts=machine.describe(CHOSEN),
        command="scripts/bench --quick",
        rounds=1,
        servers=[*CHOSEN, pure_twin(CHOSEN[1])],
    )
    found.measurements = [
        *(measured(server.name, per_second=1234.0) for server in found.servers),
        measured("securews", pinned=True, per_second=777.0),
    ]
    return found


def test_what_was_written_is_read_back(report, tmp_path):
    report.errors.append("large, picows: it ended")
    report.write_json(tmp_path / "deep" / "bench.json")
    assert read_report(tmp_path / "deep" / "bench.json") == report


def test_runs_on_one_core_are_kept_apart(report):
    assert [row.figure for row in report.rows(pinned=True)["bursts"]] == [777.0]
    assert {row.figure for row in report.rows()["bursts"]} == {1234.0}


def test_the_text_names_command_machine_and_what_is_accelerated(report):
    text = report.text()
    assert "scripts/bench --quick" in text
    assert f"{report.facts['cores']} cores" in text
    assert "ACCELERATED = " in text


def test_the_published_page_shows_each_plot_and_the_tables(report, tmp_path):
    publish(report, tmp_path)
    page = (tmp_path / "results.md").read_text()
    for plot in tmp_path.glob("*.svg"):
        assert f"({plot.name})" in page
    assert (tmp_path / "bursts.svg").exists()
    assert "1,234" in page
