"""Known causes of failures: tables by field, and the search through them."""
