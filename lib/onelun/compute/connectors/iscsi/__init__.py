"""Devices of the kernel's initiator, by iscsiadm and sysfs; `connector.IscsiConnector` is the door."""
