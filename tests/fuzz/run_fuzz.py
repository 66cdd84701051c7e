"""Fuzzes one target, guided by coverage. `scripts/fuzz` calls it.

Exit status 0: nothing was found. Otherwise the input that broke a promise lies in
`OUT/crashes/`, and what broke stands in the output.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import atheris
from fuzz_input import MAX_LENGTH

os.environ["SECUREWS_PURE"] = "1"  # coverage is counted in Python

with atheris.instrument_imports(include=["securews", "h11"]):
    from fuzz_targets import TARGETS

HERE = Path(__file__).parent
MEMORY_LIMIT_MB = 512
"""Of the whole process, which starts with some 100."""
HANG_SECONDS = 10
"""After which libFuzzer ends an input that does not end; slow ones are the targets' affair."""


def seen(name: str) -> bool:
    """Whether atheris has instrumented a module."""
    return type(sys.modules[name].__loader__).__module__.startswith("atheris")


def main() -> None:
    """Run until the time is over or something is found."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="for the corpus and crashes")
    arguments = parser.parse_args()
    if blind := [name for name in sys.modules if name.startswith("securews.") and not seen(name)]:
        sys.exit(f"coverage is not counted in {', '.join(blind)}: nothing would guide the fuzzer")

    corpus, crashes = arguments.out / "corpus", arguments.out / "crashes"
    for directory in (corpus, crashes):
        directory.mkdir(parents=True, exist_ok=True)
    inputs = [corpus, HERE / "seeds" / arguments.target, HERE / "regressions" / arguments.target]
    check = TARGETS[arguments.target]

    def test_one_input(data: bytes) -> None:
        check(data)

    dictionary = HERE / "dictionaries" / f"{arguments.target}.txt"
    atheris.Setup(
        [
            sys.argv[0],
            *[str(path) for path in inputs if path.exists()],
            *([f"-dict={dictionary}"] if dictionary.exists() else []),
            f"-max_total_time={arguments.seconds}",
            f"-max_len={MAX_LENGTH}",
            f"-timeout={HANG_SECONDS}",
            f"-rss_limit_mb={MEMORY_LIMIT_MB}",
            f"-artifact_prefix={crashes}/",
            "-print_final_stats=1",
        ],
        test_one_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
