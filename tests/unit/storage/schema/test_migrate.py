"""What the head of a migration's file says."""

import hashlib
from importlib import resources

import pytest

from latchkey_server.storage.schema import migrate
from latchkey_server.storage.schema.migrate import Migration, migrations


def step(sql: str) -> Migration:
    return Migration(7, "0007_step.sql", sql)


@pytest.mark.parametrize(
    ("sql", "breaking", "outside"),
    [
        ("CREATE TABLE t (a int);", False, False),
        ("-- breaking: older servers write it differently.\nDROP TABLE t;", True, False),
        ("-- outside a transaction\nCREATE INDEX CONCURRENTLY i ON t (a);", False, True),
        ("-- breaking\n-- outside a transaction\nDROP INDEX CONCURRENTLY i;", True, True),
        ("DROP TABLE t;\n-- breaking news\n-- outside a transaction", False, False),
    ],
)
def test_a_migration_says_what_it_is_above_its_first_statement(sql: str, breaking: bool, outside: bool) -> None:
    assert (step(sql).breaking, step(sql).outside) == (breaking, outside)


def test_a_file_outside_a_transaction_is_parted_by_lines_that_say_then() -> None:
    sql = "-- outside a transaction\nSELECT ';\n-- then some';\n-- then\nSELECT 2;\n"

    assert step(sql).statements == ["-- outside a transaction\nSELECT ';\n-- then some';\n", "\nSELECT 2;\n"]


def test_a_checksum_is_the_sha_256_of_the_file() -> None:
    folder = resources.files(migrate.__package__).joinpath("migrations")

    for migration in migrations():
        assert migration.checksum == hashlib.sha256(folder.joinpath(migration.name).read_bytes()).hexdigest()


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.number for migration in migrations()] == list(range(1, len(migrations()) + 1))
