"""What is wrong with a study or a training: figures, causes, remedies."""
