"""ImportKeys: keys of another system by the SHA-256 of their secrets; each item succeeds or is rejected by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey.rules import secret_sha256
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError, Violation
from latchkey_server.domain.keys.maker import KeyDraft, KeyMaker
from latchkey_server.domain.keys.ports import Transaction
from latchkey_server.domain.model import Holder, Json, Key, Secret
from latchkey_server.domain.mutations import Effects, MutationResult, Mutations, Origin
from latchkey_server.domain.secret import Peppers, blank_mask, stored_secret
from latchkey_server.domain.turns import in_slices, turn
from latchkey_server.domain.validation import require_number

ITEMS_MAX = 1_000
HINT_MAX = 32
VIOLATIONS_MAX = 8
"""Violations reported for one item: a thousand rejections must fit into the answer, for it follows the commit."""


@dataclass(frozen=True, slots=True)
class ImportItem:
    """One key of another system."""

    draft: KeyDraft
    sha256: bytes
    mask_hint: str = ""


ImportResult = UUID | LatchkeyError


class KeyImport:
    """Imports keys."""

    def __init__(self, mutations: Mutations[Transaction], peppers: Peppers) -> None:
        self._mutations = mutations
        self._peppers = peppers

    async def run(
        self, origin: Origin, items: Sequence[ImportItem | LatchkeyError]
    ) -> MutationResult[list[ImportResult]]:
        """Import the items and return a result for each, in order; raises InvalidField for their number only."""
        require_number("items", len(items), ITEMS_MAX)

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            maker = await KeyMaker.of(tx, origin.caller, now, revision)
            attempt = Attempt(maker, self._peppers, now)
            for item in items:
                await turn()
                await attempt.prepare(item)
            # Under every pepper: another server may be hashing with another one at the same moment.
            attempt.reject_taken(await tx.secrets.hold(attempt.candidates()))
            await tx.secrets.claim(attempt.secrets())
            keys = []
            for key in attempt.made():
                await turn()
                keys.append(await maker.with_identity(key))
            await tx.keys.insert(keys)
            await maker.insert_balances(keys)
            results = await in_slices(_result_json, attempt.results)
            return await maker.done(keys, "key.import", {"results": results})

        async def view(_tx: Transaction, _now: datetime, outcome: Json) -> list[ImportResult]:
            return await in_slices(_result_of, outcome["results"])

        return await self._mutations.run(origin, work, view)


class Attempt:
    """The items of one import in progress: each is rejected at some step or becomes a key."""

    def __init__(self, maker: KeyMaker, peppers: Peppers, now: datetime) -> None:
        self._maker = maker
        self._peppers = peppers
        self._now = now
        self._pending: dict[int, tuple[Key, Secret, list[bytes]]] = {}
        self._hashes: set[bytes] = set()
        self.results: list[ImportResult] = []

    async def prepare(self, item: ImportItem | LatchkeyError) -> None:
        """Take the next item: check it, and that no earlier one has the same hash."""
        if isinstance(item, LatchkeyError):
            self.results.append(item)
            return
        try:
            key, secret = await self._made(item)
        except LatchkeyError as error:
            self.results.append(error)
            return
        if secret.hash in self._hashes:
            self.results.append(errors.SecretRejected())
            return
        self._hashes.add(secret.hash)
        self._pending[len(self.results)] = (key, secret, self._peppers.candidates(item.sha256))
        self.results.append(key.key_id)

    def candidates(self) -> list[bytes]:
        """Return every hash under which one of the secrets may already be stored."""
        return [candidate for _, _, candidates in self._pending.values() for candidate in candidates]

    def secrets(self) -> list[Secret]:
        """Return the secrets that are still to be claimed."""
        return [secret for _, secret, _ in self._pending.values()]

    def made(self) -> list[Key]:
        """Return the keys that are still to be inserted."""
        return [key for key, _, _ in self._pending.values()]

    def reject_taken(self, free: set[bytes]) -> None:
        """Reject the items whose secret is taken, under any pepper."""
        for index in [index for index, (_, _, hashes) in self._pending.items() if not free.issuperset(hashes)]:
            del self._pending[index]
            self.results[index] = errors.SecretRejected()

    async def _made(self, item: ImportItem) -> tuple[Key, Secret]:
        if len(item.sha256) != 32:
            raise errors.InvalidField.one("secret_sha256", "must be 32 bytes")
        hint = item.mask_hint
        if len(hint) > HINT_MAX or not hint.isprintable() or secret_sha256(hint) == item.sha256:
            raise errors.InvalidField.one(
                "mask_hint", f"must be at most {HINT_MAX} printable characters and not the secret itself"
            )
        key = await self._maker.make(item.draft)
        shown = hint or blank_mask(key.prefix)
        secret = stored_secret(key.workspace_id, Holder.KEY, key.key_id, item.sha256, shown, self._peppers, self._now)
        return key, secret


def _result_json(result: ImportResult) -> Json:
    match result:
        case UUID():
            return {"key_id": str(result)}
        case errors.ApiNotFound():
            return {"reason": result.reason, "details": result.details}
        case _:
            shown = [[violation.field, violation.problem] for violation in result.violations[:VIOLATIONS_MAX]]
            return {"reason": result.reason, "violations": shown}


def _result_of(stored: Json) -> ImportResult:
    if "key_id" in stored:
        return UUID(stored["key_id"])
    match stored["reason"]:
        case errors.InvalidField.reason:
            return errors.InvalidField([Violation(field, problem) for field, problem in stored["violations"]])
        case errors.ApiNotFound.reason:
            return errors.ApiNotFound(stored["details"][errors.ApiNotFound.field])
        case errors.ApiBinding.reason:
            return errors.ApiBinding()
        case _:
            return errors.SecretRejected()
