"""The types of the command line's options: how values are read, and which are refused."""

import inspect
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import click

from latchkey.cli.ranges import moment
from latchkey.rules import normalize_environment

_Choice = TypeVar("_Choice", bound=StrEnum)
_Options = TypeVar("_Options")


def picked(kind: Callable[..., _Options], options: Mapping[str, Any]) -> _Options:
    """Return a dataclass filled with the options of its fields' names."""
    return kind(**{name: options[name] for name in inspect.signature(kind).parameters})


class ZoneType(click.ParamType[ZoneInfo]):
    """An IANA time zone."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        """Return the zone."""
        if isinstance(value, ZoneInfo):
            return value
        try:
            return ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            self.fail(f"{value!r} is no IANA time zone such as Europe/Berlin", param, ctx)


class EnvironmentType(click.ParamType[str]):
    """An environment label, normalised as the server does."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the label."""
        try:
            label = normalize_environment(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)
        if not label:
            self.fail("an empty label is none; use --unlabeled", param, ctx)
        return label


class ValueChoice(click.Choice[_Choice]):
    """A choice among the values of an enum, which is what its members are called on a command line."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:
        """Return what is typed for a member."""
        return str(choice).lower()


class PairType(click.ParamType[tuple[str, str]]):
    """A pair such as ``model=Model``."""

    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return what stands left and right of the first ``=``."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"\s*([^=\s]+)\s*=(.*)", value, re.DOTALL)
        if not found:
            self.fail(f"{value!r} is no pair such as model=Model", param, ctx)
        return found[1], found[2]


def zone_option(help_: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option of a time zone; it is read before the times that it applies to."""
    return click.option(
        "--zone", type=ZoneType(), default="UTC", is_eager=True, show_default=True, metavar="IANA", help=help_
    )


def moment_of_zone(context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime | None:
    """Return the instant that an option names, in the zone of ``--zone``."""
    if text is None:
        return None
    try:
        return moment(text, context.params["zone"])
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
