"""What the scripts of clients share: steps that say how they went, and waiting for a state.

Each step prints one JSON object. A script goes on after a step that failed: what depends on it fails, too, and says so.
"""

import json
import sys
import time
import traceback

# A change of a small volume takes longer than this only if it hangs, in seconds.
PATIENCE = 60
# Between two looks, in seconds.
LOOK_AGAIN = 0.2


class Steps:
    """Steps in the order in which they were written down."""

    def __init__(self, title):
        self.title = title
        self.all = []

    def step(self, name):
        def add(function):
            self.all.append((name, function))
            return function

        return add

    def run(self):
        for name, function in self.all:
            error = ""
            try:
                function()
            except Exception:
                error = traceback.format_exc()
            print(json.dumps({"step": f"{self.title}: {name}", "error": error}), flush=True)
        sys.exit(0)


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} and not {expected!r}")


def contains(all_of_them, one):
    if one not in all_of_them:
        raise AssertionError(f"no {one!r} among {all_of_them!r}")


def lacks(all_of_them, one):
    if one in all_of_them:
        raise AssertionError(f"{one!r} is still among {all_of_them!r}")


def refused(status, function, *arguments, **words):
    """Something must be refused with this status."""
    try:
        found = function(*arguments, **words)
    except Exception as error:
        code = getattr(error, "code", None) or getattr(error, "status_code", None) or getattr(error, "http_status", None)
        if code != status:
            raise
        return
    raise AssertionError(f"{found!r}, and no refusal with {status}")


def wait(look, wanted):
    """Looks until it sees what is wanted. A state of error ends it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = look()
        if found == wanted:
            return
        if time.monotonic() > deadline or (isinstance(found, str) and found.startswith("error")):
            raise AssertionError(f"waited for {wanted!r}, but it is {found!r}")
        time.sleep(LOOK_AGAIN)


def wait_until_gone(look):
    """Looks until what is looked for cannot be found."""

    def found():
        try:
            return look() is not None
        except Exception as error:
            code = getattr(error, "code", None) or getattr(error, "status_code", None) or getattr(error, "http_status", None)
            if code == 404:
                return False
            raise

    wait(found, False)
