"""Server reflection in both of its versions, from the released descriptors, comments included."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from importlib import resources
from typing import Final

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2 as pb

from latchkey_server.domain import errors
from latchkey_server.transport.call import Context

SERVICES: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


class Reflection:
    """Describes the named services to clients without protos, from the released files and ``others``, by name."""

    def __init__(self, services: Sequence[str], others: Iterable[str]) -> None:
        self._services = sorted([*services, *SERVICES])
        self._pool = DescriptorPool()
        self._answers: dict[str, dict[str, bytes]] = {}
        for file in _files(others):
            self._pool.Add(file)
            answer = {file.name: file.SerializeToString()}
            for imported in file.dependency:
                answer |= self._answers[imported]
            self._answers[file.name] = answer

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the handlers of both versions, whose requests and answers are the same."""
        info = grpc.stream_stream_rpc_method_handler(
            self.info, pb.ServerReflectionRequest.FromString, pb.ServerReflectionResponse.SerializeToString
        )
        return tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": info}) for name in SERVICES)

    async def info(
        self, requests: AsyncIterator[pb.ServerReflectionRequest], _context: Context
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        """Answer each request of a stream; raises InvalidField for what can't be read."""
        async for request in requests:
            if not isinstance(request, pb.ServerReflectionRequest):
                raise errors.InvalidField.one("request", "is not a message of this method")
            response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
            try:
                self._answer(request, response)
            except KeyError:
                _refuse(response, grpc.StatusCode.NOT_FOUND)
            yield response

    def _answer(self, request: pb.ServerReflectionRequest, response: pb.ServerReflectionResponse) -> None:
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                self._add_file(response, request.file_by_filename)
            case "file_containing_symbol":
                self._add_file(response, self._file_of(request.file_containing_symbol))
            case "file_containing_extension":
                wanted = request.file_containing_extension
                extended = self._pool.FindMessageTypeByName(wanted.containing_type)
                extension = self._pool.FindExtensionByNumber(extended, wanted.extension_number)
                self._add_file(response, self._file_of(extension.full_name))
            case "all_extension_numbers_of_type":
                extended = self._pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
                numbers = sorted(extension.number for extension in self._pool.FindAllExtensions(extended))
                response.all_extension_numbers_response.base_type_name = extended.full_name
                response.all_extension_numbers_response.extension_number.extend(numbers)
            case "list_services":
                services = [pb.ServiceResponse(name=name) for name in self._services]
                response.list_services_response.service.extend(services)
            case _:
                _refuse(response, grpc.StatusCode.INVALID_ARGUMENT)

    def _file_of(self, symbol: str) -> str:
        """Return the name of a symbol's file; methods, which the pool does not find, are in their service's."""
        name, _, method = symbol.rpartition(".")
        with suppress(KeyError):
            service = self._pool.FindServiceByName(name)
            if method in service.methods_by_name:
                return service.file.name
        return self._pool.FindFileContainingSymbol(symbol).name

    def _add_file(self, response: pb.ServerReflectionResponse, name: str) -> None:
        """Add a file and all that it imports, directly or not, to an answer."""
        response.file_descriptor_response.file_descriptor_proto.extend(self._answers[name].values())


def released() -> FileDescriptorSet:
    """Return our protos and all that they need, with comments, as they are released."""
    return FileDescriptorSet.FromString((resources.files("latchkey.v1") / "descriptors.binpb").read_bytes())


def _files(others: Iterable[str]) -> list[FileDescriptorProto]:
    """Return all files, each behind those that it imports."""
    files = {file.name: file for file in released().file}
    for name in [*others, pb.DESCRIPTOR.name]:
        _add(files, name)
    return [*files.values(), _as_v1(files[pb.DESCRIPTOR.name])]


def _add(files: dict[str, FileDescriptorProto], name: str) -> None:
    if name not in files:
        file = FileDescriptorProto.FromString(descriptor_pool.Default().FindFileByName(name).serialized_pb)
        for imported in file.dependency:
            _add(files, imported)
        files[name] = file


def _as_v1(alpha: FileDescriptorProto) -> FileDescriptorProto:
    """Return version 1 of reflection, of which grpcio has no code: nothing but its name differs."""
    return json_format.Parse(json_format.MessageToJson(alpha).replace("v1alpha", "v1"), FileDescriptorProto())


def _refuse(response: pb.ServerReflectionResponse, code: grpc.StatusCode) -> None:
    number, text = code.value
    response.error_response.error_code = number
    response.error_response.error_message = text
