"""Face detection and alignment: where the faces of an image are, and how one is cropped."""
