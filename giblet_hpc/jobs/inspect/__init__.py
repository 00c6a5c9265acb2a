"""Looking at runs: status, logs, scores, comparison, TensorBoard, fault drills."""
