"""A whole onelun on one machine, without kernel modules: see docs/architecture.md, "Sandbox"."""
