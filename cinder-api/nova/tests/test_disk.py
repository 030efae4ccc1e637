"""What the driver writes, and what it reads of libvirt's answers."""

import os
import socket
import tempfile
import unittest
from unittest import mock

from lxml import etree
from nova import exception
from nova.virt.libvirt import config
from nova.virt.libvirt import driver

import storaged_nova
from storaged_nova import disk
from storaged_nova import volume

storaged_nova.register()

VOLUME = "7b0b3e1c-6a0f-4b56-9f83-0c2f6d1b1f01"


def connection(**data):
    return {
        "driver_volume_type": storaged_nova.KIND,
        "serial": VOLUME,
        "data": {"socket_path": "/run/storaged-vhost/one.sock", **data},
    }


def described(**data):
    host = mock.Mock()
    host.find_secret.return_value = None
    offered = volume.VhostUserVolumeDriver(host)
    return offered.get_config(connection(**data), {"bus": "virtio", "type": "disk", "dev": "vdb"})


class Registration(unittest.TestCase):
    def test_nova_finds_the_driver_by_the_kind(self):
        nova = driver.LibvirtDriver.__new__(driver.LibvirtDriver)
        nova.volume_drivers = {}
        nova._host = mock.Mock()
        self.assertIsInstance(nova._get_volume_driver(connection()), volume.VhostUserVolumeDriver)

    def test_a_nova_without_a_table_of_kinds_is_refused_with_a_sentence(self):
        with mock.patch.object(driver, "VOLUME_DRIVERS", ()):
            with self.assertRaisesRegex(storaged_nova.NovaIsDifferent, "iscsi"):
                storaged_nova.register()


class Written(unittest.TestCase):
    def test_the_socket_is_the_source_and_qemu_connects_again(self):
        written = described().format_dom()
        self.assertEqual(("vhostuser", "disk"), (written.get("type"), written.get("device")))
        source = written.find("source")
        self.assertEqual({"type": "unix", "path": "/run/storaged-vhost/one.sock"}, dict(source.attrib))
        self.assertEqual({"enabled": "yes", "timeout": "1"}, dict(source.find("reconnect").attrib))
        self.assertEqual({"dev": "vdb", "bus": "virtio"}, dict(written.find("target").attrib))
        self.assertEqual("ua-" + VOLUME, written.find("alias").get("name"))

    def test_nothing_is_written_that_libvirt_refuses_with_such_disks(self):
        conf = described(
            qos_specs={"total_iops_sec": "500"}, discard=True, logical_block_size="512", access_mode="rw"
        )
        conf.driver_cache = "writeback"
        conf.driver_io = "native"
        conf.shareable = True
        written = conf.format_dom()
        for name in disk.NOT_FOR_ITS_DRIVER:
            self.assertIsNone(written.find("driver").get(name), name)
        for name in disk.NOT_FOR_VHOST_USER:
            self.assertIsNone(written.find(name), name)

    def test_other_disks_are_written_as_nova_writes_them(self):
        conf = config.LibvirtConfigGuestDisk()
        conf.source_type, conf.source_path = "block", "/dev/sdx"
        conf.target_dev, conf.target_bus, conf.serial = "vdc", "virtio", VOLUME
        written = conf.format_dom()
        self.assertEqual("/dev/sdx", written.find("source").get("dev"))
        self.assertEqual(VOLUME, written.find("serial").text)


class Read(unittest.TestCase):
    def test_what_was_written_is_read_and_written_again(self):
        # This is what Nova does to take a disk away: it hands libvirt what libvirt has said of it.
        written = described().format_dom()
        read = config.LibvirtConfigGuestDisk()
        read.parse_dom(written)
        self.assertEqual("/run/storaged-vhost/one.sock", read.source_path)
        self.assertEqual("ua-" + VOLUME, read.alias)
        again = read.format_dom()
        self.assertEqual(
            etree.tostring(written.find("source")), etree.tostring(again.find("source"))
        )


class Refused(unittest.TestCase):
    def refuse(self, words, info=None, **data):
        offered = volume.VhostUserVolumeDriver(mock.Mock())
        with self.assertRaisesRegex(exception.InternalError, words):
            offered.get_config(connection(**data), info or {"bus": "virtio", "type": "disk", "dev": "vdb"})

    def test_another_bus(self):
        self.refuse("hw_disk_bus", {"bus": "scsi", "type": "disk", "dev": "sda"})

    def test_a_lun(self):
        self.refuse("not lun", {"bus": "virtio", "type": "lun", "dev": "vdb"})

    def test_reading_only(self):
        self.refuse("iscsi", access_mode="ro")

    def test_encryption(self):
        self.refuse("iscsi", encrypted=True)


class Connected(unittest.TestCase):
    def connect(self, path):
        volume.VhostUserVolumeDriver(mock.Mock()).connect_volume(connection(socket_path=path), None)

    def test_a_socket_is_accepted(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "one.sock")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path)
                self.connect(path)

    def test_no_socket_names_the_agent(self):
        with self.assertRaisesRegex(exception.InternalError, "storaged-attach"):
            self.connect("/nowhere/one.sock")

    def test_a_file_is_no_socket(self):
        with tempfile.NamedTemporaryFile() as file:
            with self.assertRaisesRegex(exception.InternalError, "no socket"):
                self.connect(file.name)


if __name__ == "__main__":
    unittest.main()
