"""Occurrences of equal contents in a file: counted on disk when they outgrow the memory."""

import sqlite3


class Occurrences:
    """Counts contents; a count depends only on what precedes it in the file, so that a file read again counts alike."""

    def __init__(self) -> None:
        # A database without a name is a temporary file, held in a bounded page cache until it has to be written.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def next(self, digest: str) -> int:
        """Return which occurrence of this content this is, from 1."""
        statement = "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count"
        ((count,),) = self._database.execute(statement, (bytes.fromhex(digest),)).fetchall()
        return int(count)

    def close(self) -> None:
        """Forget everything."""
        self._database.close()
