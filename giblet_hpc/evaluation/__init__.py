"""Scores, ceilings, baselines, maps and the report."""
