"""pymssql: DB-Library of FreeTDS."""

import os
import tempfile

from . import session
from .values import made_rows

# FreeTDS's names of the encryptions; `off` says ENCRYPT_NOT_SUP.
LEVELS = {"none": "off", "login-only": "request", "on": "require", "required": "require", "strict": "strict"}


def write_freetds_conf(options):
    """FreeTDS reads what no argument of pymssql can say from a file that this variable names."""
    verify = options.encryption in ("required", "strict")
    with tempfile.NamedTemporaryFile("w", prefix="weir-freetds-", suffix=".conf", delete=False) as file:
        file.write(f"[global]\n\tencryption = {LEVELS[options.encryption]}\n\tclient charset = UTF-8\n\ttds version = 7.4\n")
        file.write("\tconnect timeout = 60\n\ttimeout = 60\n\ttext size = 2147483647\n")
        if verify:
            file.write(f"\tca file = {options.ca}\n\tcheck certificate hostname = yes\n")
    os.environ["FREETDSCONF"] = file.name
    return file.name


class Session(session.Session):
    """A connection of pymssql; transactions are batches."""

    mark = "%s"

    @classmethod
    def prepare_process(cls, options):
        write_freetds_conf(options)
        # Imported late: FreeTDS reads its file when it is loaded.
        import pymssql  # pylint: disable=import-outside-toplevel
        from pymssql import _mssql  # pylint: disable=import-outside-toplevel

        cls.module = pymssql
        cls.low = _mssql
        cls.errors = (pymssql.Error, _mssql.MSSQLException)

    def connect(self):
        options = self.options
        return self.module.connect(
            server=options.host,
            port=str(options.port),
            user=options.user,
            password=options.password,
            database=options.database,
            autocommit=True,
            login_timeout=60,
            timeout=60,
        )

    def described(self, error):
        seen = []
        while error is not None and error not in seen:
            seen.append(error)
            if isinstance(error, self.low.MSSQLDatabaseException):
                message = error.message
                if isinstance(message, bytes):
                    message = message.decode("utf-8", "replace")
                return [
                    {"number": error.number, "state": error.state, "class": error.severity, "message": message}
                ]
            error = error.__cause__ or error.__context__
        args = seen[0].args
        if args and isinstance(args[0], tuple):
            args = args[0]
        number = args[0] if args and isinstance(args[0], int) else 0
        message = args[1] if len(args) > 1 else seen[0]
        if isinstance(message, bytes):
            message = message.decode("utf-8", "replace")
        return [{"number": number, "state": 0, "class": 0, "message": str(message)}]

    def cancel(self, cursor):
        self.connection._conn.cancel()  # pylint: disable=protected-access

    def do_bulk(self, step):
        rows = made_rows(step["columns"], step["rows"])
        try:
            self.connection.bulk_copy(step["table"], rows)
        except self.errors as error:
            return {"errors": self.described(error)}
        return {"errors": [], "affected": len(rows)}
