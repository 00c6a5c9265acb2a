"""What plans are made of, without torch: kinds of GPUs, and how large a study is."""
