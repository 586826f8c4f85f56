"""Which management secrets are accepted, and whom they stand for (spec §6)."""

from typing import Any

import pytest

from latchkey_server.domain.access import credentials
from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.access.roles import caller_of
from latchkey_server.domain.errors import CredentialInvalid, CredentialMissing
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, new_secret
from tests.unit.builders import NOW, REVOCATION, TICK, make_history, make_management_key


def credential(*, ended: bool = False, end_time: Any = None, root: bool = False, **changes: Any) -> Credential:
    return Credential(make_management_key(**changes), root, end_time, ended, 7, 0.0, make_history())


SECRET = new_secret(MANAGEMENT_PREFIX)


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}  "])
def test_a_bearer_secret_is_read_from_the_header(header: str) -> None:
    assert credentials.bearer_secret(header.format(SECRET)) == SECRET


@pytest.mark.parametrize(
    "junk",
    ["junk", "lkm_x", SECRET[:-1], SECRET + "x", SECRET[::-1], SECRET[1:], new_secret("sk"), "lkm_é" * 9],
    ids=["junk", "short", "cut", "longer", "backwards", "without its l", "a key's", "foreign letters"],
)
def test_a_secret_that_can_not_be_one_of_ours_is_refused_by_its_form(junk: str) -> None:
    with pytest.raises(CredentialInvalid):
        credentials.bearer_secret(f"Bearer {junk}")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer    ", "Basic lkm_x", "lkm_x", "Bearerlkm_x"])
def test_a_header_without_a_bearer_secret_is_a_missing_credential(header: str | None) -> None:
    with pytest.raises(CredentialMissing):
        credentials.bearer_secret(header)


@pytest.mark.parametrize("root", [True, False])
def test_a_good_credential_stands_for_its_management_key(root: bool) -> None:
    accepted = credentials.accept(credential(root=root), NOW)

    assert accepted == caller_of(make_management_key(), root)


@pytest.mark.parametrize(
    "refused",
    [
        None,
        credential(ended=True),
        credential(end_time=NOW),
        credential(expire_time=NOW),
        credential(revocation=REVOCATION),
    ],
    ids=["unknown", "ended", "rotated away", "expired", "revoked"],
)
def test_a_credential_that_is_not_valid_now_is_refused(refused: Credential | None) -> None:
    with pytest.raises(CredentialInvalid):
        credentials.accept(refused, NOW)


def test_a_credential_lasts_until_its_end_and_its_expiry() -> None:
    lasting = credential(end_time=NOW + TICK, expire_time=NOW + TICK)

    assert credentials.accept(lasting, NOW) == caller_of(lasting.management_key, root=False)
