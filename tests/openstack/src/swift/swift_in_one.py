"""Swift with all of its servers in one process: proxy, account, container and object, one copy of everything.

`swift_in_one.py FOLDER`. FOLDER has `swift.conf`, and `proxy.conf` for the proxy, which serves on the socket that is standard
input; all else is made there. Ends with the process that started it.
"""

import os
import socket
import sys

import eventlet
from eventlet import patcher

# Threads as the system has them, and not as the servers see them.
original = patcher.original("threading")
eventlet.monkey_patch(all=False, socket=True, select=True, thread=True)

from swift.common import utils  # noqa: what follows reads the hash's suffix when it is loaded

FOLDER = sys.argv[1]
utils.set_swift_dir(FOLDER)

from swift.common import constraints, storage_policy, wsgi  # noqa
from swift.common.ring import RingBuilder  # noqa

# Four partitions: there is one device.
PART_POWER = 2
DEVICE = "disk"
SERVER = """[DEFAULT]
devices = {folder}/devices
swift_dir = {folder}
bind_ip = 127.0.0.1
bind_port = {port}
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""


class Memory:
    """What memcached would remember, for as long as the process lives."""

    def __init__(self):
        self.known = {}

    def get(self, key, **_):
        return self.known.get(key)

    def set(self, key, value, **_):
        self.known[key] = value

    def delete(self, key, **_):
        self.known.pop(key, None)

    def incr(self, key, delta=1, **_):
        self.known[key] = self.known.get(key, 0) + delta
        return self.known[key]


def memory(_, **__):
    cache = Memory()

    def wrap(app):
        def with_memory(env, start_response):
            env["swift.cache"] = cache
            return app(env, start_response)

        return with_memory

    return wrap


def end_with_parent(parent):
    while os.getppid() == parent:
        eventlet.sleep(0.5)
    os._exit(1)


def listen():
    listener = eventlet.listen(("127.0.0.1", 0))
    return listener, listener.getsockname()[1]


def make_ring(name, port):
    ring = RingBuilder(PART_POWER, 1, 0)
    ring.add_dev({
        "region": 1, "zone": 1, "ip": "127.0.0.1", "port": port, "replication_ip": "127.0.0.1", "replication_port": port,
        "device": DEVICE, "weight": 1, "meta": "",
    })
    ring.rebalance()
    ring.get_ring().save(os.path.join(FOLDER, name + ".ring.gz"))


def serve(name, listener):
    path = os.path.join(FOLDER, name + ".conf")
    conf = wsgi.appconfig(path, name=name + "-server")
    logger = utils.get_logger(conf, name + "-server")
    wsgi.run_server(conf, logger, listener, allow_modify_pipeline=False)


def share_the_hub():
    """Each server would begin with a hub of its own, and leave those before it without one."""
    main_thread, use_hub = original.get_ident(), eventlet.hubs.use_hub
    use_hub(utils.get_hub())

    def use_hub_elsewhere(*arguments):
        if original.get_ident() != main_thread:
            use_hub(*arguments)

    eventlet.hubs.use_hub = use_hub_elsewhere


def main():
    share_the_hub()
    constraints.reload_constraints()
    storage_policy.reload_storage_policies()
    os.makedirs(os.path.join(FOLDER, "devices", DEVICE), exist_ok=True)
    servers = []
    for name in ("account", "container", "object"):
        listener, port = listen()
        make_ring(name, port)
        with open(os.path.join(FOLDER, name + ".conf"), "w") as conf:
            conf.write(SERVER.format(folder=FOLDER, port=port, name=name))
        servers.append(eventlet.spawn(serve, name, listener))
    eventlet.spawn(end_with_parent, os.getppid())
    proxy = socket.socket(fileno=os.dup(0))
    serve("proxy", proxy)


main()
