"""What a folder holds: scans, films and words of a study, by names and headers, without numpy."""
