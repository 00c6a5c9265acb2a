"""From films and sheets to frames, sound, codes and words: what modalities are made from."""
