"""Nova's volume driver for the kind `vhostuser`: what to write into the domain for a socket that is there.

It connects nothing: storaged's agent on this host has made the socket before cinder-api answered, and takes it away
when the attachment is deleted.
"""

import os
import stat

from nova import exception
from nova.i18n import _
from nova.virt.libvirt.volume import volume
from oslo_log import log as logging

from storaged_nova import disk

LOG = logging.getLogger(__name__)


class VhostUserVolumeDriver(volume.LibvirtBaseVolumeDriver):
    """Volumes behind a vhost-user-blk socket on this host."""

    def __init__(self, host):
        super().__init__(host, is_block_dev=False)

    def connect_volume(self, connection_info, instance):
        """Looks whether the socket is there.

        Raises InternalError, which Nova turns into a refused attachment, if it is not.
        """
        path = connection_info["data"]["socket_path"]
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError as error:
            raise exception.InternalError(
                _("No volume at %(path)s: %(error)s. Does storaged-attach run on this host?")
                % {"path": path, "error": error}
            )
        if not is_socket:
            raise exception.InternalError(_("%s is no socket") % path)
        LOG.debug("Volume at %s", path, instance=instance)

    def get_config(self, connection_info, disk_info):
        """The disk for libvirt.

        Raises InternalError for what such a disk cannot be: another bus than virtio, encrypted by QEMU, or for reading only.
        """
        if disk_info["bus"] != "virtio":
            raise exception.InternalError(
                _("A vhost-user-blk volume is a virtio disk, and not %s: set hw_disk_bus=virtio on the image")
                % disk_info["bus"]
            )
        if disk_info["type"] != "disk":
            raise exception.InternalError(_("A vhost-user-blk volume is a disk, and not %s") % disk_info["type"])
        data = connection_info["data"]
        if data.get("encrypted"):
            raise exception.InternalError(
                _("QEMU cannot encrypt a vhost-user-blk volume: choose iscsi for the volume's type")
            )
        if data.get("access_mode") == "ro":
            raise exception.InternalError(
                _("A vhost-user-blk volume cannot be attached for reading only: choose iscsi for the volume's type")
            )
        if data.get("qos_specs"):
            LOG.warning(
                "QEMU cannot limit a vhost-user-blk volume: %s is left out. Limits of the consumer back-end are "
                "kept by storaged.",
                data["qos_specs"],
            )
        conf = super().get_config(connection_info, disk_info)
        conf.source_type = disk.SOURCE_TYPE
        conf.source_path = data["socket_path"]
        return conf
