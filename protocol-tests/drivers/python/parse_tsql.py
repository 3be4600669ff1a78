"""Parses T-SQL by sqlglot, a parser that is not ours: batches from standard input, each `-- name`, its text, and a line GO.

Prints a JSON object a batch: its name, the kinds of its statements, and why it is no T-SQL (null when it is). A text that the parser
takes only as an opaque command counts as not understood.
"""

import json
import logging
import sys

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

# Falling back to an opaque command is told by its node; the warning would say it twice.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


def verdict(text):
    try:
        statements = sqlglot.parse(text, dialect="tsql", error_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        return [], str(error)
    statements = [statement for statement in statements if statement is not None]
    if not statements:
        return [], "no statement"
    for statement in statements:
        for node in statement.walk():
            if isinstance(node, exp.Command):
                return [], f"not understood: {node.sql(dialect='tsql')}"
    return [type(statement).__name__ for statement in statements], None


def main():
    for batch in sys.stdin.read().split("\nGO\n"):
        if not batch.strip():
            continue
        first, _, text = batch.strip().partition("\n")
        kinds, error = verdict(text)
        print(json.dumps({"name": first.removeprefix("--").strip(), "statements": kinds, "error": error}))


main()
