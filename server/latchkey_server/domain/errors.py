"""Every way in which a call can fail: one hierarchy, one class a reason, mapped to a status in one table of transport.

The message is one sentence for people that says what to do next; ``details`` become the ErrorInfo's metadata. Neither
ever holds a secret or another component's error text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

# Violations named in the message itself; its details hold all of them.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that breaks its rule: the path as in the request, and what would be right."""

    field: str
    problem: str


class LatchkeyError(Exception):
    """The base of all of them; ``reason`` is the ErrorReason's name without its prefix."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, violations: Sequence[Violation] = (), **details: str) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.details = details


class InvalidField(LatchkeyError):
    """Fields of the request break their rules."""

    reason = "INVALID_FIELD"

    def __init__(self, violations: Sequence[Violation]) -> None:
        named = [f"{violation.field}: {violation.problem}" for violation in violations[:_NAMED]]
        more = f"; and {len(violations) - _NAMED} more" if len(violations) > _NAMED else ""
        message = f"The request has invalid fields: {'; '.join(named)}{more}."
        first = violations[0]
        super().__init__(message, violations=violations, field=first.field, problem=first.problem)

    @classmethod
    def one(cls, field: str, problem: str) -> "InvalidField":
        """Return the error for a single field."""
        return cls([Violation(field, problem)])


class RequestIdReused(LatchkeyError):
    """A request_id came again with other content."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, method: str) -> None:
        problem = "was used for another request within 24 hours; send a new one"
        super().__init__(f"request_id {problem}.", violations=[Violation("request_id", problem)], method=method)


class PageTokenInvalid(LatchkeyError):
    """A page token is malformed or belongs to another filter."""

    reason = "PAGE_TOKEN_INVALID"

    def __init__(self) -> None:
        problem = "does not belong to this request; start from the first page"
        super().__init__(f"page_token {problem}.", violations=[Violation("page_token", problem)])


class CredentialMissing(LatchkeyError):
    """The call carries no credential."""

    reason = "CREDENTIAL_MISSING"

    def __init__(self) -> None:
        super().__init__("Send a management key's secret as metadata: authorization: Bearer <secret>.")


class CredentialInvalid(LatchkeyError):
    """The credential is unknown, revoked, expired or rotated away."""

    reason = "CREDENTIAL_INVALID"

    def __init__(self) -> None:
        super().__init__("The credential is not accepted; ask an ADMIN of your workspace for another.")


class RoleTooLow(LatchkeyError):
    """The caller's role does not allow the method."""

    reason = "ROLE_TOO_LOW"

    def __init__(self, role: str, needed: str) -> None:
        super().__init__(f"The role {role} may not do this; it needs {needed}.", role=role, role_needed=needed)


class ApiBinding(LatchkeyError):
    """The method concerns the whole workspace and the caller is bound to some apis."""

    reason = "API_BINDING"

    def __init__(self) -> None:
        super().__init__(
            "This management key is bound to some apis; use one that is not bound for the whole workspace."
        )


class PermissionsExceeded(LatchkeyError):
    """A management key would touch one with permissions beyond its own."""

    reason = "PERMISSIONS_EXCEEDED"

    def __init__(self, role: str, target_role: str) -> None:
        super().__init__(
            "A management key may not create or change one with permissions or apis beyond its own.",
            role=role,
            target_role=target_role,
        )


class NotFound(LatchkeyError):
    """The base of what is unknown or not the caller's to see; answers never show which of the two."""

    noun: ClassVar[str]
    field: ClassVar[str]

    def __init__(self, identifier: str) -> None:
        super().__init__(f"No such {self.noun}; check the id and the workspace.")
        self.details = {self.field: identifier}


class KeyNotFound(NotFound):
    """No such key."""

    reason, noun, field = "KEY_NOT_FOUND", "key", "key_id"


class ApiNotFound(NotFound):
    """No such api."""

    reason, noun, field = "API_NOT_FOUND", "api", "api_id"


class IdentityNotFound(NotFound):
    """No such identity."""

    reason, noun, field = "IDENTITY_NOT_FOUND", "identity", "identity_id"


class ManagementKeyNotFound(NotFound):
    """No such management key."""

    reason, noun, field = "MANAGEMENT_KEY_NOT_FOUND", "management key", "management_key_id"


class WorkspaceNotFound(NotFound):
    """No such workspace."""

    reason, noun, field = "WORKSPACE_NOT_FOUND", "workspace", "workspace_id"


class FailedPrecondition(LatchkeyError):
    """The base of what the resource's state does not allow."""


class WorkspaceDisabled(FailedPrecondition):
    """The workspace takes no mutations."""

    reason = "WORKSPACE_DISABLED"


class RootWorkspace(FailedPrecondition):
    """The root workspace can't be disabled."""

    reason = "ROOT_WORKSPACE"


class ApiNotEmpty(FailedPrecondition):
    """The api has keys."""

    reason = "API_NOT_EMPTY"


