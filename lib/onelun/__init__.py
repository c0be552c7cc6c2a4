"""onelun: shared block storage for OpenNebula from the operator's own NAS servers."""

__version__ = "0.1.0"
