#!/usr/bin/python3
"""Stands for pvesh and pvesm of Proxmox VE, as far as the role asks them: a list of storages in the form of storage.cfg.

As the real ones do, it takes no type that it has no plugin for, and no name twice.
"""

import json
import os
import sys
import time

LIST = "/etc/pve/storage.cfg"
PLUGIN = "/usr/share/perl5/PVE/Storage/Custom/StoragedPlugin.pm"
# When the first storage of the type was added, in seconds.
MOMENT = "/etc/pve/added"


def read():
    storages = []
    for line in open(LIST, encoding="utf-8"):
        if line.startswith("\t"):
            name, value = line.strip().split(" ", 1)
            storages[-1][name] = value
        elif ": " in line:
            kind, name = line.strip().split(": ")
            storages.append({"type": kind, "storage": name})
    return storages


def add(kind, name, *words):
    if kind == "storaged" and not os.path.exists(PLUGIN):
        sys.exit("400 Parameter verification failed.\ntype: value 'storaged' does not have a value in the enumeration")
    if any(storage["storage"] == name for storage in read()):
        sys.exit(f"create storage failed: storage ID '{name}' already defined")
    options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    if "storaged-pool" not in options:
        sys.exit("400 Parameter verification failed.\nstoraged-pool: property is missing and it is not optional")
    with open(LIST, "a", encoding="utf-8") as file:
        file.write(f"\n{kind}: {name}\n")
        file.writelines(f"\t{option} {value}\n" for option, value in options.items())
    with open(MOMENT, "a", encoding="utf-8") as file:
        file.write(f"{time.time()}\n")


def main():
    program = os.path.basename(sys.argv[0])
    match [program, *sys.argv[1:]]:
        case ["pvesh", "get", "/storage", "--output-format", "json"]:
            print(json.dumps(read()))
        case ["pvesm", "add", kind, name, *words]:
            add(kind, name, *words)
        case _:
            sys.exit(f"{program} does not know this: {sys.argv[1:]}")


main()
