"""libvirt's <disk type='vhostuser'>, which Nova's class of disks can neither write nor read.

Nova's class names itself where it calls its base, so that a subclass cannot stand in its place: its two methods are
wrapped instead. The format is libvirt's: https://libvirt.org/formatdomain.html, "Hard drives, floppy disks, CDROMs".
"""

import functools

from lxml import etree

# libvirt's name of the type.
SOURCE_TYPE = "vhostuser"
# After how many seconds QEMU connects again, when the process behind the socket was exchanged. Without it the disk
# would be gone for the guest until its next start.
RECONNECT_SECONDS = "1"
# Elements that say something about a block layer that such a disk has not: libvirt refuses the disk with them.
NOT_FOR_VHOST_USER = ("serial", "iotune", "blockio", "shareable", "readonly", "encryption")
# Attributes of <driver> likewise: there is nothing to cache or to discard but in the backend.
NOT_FOR_ITS_DRIVER = ("cache", "discard", "io")


def teach(disk_class):
    """Makes Nova's class of disks write and read disks of type vhostuser. Harmless if done twice."""
    if hasattr(disk_class.format_dom, "__wrapped__"):
        return
    disk_class.format_dom = _writing(disk_class.format_dom)
    disk_class.parse_dom = _reading(disk_class.parse_dom)


def _writing(format_dom):
    @functools.wraps(format_dom)
    def write(self):
        written = format_dom(self)
        if self.source_type == SOURCE_TYPE:
            _complete(written, self.source_path)
        return written

    return write


def _complete(written, path):
    for name in NOT_FOR_VHOST_USER:
        for element in written.findall(name):
            written.remove(element)
    driver = written.find("driver")
    if driver is not None:
        for name in NOT_FOR_ITS_DRIVER:
            driver.attrib.pop(name, None)
    source = etree.SubElement(written, "source", type="unix", path=path)
    etree.SubElement(source, "reconnect", enabled="yes", timeout=RECONNECT_SECONDS)


def _reading(parse_dom):
    @functools.wraps(parse_dom)
    def read(self, xmldoc):
        parse_dom(self, xmldoc)
        source = xmldoc.find("source")
        if self.source_type == SOURCE_TYPE and source is not None:
            self.source_path = source.get("path")

    return read
