"""A connection through a DB-API driver: the steps of a scenario, as far as all four drivers take them alike."""

from .values import Rows, given


class Unsupported(Exception):
    """What the driver cannot do, in one short sentence that is always the same."""


class Session:
    """One connection. A driver's own class says how it connects, what its errors look like, and what it can besides."""

    # Exceptions that carry an answer of the server's, or at least end only the statement.
    errors = ()
    # How a parameter is marked in a text.
    mark = "?"

    @classmethod
    def prepare_process(cls, options):
        """What must be said once, before the first connection."""

    def __init__(self, options, scenario):
        self.options = options
        self.scenario = scenario
        self.connection = self.connect()

    def connect(self):
        raise NotImplementedError

    def described(self, error):
        """The errors of the server in one exception."""
        raise NotImplementedError

    def close(self):
        self.connection.close()

    def cursor(self):
        return self.connection.cursor()

    def reply(self, run, cursor=None):
        """Runs, then reads every result set to its end; an error leaves what came before it."""
        cursor = cursor or self.cursor()
        sets, errors, affected = [], [], None
        try:
            run(cursor)
            more = True
            while more:
                if cursor.description:
                    rows = Rows([column[0] for column in cursor.description])
                    sets.append(rows)
                    for row in iter(cursor.fetchone, None):
                        rows.add(row)
                if cursor.rowcount is not None and cursor.rowcount >= 0:
                    affected = cursor.rowcount
                more = cursor.nextset()
        except self.errors as error:
            errors += self.described(error)
        finally:
            self.shut(cursor)
        told = {"sets": [rows.answer() for rows in sets], "errors": errors}
        if affected is not None:
            told["affected"] = affected
        return told

    def shut(self, cursor):
        try:
            cursor.close()
        except self.errors:
            pass

    def marked(self, sql, count):
        """The text with the driver's own marks for its parameters."""
        for at in range(1, count + 1):
            sql = sql.replace("{%d}" % at, self.mark)
        return sql

    def do_batch(self, step):
        return self.reply(lambda cursor: cursor.execute(step["sql"]))

    def do_query(self, step):
        values = tuple(given(p["type"], p["value"]) for p in step["params"])
        sql = self.marked(step["sql"], len(values))
        return self.reply(lambda cursor: cursor.execute(sql, values))

    def do_prepared(self, step):
        raise Unsupported("the driver prepares no statements")

    def transaction(self, text):
        return {"errors": self.reply(lambda cursor: cursor.execute(text))["errors"]}

    def do_begin(self, _step):
        return self.transaction("BEGIN TRANSACTION")

    def do_commit(self, _step):
        return self.transaction("COMMIT TRANSACTION")

    def do_rollback(self, _step):
        return self.transaction("ROLLBACK TRANSACTION")

    def do_cancel(self, step):
        """Reads some rows, cancels, and sees that the rest does not come."""
        cursor = self.cursor()
        cursor.execute(step["sql"])
        for _ in range(step["after"]):
            if cursor.fetchone() is None:
                return {"cancelled": False}
        self.cancel(cursor)
        self.shut(cursor)
        return {"cancelled": True}

    def cancel(self, cursor):
        raise Unsupported("the driver cannot cancel")

    def do_bulk(self, step):
        raise Unsupported("the driver has no bulk load")

    def do_mars(self, step):
        raise Unsupported("the driver has no MARS")

    def do_tvp(self, step):
        raise Unsupported("the driver has no table-valued parameters")

    def do_cursor(self, step):
        raise Unsupported("the driver has no server cursors")
