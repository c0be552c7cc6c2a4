"""Faults on demand, for tests alone: named points around every external step (decision 0017). Nobody imports it otherwise."""
