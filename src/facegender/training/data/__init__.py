"""The data of a training: samples, split, corrections, image cache, batches, augmentation."""
