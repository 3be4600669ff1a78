"""Runs the scenarios of the conformance suite through a Python driver; the contract is in ../README.md.

    conform.py pymssql|python-tds|mssql-python|pyodbc --host … --scenarios connect,types
"""

import argparse
import importlib
import json
import re
import sys
import traceback

from conformance.session import Unsupported

DRIVERS = {
    "pymssql": "by_pymssql",
    "python-tds": "by_pytds",
    "mssql-python": "by_mssql_python",
    "pyodbc": "by_pyodbc",
}
ENCRYPTIONS = ["none", "login-only", "on", "required", "strict"]


def tell(line):
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def filled(value, tag):
    """The step with the tag in its texts."""
    if isinstance(value, str):
        return value.replace("{tag}", tag)
    if isinstance(value, dict):
        return {key: filled(inner, tag) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, tag) for inner in value]
    return value


def failure(session_class, error):
    """An error that is no part of a reply, as the contract writes it."""
    try:
        described = session_class.described(session_class, error) if isinstance(error, session_class.errors) else []
    except Exception:  # pylint: disable=broad-except
        described = []
    if described:
        return described[0]
    # Addresses in memory are another each time.
    message = re.sub(r"0x[0-9a-f]{8,}", "0x?", f"{type(error).__name__}: {error}")
    return {"number": 0, "state": 0, "class": 0, "message": message}


def play(session_class, options, scenario):
    told = {"scenario": scenario["name"], "ok": False, "result": [], "error": None}
    session = None
    try:
        session = session_class(options, scenario)
        for step in scenario["steps"]:
            if step["do"] == "await":
                tell({"await": step["what"]})
                sys.stdin.readline()
                told["result"].append({})
                continue
            step = filled(step, options.tag)
            told["result"].append(getattr(session, "do_" + step["do"])(step))
        told["ok"] = True
    except Unsupported as why:
        told.update(result=None, unsupported=str(why))
    except Exception as error:  # pylint: disable=broad-except
        traceback.print_exc()
        told["error"] = failure(session_class, error)
    finally:
        if session is not None:
            try:
                session.close()
            except Exception:  # pylint: disable=broad-except
                traceback.print_exc()
    return told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("driver", choices=DRIVERS)
    for name in ("host", "user", "password", "database", "ca", "tag", "file", "scenarios"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--encryption", choices=ENCRYPTIONS, required=True)
    options = parser.parse_args()
    with open(options.file, encoding="utf-8") as file:
        scenarios = {scenario["name"]: scenario for scenario in json.load(file)["scenarios"]}
    session_class = importlib.import_module("conformance." + DRIVERS[options.driver]).Session
    session_class.prepare_process(options)
    for name in options.scenarios.split(","):
        tell(play(session_class, options, scenarios[name]))


if __name__ == "__main__":
    main()
