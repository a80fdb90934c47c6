"""What all targets share of quantization: calibration, ranges, what is changed before, and what stays in float."""
