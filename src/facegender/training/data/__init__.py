"""Samples, split, image cache, batches and augmentation."""
