"""Command line flags made from the option dataclasses, so that no option is typed twice."""

from __future__ import annotations

import argparse
import enum
import types
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from securews.cli.parsing import usage
from securews.common.options import ConnectionOptions, ServerOptions, split_options

__all__ = ["add_option_flags", "given_options"]

_WITHOUT_FLAG = frozenset({"limits", "free_handlers"})
"""`Limits` are rarely tuned; and the process ends with the server, so handlers are always freed."""

_FLAG_NAMES = {"accepting_method": "--accepting"}
"""Flags whose name is not the option's own."""


def add_option_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each option: `--max-size`, `--ping-interval none`."""
    for kind, title in (
        (ConnectionOptions, "options of each connection"),
        (ServerOptions, "options of the server"),
    ):
        group = parser.add_argument_group(title)
        hints = get_type_hints(kind)
        for field in fields(kind):
            if field.name not in _WITHOUT_FLAG:
                _add_flag(group, field, hints[field.name])


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that stand on the command line, as keyword arguments of `serve()`.

    Raises:
        UsageError: a value that does not fit.
    """
    names = [field.name for kind in (ConnectionOptions, ServerOptions) for field in fields(kind)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    with usage():
        split_options(given)
    return given


def _add_flag(group: argparse._ArgumentGroup, field: Field[Any], kind: Any) -> None:
    """Add the flag of one field; `kind` is its resolved type."""
    if bool in get_args(kind):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            action="store_true",
            default=argparse.SUPPRESS,
            help=f"{field.metadata['reason']} (default: off)",
        )
        return
    convert, metavar = _converter(kind)
    unit = field.metadata["unit"]
    default = field.default.value if isinstance(field.default, enum.Enum) else field.default
    shown = "none" if default in (None, ()) else f"{default} {unit}".rstrip()
    text = f"{field.metadata['reason']} (default: {shown})"
    group.add_argument(
        _FLAG_NAMES.get(field.name, f"--{field.name.replace('_', '-')}"),
        dest=field.name,
        type=convert,
        metavar=metavar,
        default=argparse.SUPPRESS,
        help=text.replace("%", "%%"),
    )


def _converter(kind: Any) -> tuple[Callable[[str], Any], str]:
    """A function from the flag's text to the option's value, and what the help calls it."""
    if get_origin(kind) in (Union, types.UnionType):
        (inner,) = (member for member in get_args(kind) if member is not types.NoneType)
        convert, metavar = _converter(inner)
        return (lambda text: None if text.lower() == "none" else convert(text)), f"{metavar}|none"
    if get_origin(kind) is Literal:
        return _choice({value: value for value in get_args(kind)})
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choice({member.value: member for member in kind})
    if get_origin(kind) is Collection:
        return (lambda text: text.split(",")), "A,B"
    if kind in (int, float):
        return _number(kind), "N"
    raise TypeError(f"no flag can be made for an option of type {kind!r}")


def _choice(choices: dict[str, Any]) -> tuple[Callable[[str], Any], str]:
    def convert(text: str) -> Any:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}")
        return choices[text]

    return convert, "|".join(choices)


def _number(kind: type[int | float]) -> Callable[[str], Any]:
    def convert(text: str) -> int | float:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None

    return convert
