"""A working day with python-cinderclient: as a library, the way Nova and Horizon use it."""

import os

from cinderclient import api_versions, client
from keystoneauth1 import loading, service_token, session

steps = Steps("python-cinderclient")


def password(user, project):
    return loading.get_plugin_loader("password").load_from_options(
        auth_url=os.environ["OS_AUTH_URL"],
        username=user,
        password=os.environ["OS_PASSWORD"],
        project_name=project,
        user_domain_name="Default",
        project_domain_name="Default",
    )


def connect(user, project, vouched=False):
    """As a user; a request may be vouched for by Nova."""
    auth = password(user, project)
    if vouched:
        auth = service_token.ServiceTokenAuthWrapper(user_auth=auth, service_auth=password("nova", "service"))
    return client.Client("3.71", session=session.Session(auth=auth))


alpha = connect("alpha-member", "alpha")
beta = connect("beta-member", "beta")
reader = connect("alpha-reader", "alpha")
admin = connect("alpha-admin", "alpha")
nova = connect("alpha-member", "alpha", vouched=True)
made = {}


@steps.step("the server's versions are those that both sides know")
def _():
    endpoint = alpha.client.get_endpoint()
    server = endpoint.split("/v3")[0]
    low, high = client.get_server_version(server)
    equal((low.get_string(), high.get_string()), ("3.0", "3.71"))
    equal(str(client.get_highest_client_server_version(server)), "3.71")
    equal(api_versions.discover_version(alpha, api_versions.APIVersion("3.71")).get_string(), "3.71")


@steps.step("a volume is created, becomes available, and is shown as it was asked for")
def _():
    volume = alpha.volumes.create(size=1, name="first", description="of the day", metadata={"a": "1"})
    equal(volume.status, "creating")
    made["volume"] = volume
    wait(lambda: alpha.volumes.get(volume.id).status, "available")
    shown = alpha.volumes.get(volume.id)
    equal((shown.name, shown.description, shown.size), ("first", "of the day", 1))
    equal(shown.metadata, {"a": "1"})
    equal((shown.bootable, shown.encrypted, shown.multiattach), ("false", False, False))
    equal(shown.attachments, [])


@steps.step("it is found in lists, by name and by page")
def _():
    more = [alpha.volumes.create(size=1, name=f"more-{number}") for number in range(3)]
    made["more"] = more
    for volume in more:
        wait(lambda: alpha.volumes.get(volume.id).status, "available")
    equal([volume.name for volume in alpha.volumes.list(search_opts={"name": "first"})], ["first"])
    names = [volume.name for volume in alpha.volumes.list(sort="name:asc")]
    equal(names, sorted(names))
    equal(len(names), 4)
    first = alpha.volumes.list(limit=2, sort="name:asc")
    second = alpha.volumes.list(limit=2, marker=first[-1].id, sort="name:asc")
    equal([volume.name for volume in first + second], names)
    volumes, count = alpha.volumes.list(search_opts={"with_count": True})
    equal((len(volumes), count), (4, 4))
    equal(beta.volumes.list(), [])


@steps.step("it is renamed and its metadata are changed")
def _():
    volume = made["volume"]
    alpha.volumes.update(volume, name="renamed", description="")
    shown = alpha.volumes.get(volume.id)
    equal((shown.name, shown.description), ("renamed", ""))
    alpha.volumes.set_metadata(volume, {"b": "2"})
    equal(alpha.volumes.get(volume.id).metadata, {"a": "1", "b": "2"})
    alpha.volumes.delete_metadata(volume, ["a"])
    equal(alpha.volumes.get(volume.id).metadata, {"b": "2"})
    alpha.volumes.update_all_metadata(volume, {"c": "3"})
    equal(alpha.volumes.get(volume.id).metadata, {"c": "3"})


@steps.step("it grows, and does not shrink")
def _():
    volume = made["volume"]
    alpha.volumes.extend(volume, 2)
    wait(lambda: alpha.volumes.get(volume.id).status, "available")
    equal(alpha.volumes.get(volume.id).size, 2)
    refused(400, alpha.volumes.extend, volume, 1)


