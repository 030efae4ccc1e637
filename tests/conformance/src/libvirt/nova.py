"""What storaged's driver for Nova writes for libvirt. Arguments: where it is, the volume's socket, the domain's dumpxml.

Without the last: the disk to attach. With it: the same disk as Nova hands it back to have it taken away.
"""

import sys
from unittest import mock

sys.path.insert(0, sys.argv[1])

import storaged_nova
from lxml import etree
from nova.virt.libvirt import config

from storaged_nova import volume

VOLUME = "7b0b3e1c-6a0f-4b56-9f83-0c2f6d1b1f01"

storaged_nova.register()
host = mock.Mock()
host.find_secret.return_value = None
connection = {
    "driver_volume_type": storaged_nova.KIND,
    "serial": VOLUME,
    "data": {"socket_path": sys.argv[2], "access_mode": "rw", "qos_specs": {"total_iops_sec": "500"}},
}
driver = volume.VhostUserVolumeDriver(host)
driver.connect_volume(connection, None)
disk = driver.get_config(connection, {"bus": "virtio", "type": "disk", "dev": "vdb"})
# As Nova does with every volume's disk, whatever its kind.
disk.driver_cache = "writeback"
if len(sys.argv) > 3:
    disks = []
    for element in etree.fromstring(sys.argv[3]).findall("./devices/disk"):
        seen = config.LibvirtConfigGuestDisk()
        seen.parse_dom(element)
        disks.append(seen)
    (disk,) = [seen for seen in disks if seen.alias == disk.alias]
print(disk.to_xml())
