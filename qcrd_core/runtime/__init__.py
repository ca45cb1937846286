"""Processes: jobs, servers, daemons, hosts, and what becomes of them when somebody dies."""
