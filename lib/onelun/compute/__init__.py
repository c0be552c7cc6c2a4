"""The compute agent: it connects exports and keeps `disk.N` links on one host."""
