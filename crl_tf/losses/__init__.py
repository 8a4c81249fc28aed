"""Losses: profiling → mining → comparison → rectification → crl; beside them the other losses."""
