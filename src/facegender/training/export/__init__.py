"""From a network to a model file, and its int8 and OpenVINO forms."""
