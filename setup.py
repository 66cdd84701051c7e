"""Builds the compiled part; everything else about the package stands in pyproject.toml.

Cython compiles the modules of the hot path as they are. The `.pxd` file beside each says which of
its attributes and calls are those of C. `codec`, `syscalls` and `locks` have compiled twins
instead (`.pyx`). The source stays beside the compiled module and is what runs without it, so the
package works wherever nothing could be compiled: all of it is, or nothing.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
PACKAGE = ROOT / "securews"
SOURCES = sorted(
    [
        *PACKAGE.rglob("*.pyx"),
        *(
            path.with_suffix(".py")
            for path in PACKAGE.rglob("*.pxd")
            if not path.with_suffix(".pyx").exists()
        ),
    ]
)
DIRECTIVES = {
    "language_level": "3",
    "annotation_typing": False,  # the annotations are for mypy and say nothing about C
}


class AllOrNothing(build_ext):
    """Compiles every module, or says why none is compiled; a mixture would not fit together."""

    def run(self) -> None:
        """Build; where that fails, go on without."""
        reason = self._reason_not_to()
        if reason is None:
            try:
                self._translate()
                super().run()
            except Exception as error:  # no compiler, no headers, no Cython: whatever it is
                reason = f"{type(error).__name__}: {error}"
                for path in self._built():
                    path.unlink(missing_ok=True)
        if reason is not None:
            self.extensions = []
            self.warn(f"securews is installed in pure Python, which is slower ({reason})")

    def _reason_not_to(self) -> str | None:
        if getattr(self, "editable_mode", False):
            return "an editable installation runs what is edited"
        if sys.implementation.name != "cpython":
            return f"the compiled part is for CPython, not for {sys.implementation.name}"
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            return "the compiled part relies on the GIL, which this interpreter does without"
        if os.environ.get("SECUREWS_PURE"):
            return "SECUREWS_PURE is set"
        return None

    def _translate(self) -> None:
        """Python and Cython to C."""
        from Cython.Build import cythonize  # only where something is built

        threads = os.cpu_count() or 1
        self.parallel = threads
        translated = cythonize(
            self.extensions,
            build_dir=str(Path(self.build_temp) / "c"),
            compiler_directives=DIRECTIVES,
            nthreads=threads,
        )
        for extension, new in zip(self.extensions, translated, strict=True):
            extension.sources = new.sources

    def _built(self) -> list[Path]:
        return [Path(self.get_ext_fullpath(extension.name)) for extension in self.extensions]


def extension(source: Path) -> Extension:
    """The compiled module that takes the place of a source file."""
    relative = source.relative_to(ROOT)
    name = ".".join(relative.with_suffix("").parts)
    return Extension(name, [str(relative)], extra_compile_args=["-g0"])


setup(ext_modules=[extension(source) for source in SOURCES], cmdclass={"build_ext": AllOrNothing})
