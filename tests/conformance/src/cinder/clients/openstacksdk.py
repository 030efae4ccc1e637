"""A working day with openstacksdk: as Ansible and Terraform-like programs use it."""

import os

import openstack
from openstack import exceptions

steps = Steps("openstacksdk")


def connect(user, project):
    return openstack.connect(
        auth_url=os.environ["OS_AUTH_URL"],
        username=user,
        password=os.environ["OS_PASSWORD"],
        project_name=project,
        user_domain_name="Default",
        project_domain_name="Default",
        region_name="RegionOne",
    )


cloud = connect("beta-member", "beta")
admin = connect("beta-admin", "beta")
storage = cloud.block_storage
made = {}


@steps.step("the newest version of both is used")
def _():
    equal(storage.get_endpoint_data().max_microversion, (3, 71))


@steps.step("a volume is created, waited for, found by name and shown")
def _():
    volume = storage.create_volume(size=1, name="sdk", metadata={"a": "1"})
    made["volume"] = storage.wait_for_status(volume, "available", interval=1, wait=60)
    found = storage.find_volume("sdk", ignore_missing=False)
    equal((found.id, found.size, found.metadata), (volume.id, 1, {"a": "1"}))
    equal(storage.find_volume("no such volume"), None)
    equal([one.name for one in storage.volumes()], ["sdk"])


@steps.step("it is renamed, grows, and keeps metadata")
def _():
    volume = made["volume"]
    storage.update_volume(volume, name="sdk-2")
    storage.set_volume_metadata(volume, b="2")
    storage.extend_volume(volume, 2)
    volume = storage.wait_for_status(storage.get_volume(volume.id), "available", interval=1, wait=60)
    equal((volume.name, volume.size, volume.metadata), ("sdk-2", 2, {"a": "1", "b": "2"}))
    storage.delete_volume_metadata(volume, ["a"])
    equal(storage.get_volume(volume.id).metadata, {"b": "2"})


@steps.step("a snapshot is taken, and a volume made from it")
def _():
    snapshot = storage.create_snapshot(volume_id=made["volume"].id, name="monday")
    snapshot = storage.wait_for_status(snapshot, "available", interval=1, wait=60)
    copy = storage.create_volume(size=2, snapshot_id=snapshot.id, name="copy")
    copy = storage.wait_for_status(copy, "available", interval=1, wait=60)
    equal(copy.snapshot_id, snapshot.id)
    storage.delete_volume(copy)
    storage.wait_for_delete(copy, interval=1, wait=60)
    storage.delete_snapshot(snapshot)
    storage.wait_for_delete(snapshot, interval=1, wait=60)


@steps.step("types are for administrators")
def _():
    kind = admin.block_storage.create_type(name="sdk-type", extra_specs={"note:c": "3"})
    equal(storage.find_type("sdk-type").id, kind.id)
    equal(admin.block_storage.get_type(kind.id).extra_specs, {"note:c": "3"})
    try:
        storage.create_type(name="another")
        raise AssertionError("a member made a type")
    except exceptions.ForbiddenException:
        pass
    admin.block_storage.delete_type(kind)
    equal(storage.find_type("sdk-type"), None)


@steps.step("quotas and limits agree with what there is")
def _():
    quotas = admin.block_storage.get_quota_set(cloud.current_project_id, usage=True)
    equal((quotas.volumes, quotas.usage["volumes"]), (10, 1))
    limits = storage.get_limits().absolute
    equal((limits.max_total_volumes, limits.total_volumes_used, limits.total_gigabytes_used), (10, 1, 2))


@steps.step("a transfer is made and taken back")
def _():
    transfer = storage.create_transfer(volume_id=made["volume"].id, name="offer")
    equal(storage.get_volume(made["volume"].id).status, "awaiting-transfer")
    equal([one.id for one in storage.transfers()], [transfer.id])
    storage.delete_transfer(transfer)
    storage.wait_for_status(storage.get_volume(made["volume"].id), "available", interval=1, wait=60)


@steps.step("the cloud layer creates and deletes with names alone")
def _():
    volume = cloud.create_volume(1, name="layer", wait=True, timeout=60)
    equal((volume.name, volume.status), ("layer", "available"))
    snapshot = cloud.create_volume_snapshot(volume.id, wait=True, timeout=60, name="layer-1")
    equal(cloud.get_volume_snapshot("layer-1").id, snapshot.id)
    equal(cloud.delete_volume_snapshot("layer-1", wait=True, timeout=60), True)
    equal(cloud.delete_volume("layer", wait=True, timeout=60), True)


@steps.step("services and pools are told to administrators")
def _():
    binaries = {service.binary: service.state for service in admin.block_storage.services()}
    equal(binaries["cinder-volume"], "up")
    contains([pool.name for pool in admin.block_storage.backend_pools()][0], "@")


@steps.step("what is left is deleted")
def _():
    volume = storage.get_volume(made["volume"].id)
    storage.delete_volume(volume)
    storage.wait_for_delete(volume, interval=1, wait=60)
    equal(list(storage.volumes()), [])


steps.run()
