"""What is stored of an answer for its replay: nouns that may be deleted by then, and balances, as JSON and back."""

from datetime import datetime
from uuid import UUID

from latchkey_server.domain.model import Api, CreditState, Identity, Json
from latchkey_server.domain.ratelimit_json import ratelimits_json, ratelimits_of


def api_json(api: Api) -> Json:
    """Return an api as it is stored."""
    return {
        "workspace_id": str(api.workspace_id),
        "api_id": str(api.api_id),
        "name": api.name,
        "is_default": api.is_default,
        "create_time": api.create_time.isoformat(),
        "update_time": api.update_time.isoformat(),
        "revision": api.revision,
    }


def api_of(stored: Json) -> Api:
    """Return the api that was stored."""
    return Api(
        workspace_id=UUID(stored["workspace_id"]),
        api_id=UUID(stored["api_id"]),
        name=stored["name"],
        is_default=stored["is_default"],
        create_time=datetime.fromisoformat(stored["create_time"]),
        update_time=datetime.fromisoformat(stored["update_time"]),
        revision=stored["revision"],
    )


def identity_json(identity: Identity) -> Json:
    """Return an identity as it is stored."""
    return {
        "workspace_id": str(identity.workspace_id),
        "identity_id": str(identity.identity_id),
        "external_id": identity.external_id,
        "metadata": identity.metadata,
        "ratelimits": ratelimits_json(identity.ratelimits),
        "create_time": identity.create_time.isoformat(),
        "update_time": identity.update_time.isoformat(),
        "revision": identity.revision,
    }


def identity_of(stored: Json) -> Identity:
    """Return the identity that was stored."""
    return Identity(
        workspace_id=UUID(stored["workspace_id"]),
        identity_id=UUID(stored["identity_id"]),
        external_id=stored["external_id"],
        metadata=stored["metadata"],
        ratelimits=ratelimits_of(stored["ratelimits"]),
        create_time=datetime.fromisoformat(stored["create_time"]),
        update_time=datetime.fromisoformat(stored["update_time"]),
        revision=stored["revision"],
    )


def credits_json(credits: CreditState) -> Json:
    """Return a balance as it is stored."""
    refill = credits.next_refill_time
    return {"remaining": credits.remaining, "next_refill_time": refill.isoformat() if refill else None}


def credits_of(stored: Json) -> CreditState:
    """Return the balance that was stored."""
    refill = stored["next_refill_time"]
    return CreditState(stored["remaining"], datetime.fromisoformat(refill) if refill else None)
