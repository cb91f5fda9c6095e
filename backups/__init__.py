"""Backups: one file with the database and the store, verified, kept and restored. Without Django.

`python -m backups --help` lists the commands; docs/deploying/backups.md describes the backup.
"""
