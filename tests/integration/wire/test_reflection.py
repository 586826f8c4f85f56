"""Server reflection as tools of any language ask for it: both versions, whole, with the comments of the protos."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_database import DescriptorDatabase
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from tests.support.matrix_calls import METHODS
from tests.support.service import Service, rejection

pytestmark = pytest.mark.parametrize("version", ["v1", "v1alpha"])

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    *(f"latchkey.v1.{name}Service" for name in ("Admin", "Key", "Usage", "Verify")),
]
FIELD_BEHAVIOR = 1052


def asking(
    channel: grpc.aio.Channel, version: str
) -> "grpc.aio.StreamStreamMultiCallable[ServerReflectionRequest | bytes, ServerReflectionResponse]":
    # On the wire both versions are the same, and grpcio has the code of one.
    return channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
        response_deserializer=ServerReflectionResponse.FromString,
    )


async def reflected(
    service: Service, version: str, *requests: ServerReflectionRequest
) -> list[ServerReflectionResponse]:
    """Ask on one stream."""
    async with grpc.aio.insecure_channel(service.address) as channel:
        return [answer async for answer in asking(channel, version)(iter(requests))]


def files_in(answer: ServerReflectionResponse) -> Iterator[FileDescriptorProto]:
    for raw in answer.file_descriptor_response.file_descriptor_proto:
        yield FileDescriptorProto.FromString(raw)


async def test_every_service_is_listed(service: Service, version: str) -> None:
    request = ServerReflectionRequest(host="here", list_services="")

    (answer,) = await reflected(service, version, request)

    assert [one.name for one in answer.list_services_response.service] == SERVICES
    assert (answer.valid_host, answer.original_request) == ("here", request)


@pytest.mark.parametrize(
    ("name", "comment"),
    [
        ("latchkey/v1/key.proto", " SPEND_RESET_WEEKLY: on Mondays at 00:00 UTC."),
        ("latchkey/v1/key_service.proto", " RevokeKey refuses the key for good."),
        ("google/rpc/error_details.proto", " Describes the cause of the error with structured details."),
    ],
)
async def test_a_files_comments_come_with_it(service: Service, version: str, name: str, comment: str) -> None:
    (answer,) = await reflected(service, version, ServerReflectionRequest(file_by_filename=name))

    file = next(files_in(answer))
    assert file.name == name
    comments = [location.leading_comments for location in file.source_code_info.location]
    assert any(comment in one for one in comments)


async def test_every_service_and_method_is_found_with_all_that_its_file_needs(service: Service, version: str) -> None:
    symbols = [*SERVICES, *(method.full_name for method in METHODS.values()), "grpc.health.v1.Health.Watch"]
    asked = [ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols]

    answers = await reflected(service, version, *asked)

    assert len(symbols) > 40
    for symbol, answer in zip(symbols, answers, strict=True):
        database = DescriptorDatabase()
        for file in files_in(answer):
            database.Add(file)
        pool = DescriptorPool(database)
        name, _, method = symbol.rpartition(".")
        if symbol in SERVICES:
            assert pool.FindServiceByName(symbol).full_name == symbol
        else:
            assert method in pool.FindServiceByName(name).methods_by_name


@pytest.mark.parametrize("detail", ["ErrorInfo", "BadRequest", "RetryInfo", "RequestInfo"])
async def test_the_details_of_errors_are_found(service: Service, version: str, detail: str) -> None:
    (answer,) = await reflected(
        service, version, ServerReflectionRequest(file_containing_symbol=f"google.rpc.{detail}")
    )

    assert next(files_in(answer)).name == "google/rpc/error_details.proto"


async def test_the_extensions_of_options_are_found(service: Service, version: str) -> None:
    options = "google.protobuf.FieldOptions"
    wanted = ExtensionRequest(containing_type=options, extension_number=FIELD_BEHAVIOR)

    numbers, file = await reflected(
        service,
        version,
        ServerReflectionRequest(all_extension_numbers_of_type=options),
        ServerReflectionRequest(file_containing_extension=wanted),
    )

    assert numbers.all_extension_numbers_response.base_type_name == options
    assert numbers.all_extension_numbers_response.extension_number == [FIELD_BEHAVIOR]
    assert next(files_in(file)).name == "google/api/field_behavior.proto"


async def test_what_there_is_not_is_not_found_and_the_stream_goes_on(service: Service, version: str) -> None:
    unknown = [
        ServerReflectionRequest(file_by_filename="latchkey/v1/nothing.proto"),
        ServerReflectionRequest(file_by_filename=""),
        *(
            ServerReflectionRequest(file_containing_symbol=symbol)
            for symbol in ("latchkey.v1.KeyService.Nothing", "nothing.at.all", "nothing", ".", "")
        ),
        ServerReflectionRequest(all_extension_numbers_of_type="latchkey.v1.Nothing"),
        ServerReflectionRequest(
            file_containing_extension=ExtensionRequest(containing_type="latchkey.v1.Key", extension_number=-1)
        ),
    ]
    nothing = ServerReflectionRequest()
    known = ServerReflectionRequest(file_by_filename="latchkey/v1/key.proto")

    *refused, empty, found = await reflected(service, version, *unknown, nothing, known)

    assert [answer.error_response.error_code for answer in refused] == [grpc.StatusCode.NOT_FOUND.value[0]] * len(
        unknown
    )
    assert [answer.original_request for answer in refused] == unknown
    assert empty.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert found.HasField("file_descriptor_response")


async def test_what_is_no_request_is_the_callers_fault(service: Service, version: str) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:

        async def ask() -> object:
            return [answer async for answer in asking(channel, version)(iter([b"\xff"]))]

        refused = await rejection(ask())

    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])
