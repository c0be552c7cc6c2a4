"""Targets of the kernel's LIO, made by worker processes; `exporter.LioExporter` is the door."""
