"""A request_id that two calls race for: one of them wins, and the other finds its answer (spec §2)."""

import asyncio

import asyncpg
import grpc
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from latchkey.v1 import admin_service_pb2, workspace_pb2
from tests.support.postgres import locked
from tests.support.service import Client, Service, rejection

_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'UPDATE workspace SET%'
"""


async def until_both_wait(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01), reraise=True):
            with attempt:
                assert await connection.fetchval(_WAITING) == 2
    finally:
        await connection.close()


async def test_one_request_id_for_two_workspaces_at_once_is_one_of_theirs_and_told_to_the_other(
    root: Client, service: Service
) -> None:
    """Each waits for its own workspace's turn, so that both are past the look at earlier answers."""
    made = [
        (await root.admin.CreateWorkspace(admin_service_pb2.CreateWorkspaceRequest())).workspace.workspace_id
        for _ in range(2)
    ]

    def disable(workspace_id: str) -> admin_service_pb2.UpdateWorkspaceRequest:
        wanted = workspace_pb2.Workspace(workspace_id=workspace_id, enabled=False)
        return admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted, request_id="r1")

    async with locked(service.dsn, "SELECT FROM workspace FOR UPDATE"):
        calls = [asyncio.ensure_future(root.admin.UpdateWorkspace(disable(workspace_id))) for workspace_id in made]
        await until_both_wait(service.dsn)
    answers = await asyncio.gather(*calls, return_exceptions=True)

    won = [answer for answer in answers if isinstance(answer, admin_service_pb2.UpdateWorkspaceResponse)]
    lost = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    listed = await root.admin.ListWorkspaces(admin_service_pb2.ListWorkspacesRequest())
    assert (len(won), len(lost)) == (1, 1)
    assert (await rejection(calls[answers.index(lost[0])])).reason == "REQUEST_ID_REUSED"
    assert [workspace.workspace_id for workspace in listed.workspaces if not workspace.enabled] == [
        won[0].workspace.workspace_id
    ]
