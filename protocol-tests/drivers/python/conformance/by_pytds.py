"""python-tds: the protocol in Python, with MARS."""

import pytds
from pytds import tds_types
from pytds.tds_base import Column

from . import session
from .values import Rows, made_rows

TYPES = {
    "id": lambda: tds_types.IntType(),
    "name": lambda: tds_types.NVarCharType(size=40),
    "amount": lambda: tds_types.DecimalType(precision=10, scale=2),
    "note": lambda: tds_types.NVarCharType(size=20),
    "data": lambda: tds_types.VarBinaryType(size=8),
}


def typed(names):
    return [Column(name=name, type=TYPES[name](), flags=Column.fNullable) for name in names]


class Session(session.Session):
    """A connection of python-tds."""

    mark = "%s"
    errors = (pytds.Error,)

    def connect(self):
        options = self.options
        encryption = {
            "none": {},
            "login-only": {"cafile": options.ca, "enc_login_only": True, "validate_host": False},
            "on": {"cafile": options.ca, "validate_host": False},
            "required": {"cafile": options.ca},
        }
        if options.encryption not in encryption:
            raise session.Unsupported("the driver has no TDS 8.0")
        mars = any(step["do"] == "mars" for step in self.scenario["steps"])
        return pytds.connect(
            options.host,
            port=options.port,
            user=options.user,
            password=options.password,
            database=options.database,
            autocommit=True,
            timeout=60,
            login_timeout=60,
            use_mars=mars,
            disable_connect_retry=True,
            **encryption[options.encryption],
        )

    def described(self, error):
        if getattr(error, "msg_no", 0):
            return [
                {
                    "number": error.msg_no,
                    "state": error.state,
                    "class": error.severity,
                    "message": error.text or "",
                }
            ]
        return [{"number": 0, "state": 0, "class": 0, "message": str(error)}]

    # The driver's transactions begin by switching autocommit off and end with the first commit after it.
    def by_api(self, run):
        try:
            run()
        except self.errors as error:
            return {"errors": self.described(error)}
        return {"errors": []}

    def do_begin(self, _step):
        def begin():
            self.connection.autocommit = False

        return self.by_api(begin)

    def end(self, finish):
        def ended():
            finish()
            self.connection.autocommit = True

        return self.by_api(ended)

    def do_commit(self, _step):
        return self.end(self.connection.commit)

    def do_rollback(self, _step):
        return self.end(self.connection.rollback)

    def cancel(self, cursor):
        cursor.cancel()

    def do_bulk(self, step):
        rows = made_rows(step["columns"], step["rows"])
        cursor = self.cursor()
        try:
            cursor.copy_to(table_or_view=step["table"], columns=typed(step["columns"]), data=rows)
        except self.errors as error:
            return {"errors": self.described(error)}
        finally:
            self.shut(cursor)
        return {"errors": [], "affected": len(rows)}

    def do_mars(self, step):
        texts = {"first": step["first"], "second": step["second"]}
        cursors, rows = {}, {}
        for name, sql in texts.items():
            cursors[name] = self.cursor()
            cursors[name].execute(sql)
            rows[name] = Rows([column[0] for column in cursors[name].description])
        waiting = list(texts)
        while waiting:
            for name in list(waiting):
                row = cursors[name].fetchone()
                if row is None:
                    waiting.remove(name)
                else:
                    rows[name].add(row)
        for cursor in cursors.values():
            cursor.close()
        return {name: {"sets": [rows[name].answer()], "errors": []} for name in texts}

    def do_tvp(self, step):
        rows = made_rows(step["columns"], step["rows"])
        table = pytds.TableValuedParam(type_name=step["type"], columns=typed(step["columns"]), rows=rows)
        return self.reply(lambda cursor: cursor.execute(self.marked(step["sql"], 1), (table,)))
