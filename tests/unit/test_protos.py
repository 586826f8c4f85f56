"""The interface as other languages and tools meet it: names, options, what is kept out of logs (proto/README.md)."""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api import field_behavior_pb2

import latchkey.v1

SERVICE_CONFIG = Path(__file__).parents[2] / "proto" / "service_config.json"
# The reserved words of AIP-140, and what every message has as a member in Go or C#.
RESERVED = """
    abstract and arguments as assert async await boolean break byte case catch char class const continue debugger def
    default del delete do double elif else enum eval except export extends false final finally float for from function
    global goto if implements import in instanceof int interface is lambda let long native new nonlocal not null or
    package pass private protected public raise return short static strictfp super switch synchronized this throw
    throws transient true try typeof var void volatile while with yield
"""
SECRET_NAMES = {"secret", "owner_secret", "key"}
CREATE = re.compile("Create.*Request")
GO_METHODS = {"reset", "string", "proto_message", "proto_reflect", "descriptor"}
CSHARP_MEMBERS = {"types", "parser", "descriptor", "clone", "equals", "merge_from", "write_to", "calculate_size"}


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


def test_every_field_that_carries_a_secret_is_redacted_where_messages_are_printed() -> None:
    fields = {f"{message.name}.{field.name}": field for message in messages() for field in message.fields}
    texts = {at: field for at, field in fields.items() if field.type in (field.TYPE_STRING, field.TYPE_BYTES)}

    carrying = {at for at, field in texts.items() if field.name in SECRET_NAMES or "sha256" in field.name}

    assert carrying == {at for at, field in fields.items() if field.GetOptions().debug_redact}
    assert len(carrying) == 8
    assert {at for at in texts if "secret" in at.partition(".")[2]} - carrying == {
        "LookupKeyResponse.secret_id",
        "SecretInfo.secret_id",
    }


def test_every_create_request_requires_its_resource() -> None:
    created = {message.name: message.fields[0] for message in messages() if CREATE.fullmatch(message.name)}

    assert len(created) == 4
    for field in created.values():
        assert field.message_type is not None
        assert field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def test_no_field_is_named_by_a_word_that_another_language_keeps_for_itself() -> None:
    names = {f"{message.name}.{name}": name for message in messages() for name in message.fields_by_name}

    assert len(names) > 300
    assert [at for at, name in names.items() if name in {*RESERVED.split(), *GO_METHODS, *CSHARP_MEMBERS}] == []


def test_no_timeout_of_the_service_config_is_within_the_two_seconds_that_grpcs_core_takes_off() -> None:
    config = json.loads(SERVICE_CONFIG.read_text(encoding="utf-8"))

    timeouts = [float(methods["timeout"].removesuffix("s")) for methods in config["methodConfig"]]

    assert min(timeouts) >= 3
