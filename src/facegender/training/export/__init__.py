"""Export of networks: model files, int8 quantization, OpenVINO."""
