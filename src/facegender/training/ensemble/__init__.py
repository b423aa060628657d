"""An ensemble of the trained network and a published one, as one model file."""
