"""The interface as other languages and tools meet it: names, options, what is kept out of logs (proto/README.md)."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import latchkey.v1

# The reserved words of AIP-140, and what every message of Go has as a method.
RESERVED = """
    abstract and arguments as assert async await boolean break byte case catch char class const continue debugger def
    default del delete do double elif else enum eval except export extends false final finally float for from function
    global goto if implements import in instanceof int interface is lambda let long native new nonlocal not null or
    package pass private protected public raise return short static strictfp super switch synchronized this throw
    throws transient true try typeof var void volatile while with yield
"""
GO_METHODS = {"reset", "string", "proto_message", "proto_reflect", "descriptor"}


def files() -> Iterator[Any]:
    """Give the descriptor of each of our protos."""
    for module in pkgutil.iter_modules(latchkey.v1.__path__):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"latchkey.v1.{module.name}").DESCRIPTOR


def messages() -> Iterator[Any]:
    """Give the descriptor of each of our messages."""
    for file in files():
        yield from file.message_types_by_name.values()


def test_every_file_says_where_its_code_lies_in_other_languages() -> None:
    options = {file.name: file.GetOptions() for file in files()}

    assert len(options) > 15
    for name, its in options.items():
        stem = name.removeprefix("latchkey/v1/").removesuffix(".proto").title().replace("_", "")
        assert its.go_package == "github.com/latchkey/latchkey/clients/go/latchkey/v1;latchkeyv1"
        assert its.csharp_namespace == "Latchkey.V1"
        assert (its.java_package, its.java_multiple_files) == ("io.latchkey.v1", True)
        # No message may ever be called like it: Java would take the one for the other.
        assert its.java_outer_classname == f"{stem}Proto"
    assert not [message.name for message in messages() if message.name.endswith("Proto")]


def test_no_field_is_named_by_a_word_that_another_language_keeps_for_itself() -> None:
    names = {f"{message.name}.{name}": name for message in messages() for name in message.fields_by_name}

    assert len(names) > 300
    assert [at for at, name in names.items() if name in {*RESERVED.split(), *GO_METHODS}] == []
