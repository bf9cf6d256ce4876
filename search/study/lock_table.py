"""The lease of a study whose storage is a server: a row, renewed by the server's own clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from sqlalchemy import Column, DateTime, MetaData, String, Table, Text, create_engine, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from search.study.database import database_url
from search.study.lock import Holder

LEASES = Table(
    "laser_search_leases",
    MetaData(),
    Column("study", String(64), primary_key=True),
    Column("token", String(64), nullable=False),
    Column("holder", Text, nullable=False),
    Column("renewed", DateTime(timezone=True), nullable=False),
)


class TableLedger:
    """A lease as a row of the table ``laser_search_leases``; see `search.study.lock.Ledger`.

    It holds between machines that share the database and no folder.
    """

    def __init__(self, url: str, study_id: str) -> None:
        """The database must answer, and allow that a table is made."""
        self._engine = create_engine(database_url(url), pool_pre_ping=True)
        self._study = study_id
        LEASES.metadata.create_all(self._engine)

    def read(self) -> Holder | None:
        """Who holds it, alive or not."""
        columns = select(LEASES.c.holder, LEASES.c.renewed, func.now())
        with self._engine.connect() as connection:
            row = connection.execute(columns.where(LEASES.c.study == self._study)).one_or_none()
        if row is None:
            return None
        text, renewed, now = row
        age_s = (now.replace(tzinfo=None) - renewed.replace(tzinfo=None)).total_seconds()
        return replace(Holder(**json.loads(text)), age_s=age_s)

    def claim(self, mine: Holder, seen: Holder | None) -> bool:
        """Insert the row, or replace the one that was seen."""
        values = {"token": mine.token, "holder": json.dumps(asdict(mine)), "renewed": func.now()}
        try:
            with self._engine.begin() as connection:
                if seen is not None:
                    return self._update(connection, seen.token, values)
                connection.execute(LEASES.insert().values(study=self._study, **values))
        except IntegrityError:  # somebody was quicker
            return False
        return True

    def renew(self, mine: Holder) -> bool:
        """Set the time."""
        with self._engine.begin() as connection:
            return self._update(connection, mine.token, {"renewed": func.now()})

    def release(self, mine: Holder) -> None:
        """Delete the row."""
        own = (LEASES.c.study == self._study) & (LEASES.c.token == mine.token)
        with self._engine.begin() as connection:
            connection.execute(LEASES.delete().where(own))
        self._engine.dispose()

    def _update(self, connection: Connection, token: str, values: Mapping[str, object]) -> bool:
        own = (LEASES.c.study == self._study) & (LEASES.c.token == token)
        return bool(connection.execute(LEASES.update().where(own).values(**values)).rowcount)
