"""What the two drivers over ODBC have in common: marks, prepared statements, transactions, the text of their errors."""

import re

from . import session
from .values import given

# "[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]text" ends in the text alone.
ORIGIN = re.compile(r"^(\[[^\]]*\])+")


class Session(session.Session):
    """A connection over ODBC."""

    mark = "?"

    def do_prepared(self, step):
        """The driver prepares a text that it executes with values, and keeps it while the text stays the same."""
        cursor = self.cursor()
        sql = self.marked(step["sql"], len(step["types"]))
        runs = []
        for run in step["runs"]:
            values = tuple(given(kind, value) for kind, value in zip(step["types"], run))
            runs.append(self.reply(lambda cursor, values=values: cursor.execute(sql, values), Kept(cursor)))
        self.shut(cursor)
        return {"runs": runs}

    def by_api(self, run):
        try:
            run()
        except self.errors as error:
            return {"errors": self.described(error)}
        return {"errors": []}

    def set_autocommit(self, on):
        self.connection.autocommit = on

    def do_begin(self, _step):
        return self.by_api(lambda: self.set_autocommit(False))

    def end(self, finish):
        def ended():
            finish()
            self.set_autocommit(True)

        return self.by_api(ended)

    def do_commit(self, _step):
        return self.end(self.connection.commit)

    def do_rollback(self, _step):
        return self.end(self.connection.rollback)

    def cancel(self, cursor):
        cursor.cancel()


class Kept:
    """A cursor that a reply does not close, so that its prepared statement lives on."""

    def __init__(self, cursor):
        self.inner = cursor

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def close(self):
        """Left to who has the cursor."""
