"""One file a kind of scans, and what all share: cleaning, masks, their arrays in the store."""
