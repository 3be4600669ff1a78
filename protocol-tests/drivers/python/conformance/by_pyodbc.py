"""pyodbc over FreeTDS's ODBC driver as Debian ships it."""

import datetime
import os
import struct

from . import by_odbc, by_pymssql, session

# SQL_SS_TIMESTAMPOFFSET, which pyodbc hands over only as bytes.
DATETIMEOFFSET = -155

# What is left of FreeTDS's message behind its origins: the server's text and, in parentheses, its number and the call.
ENCRYPTIONS = {"none": "off", "login-only": "request", "on": "require", "required": "require"}


class Session(by_odbc.Session):
    """A connection of pyodbc."""

    @classmethod
    def prepare_process(cls, options):
        if options.encryption in ENCRYPTIONS:
            by_pymssql.write_freetds_conf(options)
        import pyodbc  # pylint: disable=import-outside-toplevel

        pyodbc.pooling = False
        cls.module = pyodbc
        cls.errors = (pyodbc.Error,)

    def connect(self):
        options = self.options
        if options.encryption not in ENCRYPTIONS:
            raise session.Unsupported("FreeTDS of Debian 12 has no TDS 8.0")
        driver = os.environ["WEIR_TEST_TDSODBC"]
        connection = self.module.connect(
            f"Driver={driver};Server={options.host};Port={options.port};Database={options.database};"
            f"UID={options.user};PWD={options.password};TDS_Version=7.4;ClientCharset=UTF-8;"
            f"Encryption={ENCRYPTIONS[options.encryption]}",
            autocommit=True,
            timeout=60,
        )
        connection.add_output_converter(DATETIMEOFFSET, with_offset)
        return connection

    def described(self, error):
        message = str(error.args[1] if len(error.args) > 1 else error)
        number = 0
        # "[42S02] [FreeTDS][SQL Server]text (208) (SQLExecDirectW)"
        text, _, call = message.rpartition(" (SQL")
        if call and text.endswith(")"):
            text, _, found = text.rpartition(" (")
            number = int(found.rstrip(")")) if found.rstrip(")").lstrip("-").isdigit() else 0
            message = text
        message = by_odbc.ORIGIN.sub("", message.partition("] ")[2] or message)
        return [{"number": number, "state": 0, "class": 0, "message": message}]


def with_offset(raw):
    """SQL_SS_TIMESTAMPOFFSET_STRUCT."""
    year, month, day, hour, minute, second, nanos, hours, minutes = struct.unpack("<6hI2h", raw)
    zone = datetime.timezone(datetime.timedelta(hours=hours, minutes=minutes))
    return datetime.datetime(year, month, day, hour, minute, second, nanos // 1000, zone)
