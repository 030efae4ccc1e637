"""Volumes of storaged for Nova's libvirt driver, over vhost-user-blk.

Nova has no extension point for kinds of volumes: its libvirt driver has a table of them, and a class that writes and
reads libvirt's <disk>. `register` adds one line to the table and makes the class know one type of disks more.
Nothing else of Nova is touched, and nothing of it is changed on disk.
"""

# The `driver_volume_type` of connections of this kind, which cinder-api gives.
KIND = "vhostuser"


class NovaIsDifferent(Exception):
    """This Nova is not made as the ones that this package was written for."""


def register():
    """Makes Nova's libvirt driver know volumes of the kind `vhostuser`. Harmless if done twice.

    Raises NovaIsDifferent if Nova's libvirt driver has no table of kinds any more.
    """
    from nova.virt.libvirt import config
    from nova.virt.libvirt import driver

    from storaged_nova import disk

    kinds = getattr(driver, "VOLUME_DRIVERS", None)
    if not isinstance(kinds, dict):
        raise NovaIsDifferent(
            "nova.virt.libvirt.driver has no VOLUME_DRIVERS: this release of Nova needs another storaged-nova. "
            "Start nova-compute itself meanwhile, and choose iscsi for the volumes' types."
        )
    kinds[KIND] = "storaged_nova.volume.VhostUserVolumeDriver"
    disk.teach(config.LibvirtConfigGuestDisk)
