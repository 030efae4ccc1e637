"""Reads a stream of subunit and prints one JSON object for each test as soon as it has ended."""

import json
import sys

import subunit
import testtools

STATUSES = {"success", "fail", "skip", "xfail", "uxsuccess"}


def text(test, name):
    details = test["details"]
    names = [known for known in details if known == name or known.startswith(name + "-")]
    return "\n".join(details[known].as_text() for known in sorted(names))


def tell(test):
    if test["status"] in STATUSES or test["status"] == "inprogress":
        words = {
            "id": test["id"],
            "status": test["status"],
            "reason": text(test, "reason"),
            "traceback": text(test, "traceback"),
        }
        print(json.dumps(words), flush=True)


results = testtools.StreamToDict(tell)
results.startTestRun()
subunit.ByteStreamToStreamResult(sys.stdin.buffer, non_subunit_name="output").run(results)
results.stopTestRun()
