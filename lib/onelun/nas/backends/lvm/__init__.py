"""Volumes are thin logical volumes of one thin pool; `backend.LvmBackend` is the door."""
