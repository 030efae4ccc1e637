"""What Nova does with a volume of a server, by Nova's own code: boot, attach, live migration, growth, detach.

python nova.py KEYSTONE USER PASSWORD PROJECT SERVICE_USER VOLUME SHARED_VOLUME: the service user vouches for the user's requests,
as nova-compute does. Ends with an error at the first surprise.
"""

import sys
import time
import uuid

import requests
from oslo_config import cfg

import nova.conf
from nova import context as nova_context
from nova import exception
from nova.volume import cinder

keystone, user, password, project, service_user, volume, shared = sys.argv[1:8]
PATIENCE_S = 40
HOST = {"platform": "x86_64", "os_type": "linux", "ip": "127.0.0.1", "host": "compute-1", "multipath": True,
        "initiator": "iqn.1993-08.org.debian:01:compute-1"}
OTHER = {**HOST, "host": "compute-2", "initiator": "iqn.1993-08.org.debian:01:compute-2"}


def configure():
    CONF = nova.conf.CONF
    CONF([], project="nova", default_config_files=[])
    CONF.set_override("catalog_info", "volumev3::publicURL", group="cinder")
    CONF.set_override("os_region_name", "RegionOne", group="cinder")
    CONF.set_override("send_service_user_token", True, group="service_user")
    from keystoneauth1 import loading
    loading.register_auth_conf_options(CONF, "service_user")
    options = {"auth_type": "password", "auth_url": keystone, "username": service_user, "password": password,
               "project_name": "service", "user_domain_name": "Default", "project_domain_name": "Default"}
    plugin = loading.get_plugin_loader("password")
    for option in loading.get_auth_plugin_conf_options(plugin):
        try:
            CONF.register_opt(option, group="service_user")
        except cfg.DuplicateOptError:
            pass
    for name, value in options.items():
        CONF.set_override(name, value, group="service_user")


def log_in():
    """A context as nova-api makes one for a user's request."""
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": {
        "name": user, "domain": {"name": "Default"}, "password": password}}},
        "scope": {"project": {"name": project, "domain": {"name": "Default"}}}}}
    answer = requests.post(f"{keystone}/auth/tokens", json=body, timeout=PATIENCE_S)
    answer.raise_for_status()
    token = answer.json()["token"]
    catalog = [{"type": service["type"], "name": service["name"], "endpoints": [
        {"region": endpoint["region"], "publicURL": endpoint["url"]}
        for endpoint in service["endpoints"] if endpoint["interface"] == "public"]} for service in token["catalog"]]
    return nova_context.RequestContext(
        user_id=token["user"]["id"], project_id=token["project"]["id"],
        auth_token=answer.headers["X-Subject-Token"], service_catalog=catalog)


def is_at(identity, status):
    """Waits until a volume is at something."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = api.get(context, identity)
        if found["status"] == status:
            return found
        assert time.monotonic() < deadline, f"{identity} is {found['status']} and not {status}"
        time.sleep(0.05)


def attach(identity, server, host):
    """All that an attachment takes; gives its identity."""
    attachment = api.attachment_create(context, identity, server)
    reserved = api.attachment_get(context, attachment["id"])
    assert not reserved["connection_info"] or set(reserved["connection_info"]) <= {"data", "status"}, reserved
    connected = api.attachment_update(context, attachment["id"], host, "/dev/vdb")
    info = connected["connection_info"]
    assert info["driver_volume_type"] == "iscsi", info
    data = info["data"]
    assert data["target_iqn"].endswith(identity) and data["auth_method"] == "CHAP", data
    assert data["target_iqns"] == [data["target_iqn"]] * len(data["target_portals"]), data
    assert data["access_mode"] == "rw" and data["encrypted"] is False, data
    api.attachment_complete(context, attachment["id"])
    return attachment["id"]


configure()
context = log_in()
api = cinder.API()
server = str(uuid.uuid4())

# Attach, as at boot.
found = is_at(volume, "available")
api.check_availability_zone(context, found)
first = attach(volume, server, HOST)
found = is_at(volume, "in-use")
assert found["attach_status"] == "attached" and server in found["attachments"], found
assert found["attachments"][server]["attachment_id"] == first, found
assert api.get(context, volume, microversion="3.48")["shared_targets"] is False

# Somebody else cannot have it.
try:
    api.attachment_create(context, volume, str(uuid.uuid4()))
    raise AssertionError("two servers have a volume that is for one")
except exception.InvalidInput:
    pass

# Live migration: the same server on two hosts for a while.
second = attach(volume, server, OTHER)
api.attachment_delete(context, first)
found = is_at(volume, "in-use")
assert found["attachments"][server]["attachment_id"] == second, found

# A detach that fails half way, and one that does not.
api.begin_detaching(context, volume)
is_at(volume, "detaching")
api.roll_detaching(context, volume)
is_at(volume, "in-use")
api.begin_detaching(context, volume)
api.attachment_delete(context, second)
is_at(volume, "available")
# Nova deletes twice when it lost the answer.
try:
    api.attachment_delete(context, second)
except exception.VolumeAttachmentNotFound:
    pass

# Several servers on one volume.
servers = [str(uuid.uuid4()) for _ in range(2)]
attachments = [attach(shared, one, host) for one, host in zip(servers, (HOST, OTHER))]
found = is_at(shared, "in-use")
assert set(found["attachments"]) == set(servers), found
for one in attachments:
    api.attachment_delete(context, one)
is_at(shared, "available")

# As Nova did it before there were attachments.
api.reserve_volume(context, volume)
is_at(volume, "attaching")
api.unreserve_volume(context, volume)
is_at(volume, "available")
api.reserve_volume(context, volume)
info = api.initialize_connection(context, volume, HOST)
assert info["driver_volume_type"] == "iscsi" and info["data"]["target_lun"] == 0, info
api.attach(context, volume, server, "/dev/vdc")
is_at(volume, "in-use")
api.begin_detaching(context, volume)
api.terminate_connection(context, volume, HOST)
api.detach(context, volume, server)
is_at(volume, "available")

# What else Nova asks.
snapshot = api.create_snapshot_force(context, volume, "of a running server", "")
deadline = time.monotonic() + PATIENCE_S
while api.get_snapshot(context, snapshot["id"])["status"] != "available":
    assert time.monotonic() < deadline, "no snapshot"
    time.sleep(0.05)
copy = api.create(context, 1, "copy", "", snapshot=api.get_snapshot(context, snapshot["id"]))
is_at(copy["id"], "available")
api.delete(context, copy["id"])
api.delete_snapshot(context, snapshot["id"])
assert api.get_absolute_limits(context)["totalVolumesUsed"] >= 2
assert any(kind["name"] for kind in api.get_all_volume_types(context))
try:
    api.get(context, str(uuid.uuid4()))
    raise AssertionError("a volume that is not there")
except exception.VolumeNotFound:
    pass
print("as Nova wants it")
