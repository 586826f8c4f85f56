"""Apis between the wire and the domain."""

from typing import Final

from latchkey.v1 import api_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.model import Api, etag_of
from latchkey_server.transport.convert.well_known import timestamp

API_MUTABLE: Final = ("name",)


def api_message(api: Api) -> api_pb2.Api:
    """Return an api as a message."""
    return api_pb2.Api(
        api_id=ids.format_id(ids.API, api.api_id),
        workspace_id=ids.format_id(ids.WORKSPACE, api.workspace_id),
        name=api.name,
        is_default=api.is_default,
        create_time=timestamp(api.create_time),
        update_time=timestamp(api.update_time),
        etag=etag_of(api.revision),
    )