class DefaultApi(FailedPrecondition):
    """The default api can't be deleted."""

    reason = "DEFAULT_API"


class IdentityInUse(FailedPrecondition):
    """The identity has keys."""

    reason = "IDENTITY_IN_USE"


class KeyRevoked(FailedPrecondition):
    """The key is revoked for good."""

    reason = "KEY_REVOKED"


class KeyNotDeleted(FailedPrecondition):
    """There is nothing to undelete."""

    reason = "KEY_NOT_DELETED"


class UndeleteWindowPassed(FailedPrecondition):
    """The key was deleted too long ago."""

    reason = "UNDELETE_WINDOW_PASSED"


class ManagementKeyRevoked(FailedPrecondition):
    """The management key is revoked for good."""

    reason = "MANAGEMENT_KEY_REVOKED"


class LastOwner(FailedPrecondition):
    """The workspace would be left without an OWNER."""

    reason = "LAST_OWNER"


class CreditsNotSet(FailedPrecondition):
    """The key has no credits."""

    reason = "CREDITS_NOT_SET"


class CreditsInsufficient(FailedPrecondition):
    """The adjustment would leave the range of a balance."""

    reason = "CREDITS_INSUFFICIENT"


class SecretRejected(FailedPrecondition):
    """A hash can't be imported; nothing more is said."""

    reason = "SECRET_REJECTED"

    def __init__(self) -> None:
        super().__init__("This secret can't be imported.")


class UnknownRateLimit(FailedPrecondition):
    """The request names a rate limit that the key does not have."""

    reason = "UNKNOWN_RATE_LIMIT"


class EtagMismatch(LatchkeyError):
    """The resource changed since it was read."""

    reason = "ETAG_MISMATCH"

    def __init__(self) -> None:
        super().__init__("The resource was changed since it was read; read it again and repeat the change.")


class OccurredTimeOutOfRange(LatchkeyError):
    """A usage event is too old or too far ahead."""

    reason = "OCCURRED_TIME_OUT_OF_RANGE"


class UsageConflict(LatchkeyError):
    """A usage event's identity was recorded with other content."""

    reason = "USAGE_CONFLICT"

    def __init__(self) -> None:
        super().__init__(
            "This source and event_id were recorded with other content; correct it with an ADJUSTMENT event."
        )


class SumOutOfRange(LatchkeyError):
    """A sum is beyond what the answer's numbers hold."""

    reason = "SUM_OUT_OF_RANGE"

    def __init__(self, measure: str) -> None:
        super().__init__(
            "A sum is beyond the numbers of an answer; ask for a shorter range or a narrower filter.", measure=measure
        )


class AnswerTooLarge(LatchkeyError):
    """The rest of a batch would not fit into one answer."""

    reason = "ANSWER_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__("The answer is full; ask again for this item, with fewer at a time.")


class Unavailable(LatchkeyError):
    """The base of outages: the same call may succeed a moment later."""


class RevisionNotReached(Unavailable):
    """This server can't confirm the asked-for freshness."""

    reason = "REVISION_NOT_REACHED"


class DatabaseUnavailable(Unavailable):
    """The database did not answer in time."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The database is not reachable at the moment; retry with back-off.")


class ServerNotReady(Unavailable):
    """The server can't serve yet."""

    reason = "SERVER_NOT_READY"

    def __init__(self) -> None:
        super().__init__("The server is not ready to serve; its log and health say why. Retry with back-off.")


class ServerStopping(Unavailable):
    """The server is shutting down."""

    reason = "SERVER_STOPPING"

    def __init__(self) -> None:
        super().__init__("The server is shutting down; retry.")


class Overloaded(Unavailable):
    """More is waiting to be written than a server holds."""

    reason = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("More usage is waiting to be written than the server holds; retry with back-off.")


class ShareExceeded(LatchkeyError):
    """A caller, or a peer, has as much under way as it may have at a time."""

    reason = "SHARE_EXCEEDED"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(
            f"This caller has {most:,} {what} under way, as many as it may have at a time; "
            "wait for some of them, or retry with back-off.",
            what=what,
            most=str(most),
        )


class DeadlineExceeded(LatchkeyError):
    """An item or call was not finished in its time."""

    reason = "DEADLINE"


class SlowConsumer(LatchkeyError):
    """A stream's reader fell too far behind."""

    reason = "SLOW_CONSUMER"


class NotImplementedYet(LatchkeyError):
    """The method is part of the interface and not built yet, or none at all."""

    reason = "NOT_IMPLEMENTED"

    def __init__(self, method: str, problem: str = "is not built yet") -> None:
        super().__init__(f"{method} {problem}.", method=method)

    @classmethod
    def unknown(cls, path: str) -> "NotImplementedYet":
        """Return the error for a path that is no method's."""
        return cls(path, "is no method of this server; look for its name, or for a newer server")


class Internal(LatchkeyError):
    """A fault of the server; its cause is not disclosed."""

    reason = "INTERNAL"

    def __init__(self) -> None:
        super().__init__("The server failed; report this with the request id.")
