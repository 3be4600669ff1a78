"""Drives pymssql for the end-to-end tests: one JSON command per line in, one JSON answer per line out.

Commands carry `seq` (returned in the answer), `do` and `id` (the connection's name). Each connection has its own
thread, so that connections run beside each other; the commands of one connection run in order.
  connect  host, port, user, password, database, autocommit, login_timeout (s), timeout (s)
  query    sql, [keep]: streams all result sets; answers {sets: [{columns, rows, first}], rows, errors}
           `first` holds the first `keep` rows as strings, 5 unless told
  close
An error of the server is {number, state, class, message}; one of the driver's own has number 0.
"""

import json
import os
import queue
import sys
import threading

import pymssql
from pymssql import _mssql

ANSWERS = threading.Lock()
# pymssql keeps the message of a login that failed in a place that all connections share.
LOGINS = threading.Lock()
KEEP = 5


def answer(seq, body):
    line = json.dumps({"seq": seq, **body}, default=str)
    with ANSWERS:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def describe(error):
    """What the server said, as far as pymssql tells."""
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, _mssql.MSSQLDatabaseException):
            return {
                "number": error.number,
                "state": error.state,
                "class": error.severity,
                "message": text_of(error.message),
            }
        error = error.__cause__ or error.__context__
    first = seen[0]
    number = 0
    args = first.args
    if args and isinstance(args[0], tuple):
        args = args[0]
    if args and isinstance(args[0], int):
        number = args[0]
    message = text_of(args[1]) if len(args) > 1 else str(first)
    return {"number": number, "state": 0, "class": 0, "message": message}


def text_of(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


class Session(threading.Thread):
    """One connection and the thread that owns it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.commands = queue.Queue()
        self.connection = None
        self.start()

    def run(self):
        while True:
            command = self.commands.get()
            try:
                body = getattr(self, "do_" + command["do"])(command)
            except (pymssql.Error, _mssql.MSSQLException) as error:
                body = {"errors": [describe(error)]}
            except Exception as error:  # pylint: disable=broad-except
                body = {"failed": repr(error)}
            answer(command["seq"], body)
            if command["do"] == "close":
                return

    def do_connect(self, command):
        with LOGINS:
            self.connection = pymssql.connect(
                server=command["host"],
                port=str(command["port"]),
                user=command["user"],
                password=command["password"],
                database=command.get("database", ""),
                autocommit=command.get("autocommit", True),
                login_timeout=command.get("login_timeout", 20),
                timeout=command.get("timeout", 300),
                tds_version="7.4",
            )
        return {"errors": []}

    def do_query(self, command):
        keep = command.get("keep", KEEP)
        sets, errors = [], []
        cursor = self.connection.cursor()
        try:
            cursor.execute(command["sql"])
            more = True
            while more:
                if cursor.description is not None:
                    sets.append({"columns": [c[0] for c in cursor.description], "rows": 0, "first": []})
                    drain(cursor, sets[-1], keep)
                more = cursor.nextset()
        except (pymssql.Error, _mssql.MSSQLException) as error:
            errors.append(describe(error))
        finally:
            cursor.close()
        return {"sets": sets, "rows": sum(s["rows"] for s in sets), "errors": errors}

    def do_commit(self, _command):
        self.connection.commit()
        return {"errors": []}

    def do_rollback(self, _command):
        self.connection.rollback()
        return {"errors": []}

    def do_close(self, _command):
        if self.connection is not None:
            self.connection.close()
        return {"errors": []}


def drain(cursor, result, keep):
    """Counts the rows one by one; an error leaves the count at the rows that came before it."""
    for row in iter(cursor.fetchone, None):
        if result["rows"] < keep:
            result["first"].append([None if value is None else str(value) for value in row])
        result["rows"] += 1


def main():
    sessions = {}
    for line in sys.stdin:
        command = json.loads(line)
        name = command["id"]
        if command["do"] == "connect":
            sessions[name] = Session()
        sessions[name].commands.put(command)
    # At once: the threads of sessions that are still open would complain on their way out.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