@steps.step("it is made bootable and read-only, and back")
def _():
    volume = made["volume"]
    alpha.volumes.set_bootable(volume, True)
    equal(alpha.volumes.get(volume.id).bootable, "true")
    alpha.volumes.set_bootable(volume, False)
    alpha.volumes.update_readonly_flag(volume, True)
    equal(alpha.volumes.get(volume.id).metadata["readonly"], "True")
    alpha.volumes.update_readonly_flag(volume, False)


@steps.step("a snapshot is taken, and a volume made from it; the snapshot goes before its volume")
def _():
    volume = made["volume"]
    snapshot = alpha.volume_snapshots.create(volume.id, name="monday", metadata={"d": "4"})
    wait(lambda: alpha.volume_snapshots.get(snapshot.id).status, "available")
    shown = alpha.volume_snapshots.get(snapshot.id)
    equal((shown.name, shown.size, shown.volume_id, shown.metadata), ("monday", 2, volume.id, {"d": "4"}))
    equal([one.id for one in alpha.volume_snapshots.list(search_opts={"volume_id": volume.id})], [snapshot.id])
    refused(400, alpha.volumes.delete, volume)
    copy = alpha.volumes.create(size=3, snapshot_id=snapshot.id, name="from monday")
    wait(lambda: alpha.volumes.get(copy.id).status, "available")
    equal((alpha.volumes.get(copy.id).size, alpha.volumes.get(copy.id).snapshot_id), (3, snapshot.id))
    alpha.volumes.delete(copy)
    wait_until_gone(lambda: alpha.volumes.get(copy.id))
    alpha.volume_snapshots.update(snapshot, name="tuesday")
    equal(alpha.volume_snapshots.get(snapshot.id).name, "tuesday")
    alpha.volume_snapshots.delete(snapshot)
    wait_until_gone(lambda: alpha.volume_snapshots.get(snapshot.id))


@steps.step("a volume is cloned and reverted to its snapshot")
def _():
    volume = made["volume"]
    clone = alpha.volumes.create(size=2, source_volid=volume.id, name="clone")
    wait(lambda: alpha.volumes.get(clone.id).status, "available")
    equal(alpha.volumes.get(clone.id).source_volid, volume.id)
    snapshot = alpha.volume_snapshots.create(clone.id)
    wait(lambda: alpha.volume_snapshots.get(snapshot.id).status, "available")
    alpha.volumes.revert_to_snapshot(clone, snapshot)
    wait(lambda: alpha.volumes.get(clone.id).status, "available")
    wait(lambda: alpha.volume_snapshots.get(snapshot.id).status, "available")
    alpha.volumes.delete(clone, cascade=True)
    wait_until_gone(lambda: alpha.volumes.get(clone.id))


@steps.step("another project sees nothing of it, and gets it by a transfer")
def _():
    volume = made["more"][0]
    refused(404, beta.volumes.get, volume.id)
    transfer = alpha.transfers.create(volume.id, name="for beta")
    wait(lambda: alpha.volumes.get(volume.id).status, "awaiting-transfer")
    equal([one.id for one in alpha.transfers.list()], [transfer.id])
    refused(400, beta.transfers.accept, transfer.id, "wrong")
    beta.transfers.accept(transfer.id, transfer.auth_key)
    wait(lambda: beta.volumes.get(volume.id).status, "available")
    refused(404, alpha.volumes.get, volume.id)
    beta.volumes.delete(volume.id)
    wait_until_gone(lambda: beta.volumes.get(volume.id))


@steps.step("a transfer is taken back")
def _():
    volume = made["more"][1]
    transfer = alpha.transfers.create(volume.id)
    alpha.transfers.delete(transfer.id)
    wait(lambda: alpha.volumes.get(volume.id).status, "available")


@steps.step("an administrator makes a type with specifications, which stay as they are while it has volumes")
def _():
    refused(403, alpha.volume_types.create, "none of mine")
    kind = admin.volume_types.create("quick", description="not slow", is_public=True)
    # With a namespace that no scheduler knows: it is kept, and nothing is demanded.
    kind.set_keys({"note:e": "5"})
    equal(admin.volume_types.get(kind.id).get_keys(), {"note:e": "5"})
    contains([one.name for one in alpha.volume_types.list()], "quick")
    volume = alpha.volumes.create(size=1, volume_type="quick")
    wait(lambda: alpha.volumes.get(volume.id).status, "available")
    equal(alpha.volumes.get(volume.id).volume_type, "quick")
    made["typed"] = (kind, volume)
    refused(400, kind.unset_keys, ["note:e"])


