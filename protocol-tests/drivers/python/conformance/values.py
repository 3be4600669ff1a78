"""The one written form of every value (../../README.md), and the generated rows of bulk loads and table parameters."""

import datetime
import decimal
import hashlib
import json
import struct
import uuid

# Longest written form of a text or binary that stands in the answer itself.
LONGEST = 300
# Rows that stand in the answer; of larger sets only a digest.
ROWS_SHOWN = 50


def fraction(digits):
    """A fraction of a second, without trailing zeros and without a lone point."""
    digits = digits.rstrip("0")
    return "." + digits if digits else ""


def clock(value):
    return f"{value.hour:02}:{value.minute:02}:{value.second:02}" + fraction(f"{value.microsecond:06}")


def number(value):
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "n:0" if text in ("-0", "") else "n:" + text


def moment(value):
    text = f"{value.year:04}-{value.month:02}-{value.day:02}T{clock(value)}"
    if value.tzinfo is None:
        return "m:" + text
    minutes = int(value.utcoffset().total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"o:{text}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def text_of(value):
    if len(value) > LONGEST:
        return f"s#{len(value)}:{hashlib.sha256(value.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return "s:" + value


def bytes_of(value):
    if 2 * len(value) > LONGEST:
        return f"b#{len(value)}:{hashlib.sha256(value).hexdigest()}"
    return "b:" + value.hex()


def written(value):
    """A value of any of the drivers."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return f"i:{value}"
    if isinstance(value, float):
        return "f:" + struct.pack(">d", value).hex()
    if isinstance(value, decimal.Decimal):
        return number(value)
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes_of(bytes(value))
    if isinstance(value, uuid.UUID):
        return f"g:{value}"
    if isinstance(value, datetime.datetime):
        return moment(value)
    if isinstance(value, datetime.date):
        return f"d:{value.isoformat()}"
    if isinstance(value, datetime.time):
        return "t:" + clock(value)
    return f"?:{type(value).__name__}:{value}"


class Rows:
    """One result set as it grows."""

    def __init__(self, columns):
        self.columns = columns
        self.count = 0
        self.shown = []
        self.hash = hashlib.sha256()

    def add(self, row):
        line = [written(value) for value in row]
        self.count += 1
        if self.count <= ROWS_SHOWN + 1:
            self.shown.append(line)
        self.hash.update(json.dumps(line).encode())

    def answer(self):
        told = {"columns": self.columns, "rows": self.count}
        if self.count <= ROWS_SHOWN:
            told["values"] = self.shown
        else:
            told["digest"] = self.hash.hexdigest()
        return told


def given(kind, value):
    """A parameter's value as Python has it."""
    if value is None:
        return None
    makers = {
        "decimal": decimal.Decimal,
        "bigint": int,
        "varbinary": bytes.fromhex,
        "uniqueidentifier": uuid.UUID,
        "date": datetime.date.fromisoformat,
        "datetime2": datetime.datetime.fromisoformat,
        "float": float,
    }
    return makers.get(kind, lambda same: same)(value)


def made_rows(columns, count):
    """Rows 1 to `count` of a bulk load or table parameter; what each column holds is told by its name."""
    makers = {
        "id": lambda i: i,
        "name": lambda i: f"name-{i}",
        "amount": lambda i: decimal.Decimal(i) + decimal.Decimal("0.25"),
        "note": lambda i: None if i % 3 == 0 else f"ä{i}",
        "data": lambda i: None if i % 5 == 0 else struct.pack(">I", i),
    }
    return [tuple(makers[name](i) for name in columns) for i in range(1, count + 1)]
