"""Models for use outside: ONNX files with their cards, what runs them, and what they cost."""
