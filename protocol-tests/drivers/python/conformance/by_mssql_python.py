"""mssql-python: Microsoft's ODBC Driver 18 in a Python package."""

import os

import mssql_python

from . import by_odbc, session
from .values import made_rows

# The driver has no mode without TLS: Encrypt=no is ENCRYPT_OFF.
ENCRYPTIONS = {
    "login-only": "Encrypt=no;TrustServerCertificate=yes",
    "on": "Encrypt=yes;TrustServerCertificate=yes",
    "required": "Encrypt=yes;TrustServerCertificate=no",
    "strict": "Encrypt=strict",
}


class Session(by_odbc.Session):
    """A connection of mssql-python."""

    errors = (mssql_python.Error,)

    @classmethod
    def prepare_process(cls, options):
        # The roots that OpenSSL in the driver trusts.
        os.environ["SSL_CERT_FILE"] = options.ca
        mssql_python.pooling(enabled=False)

    def connect(self):
        options = self.options
        if options.encryption not in ENCRYPTIONS:
            raise session.Unsupported("the driver always encrypts the login")
        return mssql_python.connect(
            f"Server={options.host},{options.port};Database={options.database};UID={options.user};"
            f"PWD={options.password};{ENCRYPTIONS[options.encryption]}",
            autocommit=True,
            timeout=60,
        )

    def described(self, error):
        text = str(getattr(error, "ddbc_error", "") or error)
        return [{"number": 0, "state": 0, "class": 0, "message": by_odbc.ORIGIN.sub("", text)}]

    def set_autocommit(self, on):
        self.connection.setautocommit(on)

    def cancel(self, cursor):
        """The driver has no call for it: closing a cursor that is not at its end cancels."""

    def do_bulk(self, step):
        rows = made_rows(step["columns"], step["rows"])
        cursor = self.cursor()
        try:
            cursor.bulkcopy(step["table"], rows)
        except self.errors as error:
            return {"errors": self.described(error)}
        finally:
            self.shut(cursor)
        return {"errors": [], "affected": len(rows)}
