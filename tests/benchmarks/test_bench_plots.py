from xml.etree import ElementTree as ET

import pytest
from bench_samples import measured

from benchmarks.loads import LOADS
from benchmarks.peers import SERVERS, Kind
from benchmarks.plots import Bar, bar_chart, load_chart
from benchmarks.table import make_rows

SVG = "{http://www.w3.org/2000/svg}"
LOAD = {load.name: load for load in LOADS}


def bars_of(svg):
    """Class and width of each bar, from top to bottom."""
    rects = ET.fromstring(svg).iter(f"{SVG}rect")
    return [(r.get("class"), float(r.get("width"))) for r in rects if r.get("class") != "ground"]


def test_bars_are_as_long_as_their_values():
    bars = [Bar("one", 50.0, "50", Kind.OURS), Bar("two", 100.0, "100", Kind.PEER)]
    (ours, short), (peer, long) = bars_of(bar_chart("t", "s", bars, "f"))
    assert (ours, peer) == ("ours", "peer")
    assert long == pytest.approx(2 * short)


def test_a_value_of_zero_is_still_seen():
    assert bars_of(bar_chart("t", "s", [Bar("one", 0.0, "0", Kind.OURS)], "f"))[0][1] > 0


def test_text_is_escaped():
    root = ET.fromstring(bar_chart("a < b & c", "s", [], "<f>"))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts == ["a < b & c", "s", "<f>"]


@pytest.mark.parametrize(
    ("load", "figure", "first"),
    [("bursts", "per_second", "high"), ("64-connections", "server_cpu_us", "low")],
)
def test_the_best_is_at_the_top(load, figure, first):
    rows = make_rows(
        LOAD[load],
        SERVERS,
        [measured("limit", load, **{figure: 1.0}), measured("picows", load, **{figure: 9.0})],
    )
    classes = [kind for kind, _ in bars_of(load_chart(LOAD[load], rows, "f"))]
    assert classes == (["peer", "limit"] if first == "high" else ["limit", "peer"])
