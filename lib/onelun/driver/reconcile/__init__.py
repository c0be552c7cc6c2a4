"""Comparing what oned says should exist with what NASes and hosts have, and repairing what differs."""
