"""OpenNebula's driver actions: what oned asks, translated into requests to a NAS."""
