"""One file a stimulus modality, the protocol they follow, and the registry that lists them."""
