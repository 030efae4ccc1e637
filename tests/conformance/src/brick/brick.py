"""What a compute host does with a connection: os-brick's own steps. Each call prints one line of JSON last."""

import json
import logging
import os
import sys

from oslo_concurrency import lockutils
from oslo_config import cfg

import os_brick
from os_brick import privileged
from os_brick.initiator import connector

ROOT_HELPER = "sudo"

logging.basicConfig(level=logging.DEBUG, filename="/tmp/brick.log")
os.makedirs("/tmp/locks", exist_ok=True)
cfg.CONF([], project="brick")
lockutils.set_defaults("/tmp/locks")
os_brick.setup(cfg.CONF)
# This process is root itself.
privileged.default.set_client_mode(False)

verb, arguments = sys.argv[1], [json.loads(text) for text in sys.argv[2:]]
if verb == "properties":
    answer = connector.get_connector_properties(ROOT_HELPER, "10.0.2.15", False, False, host="compute-1")
else:
    connection = arguments[0]
    protocol = connection["driver_volume_type"]
    iscsi = connector.InitiatorConnector.factory(protocol, ROOT_HELPER, use_multipath=False, device_scan_attempts=10)
    if verb == "connect":
        answer = iscsi.connect_volume(connection)
    elif verb == "extend":
        answer = iscsi.extend_volume(connection)
    elif verb == "disconnect":
        answer = iscsi.disconnect_volume(connection, arguments[1])
    else:
        raise SystemExit(f"no verb {verb}")


def plain(value):
    return value.decode() if isinstance(value, bytes) else str(value)


print(json.dumps(answer, default=plain))
