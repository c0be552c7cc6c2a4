"""Volumes are kept in memory and really keep what is written; `backend.MemoryBackend` is the door."""
