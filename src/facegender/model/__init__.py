"""The model file, the model that ships, and the runtimes that run a model."""
