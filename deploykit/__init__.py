"""deploykit: a trained PyTorch vision checkpoint becomes verified ONNX, Core ML and TFLite files."""

__version__ = "0.1.0"
