"""Exports of the log as Parquet: columns, days, folders, jobs."""
