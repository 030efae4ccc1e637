"""Serves a WSGI application on the socket that is standard input: `serve.py MODULE:NAME THREADS ARGUMENTS`.
Some applications read arguments of their own: those that follow.

Ends with the process that started it: a test that is killed leaves no server behind.
"""

import importlib
import os
import socket
import sys
import threading
import time


def end_with_parent(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main():
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    place, threads = sys.argv[1:3]
    del sys.argv[1:3]
    module, name = place.split(":")
    import waitress

    application = getattr(importlib.import_module(module), name)
    waitress.serve(application, sockets=[socket.socket(fileno=0)], threads=int(threads))


main()
