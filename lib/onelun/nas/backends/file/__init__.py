"""Volumes are files below one directory; `backend.FileBackend` is the door."""
