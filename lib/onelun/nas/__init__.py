"""The NAS agent: it owns volumes and exports, and orchestrates the compute nodes."""
