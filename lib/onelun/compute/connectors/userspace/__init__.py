"""Devices without the kernel's initiator: qemu, nbdfuse and a loop device; `connector.UserspaceConnector` is the door."""