@steps.step("a private type is for those who are let in")
def _():
    kind = admin.volume_types.create("secret", is_public=False)
    refused(404, alpha.volume_types.get, kind.id)
    project = alpha.client.get_project_id()
    admin.volume_type_access.add_project_access(kind, project)
    equal([one.project_id for one in admin.volume_type_access.list(kind)], [project])
    equal(alpha.volume_types.get(kind.id).name, "secret")
    admin.volume_type_access.remove_project_access(kind, project)
    refused(404, alpha.volume_types.get, kind.id)
    admin.volume_types.delete(kind)


@steps.step("a volume's state is set by an administrator, and a type goes after its last volume")
def _():
    kind, volume = made["typed"]
    admin.volumes.reset_state(volume, "error")
    equal(alpha.volumes.get(volume.id).status, "error")
    refused(400, admin.volume_types.delete, kind)
    admin.volumes.force_delete(volume)
    wait_until_gone(lambda: alpha.volumes.get(volume.id))
    kind.unset_keys(["note:e"])
    equal(admin.volume_types.get(kind.id).get_keys(), {})
    admin.volume_types.delete(kind)
    lacks([one.name for one in alpha.volume_types.list()], "quick")


@steps.step("quotas are read, set, met, and set back")
def _():
    project = alpha.client.get_project_id()
    before = admin.quotas.get(project)
    equal((before.volumes, before.snapshots, before.gigabytes), (10, 10, 1000))
    used = admin.quotas.get(project, usage=True).volumes["in_use"]
    equal(used, len(alpha.volumes.list()))
    admin.quotas.update(project, volumes=used)
    refused(413, alpha.volumes.create, 1)
    admin.quotas.update(project, volumes=10)
    equal(admin.quotas.defaults(project).volumes, 10)
    limits = {limit.name: limit.value for limit in alpha.limits.get().absolute}
    equal((limits["maxTotalVolumes"], limits["totalVolumesUsed"]), (10, used))


@steps.step("a reader reads, and changes nothing")
def _():
    volume = made["volume"]
    equal(reader.volumes.get(volume.id).id, volume.id)
    refused(403, reader.volumes.create, 1)
    refused(403, reader.volumes.delete, volume.id)


@steps.step("a host is given a volume and loses it, as Nova does it")
def _():
    volume = made["volume"]
    server = "6e0bf0a6-2b4b-4c3c-8c3e-6d0a4c0f7a01"
    attachment = nova.attachments.create(volume.id, None, server, "null")
    equal(attachment["status"], "reserved")
    equal(alpha.volumes.get(volume.id).status, "reserved")
    connector = {
        "initiator": "iqn.1993-08.org.debian:01:conformance",
        "ip": "127.0.0.1",
        "host": "compute",
        "platform": "x86_64",
        "os_type": "linux",
        "multipath": False,
    }
    updated = nova.attachments.update(attachment["id"], connector)
    contains(("iscsi", "local"), updated.connection_info["driver_volume_type"])
    nova.attachments.complete(attachment["id"])
    shown = alpha.volumes.get(volume.id)
    equal((shown.status, shown.attachments[0]["server_id"]), ("in-use", server))
    refused(400, alpha.volumes.delete, volume)
    nova.volumes.begin_detaching(volume)
    equal(alpha.volumes.get(volume.id).status, "detaching")
    nova.attachments.delete(attachment["id"])
    wait(lambda: alpha.volumes.get(volume.id).status, "available")


@steps.step("services, pools and zones are told")
def _():
    binaries = {service.binary: service.state for service in admin.services.list()}
    equal((binaries["cinder-volume"], binaries["cinder-scheduler"]), ("up", "up"))
    pools = admin.pools.list(detailed=True)
    contains(pools[0].name, "@")
    equal([zone.zoneState["available"] for zone in alpha.availability_zones.list()], [True])
    refused(403, alpha.services.list)


@steps.step("what is left is deleted")
def _():
    for volume in alpha.volumes.list():
        alpha.volumes.delete(volume)
    wait(lambda: len(alpha.volumes.list()), 0)


steps.run()
