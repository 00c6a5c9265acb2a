"""The schema: one file a section, the run config that joins them, cluster profiles, and files."""
