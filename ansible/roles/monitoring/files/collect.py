#!/usr/bin/python3
"""Writes what storaged and its front ends on this machine count into a file of the node exporter's.

Front ends of one kind tell some figures without a label; a label says which process each is of.
"""

import glob
import http.client
import os
import socket
import sys
import time

ADMIN = "/var/lib/storaged/admin.sock"
CONTROLS = ("/run/storaged-nbd/*.control", "/run/storaged-vhost/*.control")
# Seconds until somebody who does not answer is left out.
PATIENCE = 5
# The most front ends of one machine.
CONTROLS_MAX = 2000


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


def ask(path):
    """The figures of whoever listens there, or None."""
    connection = Connection(path)
    try:
        connection.request("GET", "/v1/metrics")
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except (OSError, http.client.HTTPException, UnicodeDecodeError):
        return None
    finally:
        connection.close()


def labelled(line, process):
    """A sample with one more label."""
    name, brace, rest = line.partition("{")
    if brace and " " not in name:
        return f'{name}{{process="{process}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{process="{process}"}} {value}'


def collect():
    """Asks all; the text of the file."""
    samples, described, collected = [], set(), []

    def take(text, process):
        for line in (text or "").splitlines():
            if line.startswith("#"):
                if line not in described:
                    described.add(line)
                    samples.append(line)
            elif line:
                samples.append(line if process is None else labelled(line, process))

    answer = ask(ADMIN)
    collected.append(("storaged", answer is not None))
    take(answer, None)
    controls = sorted(path for pattern in CONTROLS for path in glob.glob(pattern))
    for path in controls[:CONTROLS_MAX]:
        folder, name = os.path.split(path)
        process = f"{os.path.basename(folder)}/{name.removesuffix('.control')}"
        answer = ask(path)
        collected.append((process, answer is not None))
        take(answer, process)
    samples.append("# HELP storaged_collected Whether this process told its figures (1) or not (0).")
    samples.append("# TYPE storaged_collected gauge")
    samples += [f'storaged_collected{{process="{name}"}} {int(good)}' for name, good in collected]
    return "\n".join(samples) + "\n"


def main():
    """Replaces the file at once, again and again."""
    file, pause = sys.argv[1], int(sys.argv[2])
    temporary = f"{file}.new"
    while True:
        text = collect()
        with open(temporary, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(temporary, file)
        time.sleep(pause)


if __name__ == "__main__":
    main()
