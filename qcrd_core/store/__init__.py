"""The store: tables and files, each complete or absent, on a disk or in an object store."""
