"""Guests with kernels of their own on one machine: ZFS, LVM-thin, LIO and open-iscsi: see docs/architecture.md, "Lab"."""
