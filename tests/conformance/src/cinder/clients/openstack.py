"""A working day with the `openstack` command: as people type it."""

import json
import os
import subprocess

steps = Steps("openstack")
PROGRAM = os.environ["OPENSTACK_PROGRAM"]


def run(*arguments, user="alpha-member", fails=False):
    environment = dict(os.environ, OS_USERNAME=user, OS_PROJECT_NAME=user.split("-")[0])
    done = subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    if fails != (done.returncode != 0):
        raise AssertionError(f"{arguments}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr if fails else done.stdout


def read(*arguments, user="alpha-member"):
    return json.loads(run(*arguments, "-f", "json", user=user))


def status(kind, name):
    return lambda: read(*kind, "show", name)["status"]


def names(*arguments, user="alpha-member"):
    return [row["Name"] for row in read(*arguments, user=user)]


@steps.step("volume create, list, show")
def _():
    made = read("volume", "create", "--size", "1", "--property", "a=1", "--description", "typed", "typed")
    equal((made["name"], made["size"], made["status"]), ("typed", 1, "creating"))
    wait(status(["volume"], "typed"), "available")
    contains(names("volume", "list"), "typed")
    shown = read("volume", "show", "typed")
    equal((shown["id"], shown["properties"], shown["description"]), (made["id"], {"a": "1"}, "typed"))
    contains(run("volume", "show", "no-such-volume", fails=True), "no-such-volume")


@steps.step("volume set and unset: name, size, properties, bootable")
def _():
    run("volume", "set", "--size", "2", "typed")
    wait(lambda: read("volume", "show", "typed")["size"], 2)
    wait(status(["volume"], "typed"), "available")
    run("volume", "set", "--property", "b=2", "--bootable", "--name", "typed-2", "typed")
    run("volume", "unset", "--property", "a", "typed-2")
    shown = read("volume", "show", "typed-2")
    equal((shown["size"], shown["properties"], shown["bootable"]), (2, {"b": "2"}, True))
    contains(run("volume", "set", "--size", "1", "typed-2", fails=True), "size")


@steps.step("volume snapshot create, list, show, delete")
def _():
    run("volume", "snapshot", "create", "--volume", "typed-2", "monday")
    wait(status(["volume", "snapshot"], "monday"), "available")
    contains(names("volume", "snapshot", "list"), "monday")
    run("volume", "create", "--snapshot", "monday", "copy")
    wait(status(["volume"], "copy"), "available")
    equal(read("volume", "show", "copy")["size"], 2)
    run("volume", "delete", "copy")
    wait(lambda: "copy" in names("volume", "list"), False)
    run("volume", "snapshot", "delete", "monday")
    wait(lambda: names("volume", "snapshot", "list"), [])


@steps.step("volume type create, set, list, delete")
def _():
    run("volume", "type", "create", "--property", "note:c=3", "typed-type", user="alpha-admin")
    contains(names("volume", "type", "list"), "typed-type")
    shown = read("volume", "type", "show", "typed-type", user="alpha-admin")
    equal(shown["properties"], {"note:c": "3"})
    run("volume", "type", "unset", "--property", "note:c", "typed-type", user="alpha-admin")
    run("volume", "type", "delete", "typed-type", user="alpha-admin")
    lacks(names("volume", "type", "list"), "typed-type")


@steps.step("volume transfer request create, list, accept")
def _():
    made = read("volume", "transfer", "request", "create", "--name", "gift", "typed-2")
    contains(names("volume", "transfer", "request", "list"), "gift")
    accepted = ["volume", "transfer", "request", "accept", "--auth-key", made["auth_key"], made["id"]]
    run(*accepted, user="beta-member")
    wait(lambda: "typed-2" in names("volume", "list", user="beta-member"), True)
    lacks(names("volume", "list"), "typed-2")
    run("volume", "delete", "typed-2", user="beta-member")
    wait(lambda: names("volume", "list", user="beta-member"), [])


@steps.step("quota set and show, limits show")
def _():
    run("quota", "set", "--volumes", "7", "alpha", user="alpha-admin")
    shown = {row["Resource"]: row["Limit"] for row in read("quota", "show", "--volume", "alpha", user="alpha-admin")}
    equal(shown["volumes"], 7)
    run("quota", "set", "--volumes", "10", "alpha", user="alpha-admin")
    limits = {row["Name"]: row["Value"] for row in read("limits", "show", "--absolute", user="alpha-admin")}
    equal(limits["max_total_volumes"], 10)


@steps.step("volume service list, volume backend pool list, availability zone list")
def _():
    services = read("volume", "service", "list", user="alpha-admin")
    contains([(row["Binary"], row["State"]) for row in services], ("cinder-volume", "up"))
    contains(names("volume", "backend", "pool", "list", user="alpha-admin")[0], "@")
    zones = read("availability", "zone", "list", "--volume")
    equal([row["Zone Status"] for row in zones], ["available"])


@steps.step("a member is refused what administrators do")
def _():
    contains(run("volume", "type", "create", "mine", fails=True), "403")


steps.run()
