"""Volumes are zvols below one dataset; `backend.ZfsBackend` is the door."""
