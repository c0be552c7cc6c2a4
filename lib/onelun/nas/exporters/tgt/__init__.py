"""Targets of tgtd, by its control socket; `exporter.TgtExporter` is the door."""
