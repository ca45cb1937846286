"""The store: tables and files that are whole or absent, on a disk or an object store."""
